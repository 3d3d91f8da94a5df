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
