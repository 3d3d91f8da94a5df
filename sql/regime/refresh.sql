-- Keeps regimes current. It commits between batches, so it cannot pin search_path; names are qualified.
create or replace function regime._extent(
    symbol text, timeframe interval, out first_ts timestamptz, out last_close timestamptz
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_width interval;
begin
    -- Each length by itself, by index from either end.
    foreach v_width in array array[timeframe, interval '1 minute'] loop
        first_ts := least(first_ts, (
            select c.ts from market.candles c
            where c.symbol = $1 and c.timeframe = v_width order by c.ts limit 1
        ));
        last_close := greatest(last_close, (
            select c.ts + v_width from market.candles c
            where c.symbol = $1 and c.timeframe = v_width order by c.ts desc limit 1
        ));
    end loop;
    first_ts := least(first_ts, (
        select t.ts from market.trades t where t.symbol = $1 order by t.ts limit 1
    ));
    last_close := greatest(last_close, (
        select t.ts from market.trades t where t.symbol = $1 order by t.ts desc limit 1
    ));
end
$$;
comment on function regime._extent(text, interval) is
'From when to when a symbol has what bars of a timeframe are made of.';

create or replace function regime._work(
    symbols text [], only_timeframe interval, as_of timestamptz
)
returns table (
    symbol text, timeframe interval, width bigint, version text, spec jsonb, rule_set text,
    verdict_version text, thresholds jsonb, first bigint, stop bigint, marks bigint []
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
        select
            i.symbol, t.timeframe, regime._width(t.timeframe), c.version, c.spec, c.rule_set,
            d.verdict_version, d.thresholds,
            regime._us(greatest(
                e.first_ts, least(
                    coalesce(b.through - 24 * t.timeframe, e.first_ts),
                    p.ts_from - (d.thresholds ->> 'verdict_limit')::integer * t.timeframe
                )
            )),
            regime._us(public.time_bucket(t.timeframe, least(e.last_close, $3))),
            p.ids
        from market.instruments i
        cross join (
            select distinct c.timeframe from regime.classifiers c where c.is_kept
        ) t
        cross join lateral regime._classifier(i.symbol, t.timeframe) c
        cross join lateral regime._extent(i.symbol, t.timeframe) e
        cross join lateral (
            select
                r.thresholds,
                c.rule_set || '/' || left(md5(r.thresholds::text), 8) as verdict_version
            from (select regime.rule_thresholds(c.rule_set) as thresholds) r
        ) d
        left join lateral (
            select max(x.through) as through
            from regime.blocks x
            where x.symbol = i.symbol and x.timeframe = t.timeframe and x.version = c.version
                and x.verdict_version = d.verdict_version
        ) b on true
        left join lateral (
            select min(x.ts_from) as ts_from, array_agg(x.pending_id) as ids
            from regime.pending x
            where x.symbol = i.symbol
        ) p on true
        where ($1 is null or i.symbol = any ($1)) and ($2 is null or t.timeframe = $2)
            and e.first_ts is not null
            and (
                p.ids is not null or b.through is null
                or b.through < public.time_bucket(
                    t.timeframe, least(e.last_close, $3)
                )
            )
            and exists (
                select from regime.classifiers k
                where (k.symbol = i.symbol or k.symbol is null) and k.timeframe = t.timeframe
                    and k.is_kept
            )
        order by c.version, 10, i.symbol;
end
$$;
comment on function regime._work(text [], interval, timestamptz) is
'What regime.refresh has to do, by symbol and timeframe: from when to when, by which classifier.';

create or replace procedure regime.refresh(
    symbols text [] default null, timeframe interval default null
)
language plpgsql
as $$
declare
    v_batch record;
    v_symbols text [] := case when symbols is not null then array(
        select market.resolve(u.name) from pg_catalog.unnest(symbols) u (name)
    ) end;
begin
    if timeframe is not null then
        perform regime._width(timeframe);
    end if;
    for v_batch in
        select
            pg_catalog.array_agg(n.symbol order by n.symbol) as symbols, n.timeframe, n.width,
            n.version, n.spec, n.rule_set, n.verdict_version, n.thresholds,
            pg_catalog.min(n.first) as first, pg_catalog.max(n.stop) as stop
        from (
            select
                w.*,
                (pg_catalog.row_number() over (
                    partition by w.timeframe, w.version, w.verdict_version,
                        w.first / (720 * w.width)
                    order by w.symbol
                ) - 1) / 25 as batch
            from regime._work(v_symbols, refresh.timeframe, pg_catalog.clock_timestamp()) w
        ) n
        group by
            n.timeframe, n.width, n.version, n.spec, n.rule_set, n.verdict_version, n.thresholds,
            n.first / (720 * n.width), n.batch
        order by n.version, n.timeframe
    loop
        -- One at a time; who comes second leaves the work to the first.
        exit when not ops._try_lock('regime.refresh');
        perform regime._refresh_batch(
            v_batch.symbols, v_batch.timeframe, v_batch.width, v_batch.version, v_batch.spec,
            v_batch.verdict_version, v_batch.thresholds, v_batch.first, v_batch.stop
        );
        commit;
    end loop;
end
$$;
comment on procedure regime.refresh(text [], interval) is
'Stores the regimes of new bars, and computes again what rows that arrived late can have changed, for
symbols (null: all instruments) and a timeframe (null: all of regime.classifiers that are kept). After
a change of thresholds or a promotion all of history is computed under the new version, which replaces
the old one. Commits as it goes; meant for the clock. A second call while one runs returns at once.
Errors: AP101, AP102 symbol, AP600 timeframe.';

create or replace function regime._refresh_batch(
    symbols text [], timeframe interval, width bigint, version text, spec jsonb,
    verdict_version text, thresholds jsonb, first bigint, stop bigint
)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
    v_marks bigint [];
begin
    -- From now on rows that arrive for this time leave a mark; those here are seen below.
    insert into regime.watermarks as m (symbol, through)
    select u.symbol, regime._at(stop) from unnest(symbols) u (symbol)
    on conflict on constraint watermarks_pkey do update
    set through = greatest(m.through, excluded.through);
    select array_agg(p.pending_id) into v_marks
    from regime.pending p where p.symbol = any (symbols);
    v_count := regime._store(
        symbols, width, array[version, verdict_version], spec, thresholds, first, stop
    );
    delete from regime.blocks b
    where b.symbol = any (symbols) and b.timeframe = _refresh_batch.timeframe
        and (
            b.version <> _refresh_batch.version
            or b.verdict_version <> _refresh_batch.verdict_version
        );
    -- A mark goes when all timeframes have been computed again.
    delete from regime.pending p
    where p.pending_id = any (v_marks) and not exists (
        select from regime.blocks b
        where b.symbol = p.symbol and b.timeframe <> _refresh_batch.timeframe
            and b.computed_at < p.created_at
            and b.block_start + 1440 * b.timeframe > p.ts_from
    );
    return v_count;
end
$$;
comment on function regime._refresh_batch(
    text [], interval, bigint, text, jsonb, text, jsonb, bigint, bigint
) is
'Computes and stores one batch of regime.refresh, in the caller''s transaction.';
