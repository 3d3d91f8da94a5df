-- Which version answers.
create or replace function ml._no_champion(model text, symbol text) returns bigint
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from ml.models m where m.model = _no_champion.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'List them with: select model, label from ml.models';
    end if;
    raise exception 'model % has no promoted version%', quote_literal(model),
        coalesce(' for ' || symbol, ' for all symbols')
    using errcode = 'AP505',
    hint = 'Train one with: call ml.retrain(model, symbol); then call ml.promote(version)';
end
$$;

-- The versions that may answer for a symbol, the narrowest partition's first, and how each was
-- chosen. as_of null: the champions of now. Else nobody from the future: a line (model, symbol,
-- regime) gives who was its champion then; where the line was not in service yet, the champion of
-- now, or the newest earlier one, whose data had ended by then; at last the newest version that the
-- gates have not refused. refused: why a line that is in service gives nobody.
create or replace function ml._candidates(
    model text, symbol text, regime text, as_of timestamptz,
    out version_ids bigint [], out chosen text [], out refused text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_line record;
    v_then record;
    v_id bigint;
    v_how text;
    -- A version trained for trending serves bull_trending, after one trained for that alone.
    v_names constant text [] := regime.names_of(_candidates.regime);
begin
    version_ids := '{}';
    chosen := '{}';
    for v_line in
        select
            l.symbol, l.regime, a.version_id, a.updated_at, v.as_of as trained_as_of
        from (
            select a.symbol, a.regime
            from ml.aliases a
            where a.model = _candidates.model and a.alias = 'champion'
            union
            select h.symbol, h.regime
            from ml.alias_history h
            where h.model = _candidates.model and h.alias = 'champion'
                and h.at <= _candidates.as_of
        ) l
        left join ml.aliases a
            on a.model = _candidates.model and a.alias = 'champion'
            and a.symbol is not distinct from l.symbol and a.regime is not distinct from l.regime
        left join ml.model_versions v on v.version_id = a.version_id
        where (l.symbol = _candidates.symbol and (l.regime is null or l.regime = any (v_names)))
            or (l.symbol is null and l.regime is null)
        order by l.regime is null, array_position(v_names, l.regime), l.symbol is null
    loop
        v_id := null;
        if as_of is null or v_line.updated_at <= as_of then
            v_id := v_line.version_id;
            v_how := 'champion';
        else
            select h.version_id, v.version_id as there into v_then
            from ml.alias_history h
            left join ml.model_versions v on v.version_id = h.version_id
            where h.model = _candidates.model and h.alias = 'champion'
                and h.symbol is not distinct from v_line.symbol
                and h.regime is not distinct from v_line.regime
                and h.at <= _candidates.as_of
            order by h.history_id desc
            limit 1;
            if found then
                v_id := v_then.there;
                v_how := 'champion then';
            elsif v_line.trained_as_of <= as_of then
                v_id := v_line.version_id;
                v_how := 'trained by then';
            else
                select v.version_id into v_id
                from ml.model_versions v
                left join lateral (
                    select max(s.i) as place
                    from unnest(
                        ml._alias_stack(_candidates.model, v_line.symbol, v_line.regime)
                    ) with ordinality s (id, i)
                    where s.id = v.version_id
                ) s on true
                where v.model = _candidates.model
                    and v.symbol is not distinct from v_line.symbol
                    and v.regime is not distinct from v_line.regime
                    and v.as_of <= _candidates.as_of
                    and v.archived_at is null
                    and (
                        s.place is not null
                        or (
                            not exists (
                                select from ml.alias_history h
                                where h.alias = 'champion' and h.version_id = v.version_id
                                    and h.model = _candidates.model
                            )
                            and not exists (
                                select from ml.gate_results g
                                where g.version_id = v.version_id and not g.passed
                                    and g.at = (
                                        select max(n.at) from ml.gate_results n
                                        where n.version_id = v.version_id
                                    )
                            )
                        )
                    )
                order by s.place is null, v.as_of desc, s.place desc, v.version_id desc
                limit 1;
                v_how := 'trained by then';
                if v_id is null then
                    refused := format(
                        'version %s, the champion, was trained on data up to %s',
                        v_line.version_id, v_line.trained_as_of
                    );
                end if;
            end if;
        end if;
        if v_id is not null then
            version_ids := version_ids || v_id;
            chosen := chosen || v_how;
        end if;
    end loop;
end
$$;

-- The stretches of time in which one version answers for a symbol's rows, as ml._candidates has it
-- (symbol null: one without champions of its own). Rows outside of them have nobody.
create or replace function ml._timeline(model text, symbol text)
returns table (version_id bigint, "from" timestamptz, "to" timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    with moments as (
        select distinct m.moment
        from (
            select h.at
            from ml.alias_history h
            where h.model = $1 and h.alias = 'champion' and (h.symbol is null or h.symbol = $2)
            union all
            select v.as_of
            from ml.model_versions v
            where v.model = $1 and (v.symbol is null or v.symbol = $2)
        ) m (moment)
        where isfinite(m.moment)
    )
    select c.version_ids[1], m.moment, lead(m.moment, 1, 'infinity') over (order by m.moment)
    from moments m
    cross join lateral ml._candidates($1, $2, null, m.moment) c
$$;
