-- Filters for training rows. Features and predictions see every bar; a model whose training set is
-- to be filtered says so in ml.models.training: {"noise": {}} or with parameters.
create or replace function feature._noise_rows(
    symbol text, start bigint, stop bigint, step bigint, params jsonb
)
returns table (
    at bigint, reasons text [], sigmas double precision, wick double precision,
    volume_ratio double precision, spread double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 100
as $python$
    from alphaplus.server.training import row_filters
    return list(row_filters.rows(plpy, GD, symbol, start, stop, step, params))
$python$;

create or replace function feature.noise_mask(
    symbol text, "from" timestamptz, "to" timestamptz, params jsonb default '{}',
    timeframe interval default '1 minute'
)
returns table (
    symbol text, ts timestamptz, reasons text [], sigmas double precision, wick double precision,
    volume_ratio double precision, spread double precision
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        s.name, ops._at(r.at), r.reasons, r.sigmas, r.wick, r.volume_ratio,
        r.spread
    from (select market.resolve($1) as name, feature._timeframe($5) as width) s
    cross join lateral feature._noise_rows(
        s.name,
        ops._micros($2), ops._micros($3), ops._micros(s.width), $4
    ) r
$$;
comment on function feature.noise_mask(text, timestamptz, timestamptz, jsonb, interval) is
'The grid times in [from, to) that noise filtering drops from a training set, and why; each judged by the last bar before ts and by those before that, as known at ts, so that nothing of the future decides. reasons: hampel (|return - median| above hampel_sigmas, 8, x 1.4826 MAD of the window, 60 bars, and above hampel_min, 0.001; Hampel 1974), bad_tick (a wick above wick_ratio, 10, x the median range, and above wick_min, 0.003 of close), volume (0 where zero_volume is true, or above volume_ratio, 100, x the median where that is not 0), spread (mean relative spread of the bar above spread_max, 0.005, or spread_ratio, 10, x the median; 1-minute bars with a book only), gap (no bar known just before ts). params: a JSON object with any of the names above and gap (boolean); null switches a ratio''s filter off. sigmas, wick, volume_ratio, spread: what was measured. A model''s training set is filtered when ml.models.training has a key noise with such an object. Errors: AP101, AP102, AP210 unknown timeframe, AP211 a time that is null or infinite, AP220 bad parameter.';

create or replace function feature.noise_counts(
    symbol text, "from" timestamptz, "to" timestamptz, params jsonb default '{}',
    timeframe interval default '1 minute'
)
returns table (reason text, dropped bigint, share double precision)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    with dropped as (
        select m.reasons from feature.noise_mask($1, $2, $3, $4, $5) m
    ),
    counted as (
        select
            r.reason, r.place,
            count(d.reasons) filter (where r.reason = any (d.reasons) or r.reason = 'any') as n
        from unnest(array['hampel', 'bad_tick', 'volume', 'spread', 'gap', 'any'])
            with ordinality as r (reason, place)
        left join dropped d on true
        group by r.reason, r.place
    ),
    grid as (
        select ops._micros($5)::double precision as step
    )
    select
        c.reason, c.n,
        c.n / nullif(
            ceil(ops._micros($3) / g.step) - ceil(ops._micros($2) / g.step), 0
        )
    from counted c
    cross join grid g
    order by c.place
$$;
comment on function feature.noise_counts(text, timestamptz, timestamptz, jsonb, interval) is
'How many grid times in [from, to) feature.noise_mask drops, by reason (a row for each of the five; a time may have several) and in all (any), and their share of the grid times in [from, to), null where there are none. Errors: those of feature.noise_mask.';
