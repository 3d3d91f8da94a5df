-- Names of instruments.
create or replace function market.resolve(symbol text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text;
    v_symbols text [];
    v_priorities integer [];
    v_near text;
begin
    select i.symbol into v_symbol from market.instruments i where i.symbol = resolve.symbol;
    if found then
        return v_symbol;
    end if;
    select
        array_agg(i.symbol order by i.priority, i.symbol),
        array_agg(i.priority order by i.priority, i.symbol)
    into v_symbols, v_priorities
    from market.instruments i
    where i.aliases @> array[upper(resolve.symbol)] or upper(i.symbol) = upper(resolve.symbol);
    if v_symbols is null then
        -- An alias that was not written in capitals: the index does not find it.
        select
            array_agg(i.symbol order by i.priority, i.symbol),
            array_agg(i.priority order by i.priority, i.symbol)
        into v_symbols, v_priorities
        from market.instruments i
        where exists (select from unnest(i.aliases) a (name) where upper(a.name) = upper(resolve.symbol));
    end if;
    if v_symbols is null then
        select string_agg(n.symbol, ', ') into v_near
        from (
            select i.symbol from market.instruments i
            where i.base = upper(substr(resolve.symbol, 1, length(i.base)))
            order by i.priority, i.symbol limit 5
        ) n;
        raise exception 'unknown symbol %', coalesce(quote_literal(resolve.symbol), 'null')
        using errcode = 'AP101',
        detail = 'It is neither a symbol nor an alias in market.instruments.',
        hint = coalesce(
            'Did you mean one of: ' || v_near || '?',
            'List the symbols with: select symbol, aliases from market.instruments'
        );
    end if;
    if v_priorities[1] = v_priorities[2] then
        raise exception 'symbol % is ambiguous', quote_literal(resolve.symbol)
        using errcode = 'AP102',
        detail = format('It fits %s.', array_to_string(v_symbols, ', ')),
        hint = 'Name one of them, or give one the lowest market.instruments.priority.';
    end if;
    return v_symbols[1];
end
$$;
comment on function market.resolve(text) is
'The symbol that a symbol or alias stands for (any case). A bare name on several venues gives the one with the lowest priority. Errors: AP101 unknown symbol, AP102 several venues with the same priority.';

create or replace function market.set_instrument(symbol text, contract jsonb)
returns table (instrument text, reload text [])
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_known constant text [] := array[
        'kind', 'base', 'quote', 'settlement', 'margin', 'contract_size', 'size_unit', 'expiry',
        'negative_prices', 'source', 'tick_size', 'lot_size', 'aliases', 'priority', 'listed_at',
        'delisted_at'
    ];
    v_symbol text;
    v_key text;
    v_old market.instruments;
    v_new market.instruments;
begin
    if set_instrument.contract is null or jsonb_typeof(set_instrument.contract) <> 'object' then
        raise exception 'the contract is %', coalesce(jsonb_typeof(set_instrument.contract), 'null')
        using errcode = 'AP902', hint = 'Give an object, as {"margin": "inverse", "contract_size": 100}.';
    end if;
    v_symbol := market.resolve(set_instrument.symbol);
    select k.key into v_key from jsonb_object_keys(set_instrument.contract) k (key)
    where k.key <> all (v_known) limit 1;
    if found then
        raise exception 'an instrument has no %', quote_literal(v_key)
        using errcode = 'AP900', hint = 'It has ' || array_to_string(v_known, ', ') || '.';
    end if;
    select i.* into strict v_old from market.instruments i where i.symbol = v_symbol for update;
    begin
        v_new := jsonb_populate_record(v_old, set_instrument.contract);
        v_new.source_date := current_date;
        update market.instruments i set
            kind = v_new.kind, base = v_new.base, quote = v_new.quote, settlement = v_new.settlement,
            margin = v_new.margin, contract_size = v_new.contract_size, size_unit = v_new.size_unit,
            expiry = v_new.expiry, negative_prices = v_new.negative_prices, source = v_new.source,
            source_date = v_new.source_date, tick_size = v_new.tick_size, lot_size = v_new.lot_size,
            aliases = v_new.aliases, priority = v_new.priority, listed_at = v_new.listed_at,
            delisted_at = v_new.delisted_at
        where i.symbol = v_symbol;
    exception
        when check_violation or not_null_violation or data_exception or unique_violation
            or invalid_text_representation or array_subscript_error
        then
            raise exception 'no instrument can be so: %', sqlerrm
            using errcode = 'AP901', hint = 'See the comments on the columns of market.instruments.';
    end;
    instrument := v_symbol;
    if (v_old.margin, v_old.contract_size, v_old.size_unit)
        is distinct from (v_new.margin, v_new.contract_size, v_new.size_unit)
    then
        select array_agg(distinct l.file order by l.file) into reload
        from market.loads l
        where l.summary @> jsonb_build_array(jsonb_build_object('symbol', v_symbol));
    end if;
    return next;
end
$$;
comment on function market.set_instrument(text, jsonb) is
'Corrects what is known of an instrument: symbol: a symbol or alias; contract: an object of columns of market.instruments (kind, base, quote, settlement, margin, contract_size, size_unit, expiry, negative_prices, tick_size, lot_size, aliases, priority, listed_at, delisted_at, source). Nothing that is stored is converted anew: reload lists the files whose sizes were converted with the old contract; load them again with alphaplus load auto --again --correct. Errors: AP101 unknown symbol, AP900 no such part, AP901 a value that cannot be, AP902 no object.';
