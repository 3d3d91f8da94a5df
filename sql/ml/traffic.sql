-- A/B: who gets which version, by a stable hash.

create or replace procedure ml.split_traffic(
    model text, symbol text, challenger double precision, regime text default null
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
begin
    if challenger is null or not (challenger >= 0 and challenger <= 1) then
        raise exception 'the challenger''s share is %, it must be from 0 to 1', coalesce(challenger::text, 'null')
        using errcode = 'AP643', hint = 'call ml.split_traffic(model, symbol, 0.1); 0 ends the test.';
    end if;
    if not exists (select from ml.models m where m.model = split_traffic.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    delete from ml.traffic t
    where t.model = split_traffic.model and t.symbol is not distinct from v_symbol
        and t.regime is not distinct from split_traffic.regime;
    if challenger > 0 then
        insert into ml.traffic (model, symbol, regime, alias, weight)
        values
        (split_traffic.model, v_symbol, split_traffic.regime, 'champion', 1 - challenger),
        (split_traffic.model, v_symbol, split_traffic.regime, 'challenger', challenger);
    end if;
end
$$;
comment on procedure ml.split_traffic(text, text, double precision, text) is
'Gives a share of the callers of a line the challenger instead of the champion (ml.assigned); 0 ends
it. Errors: AP101, AP102 symbol, AP302 unknown model, AP643 no share.';

create or replace function ml.assigned(
    model text, symbol text, caller text default null, regime text default null,
    out version_id bigint, out alias text
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text := market.resolve(symbol);
    v_place double precision;
begin
    -- 53 bits, so that every place is a number of its own; the same for ever.
    v_place := (hashtextextended(
        jsonb_build_array(model, coalesce(caller, v_symbol))::text, 20260101
    ) & 9007199254740991)::double precision / 9007199254740992;
    select s.version_id, s.alias
    into version_id, alias
    from (
        select
            a.version_id, t.alias,
            sum(t.weight) over (order by t.alias) / sum(t.weight) over () as upto,
            t.rank
        from (
            select x.*, rank() over (order by x.symbol is null, x.regime is null) as rank
            from ml.traffic x
            where x.model = assigned.model and (x.symbol = v_symbol or x.symbol is null)
                and (x.regime = assigned.regime or x.regime is null)
        ) t
        join ml.aliases a on a.model = t.model and a.symbol is not distinct from t.symbol
            and a.regime is not distinct from t.regime and a.alias = t.alias
        where t.rank = 1 and t.weight > 0
    ) s
    where v_place < s.upto
    order by s.upto
    limit 1;
    if not found then
        version_id := ml.champion(model, v_symbol, regime);
        alias := case when version_id is not null then 'champion' end;
    end if;
end
$$;
comment on function ml.assigned(text, text, text, text) is
'Which version a caller gets in an A/B test of a model: by a stable hash of the caller''s key (without
one, of the symbol) and the weights of ml.traffic; the same caller always gets the same as long as the
weights stay. Without a test: the champion. Errors: AP101, AP102 symbol.';

create or replace function ml.predict_assigned(
    model text, symbol text, caller text default null, as_of timestamptz default null
)
returns table (
    symbol text, as_of timestamptz, prediction double precision, version_id bigint, alias text,
    is_fallback boolean
)
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
    select
        p.symbol, p.as_of, p.prediction, p.version_id,
        case when p.version_id = a.version_id then a.alias end, p.is_fallback
    from ml.assigned($1, $2, $3) a
    cross join lateral ml.predict(
        $1, $2, $4, case when a.alias <> 'champion' then a.version_id end
    ) p
$$;
comment on function ml.predict_assigned(text, text, text, timestamptz) is
'ml.predict by the version that an A/B test gives the caller (ml.assigned). Errors: as ml.predict.';
