-- What pictures are drawn of: candles with their regime, books, importance, folds, reliability out of
-- fold, the steps of equity; and the times one may look back to.
create or replace function analytics.moment(as_of text) returns timestamptz
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if as_of is null or btrim(lower(as_of)) in ('', 'now') then
        return null;
    end if;
    return analytics._asked(as_of::timestamptz);
exception when data_exception then
    raise exception 'as_of is %, which is no time', quote_literal(as_of)
    using errcode = 'AP990', hint = 'Write it as 2026-03-02 12:00+00, or now.';
end
$$;
comment on function analytics.moment(text) is
'A time as somebody writes it into a filter; null for now and for nothing. Errors: AP960 it is not finite, AP990 it is no time.';

create or replace function analytics._pictured(symbol text, as_of timestamptz) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if nullif($1, '') is not null then
        return market.resolve($1);
    end if;
    return (
        select i.symbol
        from market.instruments i
        cross join lateral analytics._last_bar(i.symbol, $2) b
        where b.ts is not null
        order by b.ts desc, i.priority, i.symbol
        limit 1
    );
end
$$;
comment on function analytics._pictured(text, timestamptz) is
'The instrument asked for; where none is named the one whose bars go furthest, by name where several do; null where there are no bars. Errors: AP101, AP102 symbol.';

create or replace function analytics._candles(
    asked_symbol text, asked_from timestamptz, asked_to timestamptz, asked_timeframe interval,
    asked_as_of timestamptz
)
returns table (
    symbol text, timeframe interval, ts timestamptz, open double precision, high double precision,
    low double precision, close double precision, volume double precision,
    buy_share double precision, regime text, regime_confidence double precision
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 200
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($5);
    v_symbol constant text := analytics._pictured($1, v_as_of);
    v_to timestamptz := least($3, v_as_of);
    v_from timestamptz := $2;
    v_last record;
    v_width interval := $4;
    v_version text;
begin
    if v_width not in (
        interval '1 minute', interval '5 minutes', interval '15 minutes', interval '1 hour',
        interval '4 hours', interval '24 hours'
    ) then
        raise exception 'no candles of %', v_width
        using errcode = 'AP991', hint = 'Take 1, 5 or 15 minutes, 1 or 4 hours, 1 day, or leave it out.';
    end if;
    if not (isfinite(v_from) and isfinite($3)) then
        raise exception 'the range % to % has no end', v_from, $3
        using errcode = 'AP992', hint = 'Leave an end out for all that is near, or give a time with its zone.';
    end if;
    if v_symbol is null then
        return;
    end if;
    select b.ts, b.timeframe into v_last from analytics._last_bar(v_symbol, v_as_of) b;
    if v_last.ts is null then
        return;
    end if;
    v_to := coalesce(least(v_to, v_last.ts + v_last.timeframe), v_last.ts + v_last.timeframe);
    v_from := coalesce(
        v_from,
        v_to - 144 * coalesce(v_width, greatest(interval '1 hour', v_last.timeframe))
    );
    -- The finest that shows no more than 300 of them, and is not finer than what there is.
    v_width := coalesce(v_width, (
        select w.width
        from unnest(array[
            interval '1 minute', interval '5 minutes', interval '15 minutes', interval '1 hour',
            interval '4 hours', interval '24 hours'
        ]) w (width)
        where w.width >= v_last.timeframe
        order by v_to - v_from > 300 * w.width, case when v_to - v_from > 300 * w.width then -1 else 1 end
            * extract(epoch from w.width)
        limit 1
    ));
    v_version := (regime._classifier(v_symbol, v_width)).version;
    return query
        select
            v_symbol, v_width, b.ts, b.open, b.high, b.low, b.close, b.volume,
            b.buy_volume / nullif(b.volume, 0), r.regime, r.confidence
        from analytics._bars(v_symbol, v_width, v_from, v_as_of) b
        left join regime.history r
            on r.symbol = v_symbol and r.timeframe = v_width and r.version = v_version
            and r.ts = b.ts + v_width and r.known_at <= v_as_of
            and r.ts > v_from and r.ts <= v_to + v_width
        where b.ts < v_to
        order by b.ts;
end
$$;
comment on function analytics._candles(text, timestamptz, timestamptz, interval, timestamptz) is
'See analytics.candles, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.candles(
    symbol text default null, "from" timestamptz default null, "to" timestamptz default null,
    timeframe interval default null, as_of timestamptz default null
)
returns table (
    symbol text, timeframe interval, ts timestamptz, open double precision, high double precision,
    low double precision, close double precision, volume double precision,
    buy_share double precision, regime text, regime_confidence double precision
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 200
as $$
    select x.* from analytics._candles($1, $2, $3, $4, $5) x
$$;
comment on function analytics.candles(text, timestamptz, timestamptz, interval, timestamptz) is
'Closed bars in [from, to) as known at as_of (default: now), each with the market regime that was stored for its close by then (null: none was). Times left out: the last 144 bars there are. timeframe left out: the finest of 1, 5, 15 minutes, 1, 4 hours, 1 day that gives at most 300 bars. symbol left out: the one whose bars go furthest. volume in base units, buy_share of the aggressors. Errors: AP101, AP102 symbol, AP960 as_of, AP991 timeframe, AP992 an end of the range.';

create or replace function analytics._book(
    asked_symbol text, asked_as_of timestamptz
)
returns table (
    symbol text, ts timestamptz, side text, level integer, price double precision,
    size double precision, cumulative double precision, distance_bps double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 40
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := analytics._pictured($1, v_as_of);
    v_book record;
begin
    if v_symbol is null then
        return;
    end if;
    select s.ts, s.bid_prices, s.bid_sizes, s.ask_prices, s.ask_sizes into v_book
    from market.order_book_snapshots s
    where s.symbol = v_symbol and s.ts <= v_as_of and s.known_at <= v_as_of
    order by s.ts desc, s.sequence desc
    limit 1;
    if not found then
        return;
    end if;
    return query
        select
            v_symbol, v_book.ts, l.side, l.level::integer, l.price, l.size,
            sum(l.size) over (partition by l.side order by l.level),
            1e4 * (l.price / m.mid - 1)
        from (
            select 'bid' as side, u.level, u.price, u.size
            from unnest(v_book.bid_prices, v_book.bid_sizes) with ordinality u (price, size, level)
            union all
            select 'ask', u.level, u.price, u.size
            from unnest(v_book.ask_prices, v_book.ask_sizes) with ordinality u (price, size, level)
        ) l
        cross join (
            select coalesce(
                (v_book.bid_prices[1] + v_book.ask_prices[1]) / 2, v_book.bid_prices[1], v_book.ask_prices[1]
            ) as mid
        ) m
        where l.price is not null
        order by l.price;
end
$$;
comment on function analytics._book(text, timestamptz) is
'See analytics.book, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.book(symbol text default null, as_of timestamptz default null)
returns table (
    symbol text, ts timestamptz, side text, level integer, price double precision,
    size double precision, cumulative double precision, distance_bps double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 40
as $$
    select x.* from analytics._book($1, $2) x
$$;
comment on function analytics.book(text, timestamptz) is
'The last order book known at as_of (default: now), by price: size of each level in base units, summed from the best price outwards (cumulative), and its distance from the mid in basis points. symbol left out: the one whose bars go furthest. Errors: AP101, AP102 symbol, AP960 as_of.';

create or replace function analytics._books(
    asked_symbol text, asked_from timestamptz, asked_to timestamptz, asked_as_of timestamptz
)
returns table (
    symbol text, ts timestamptz, snapshots bigint, spread_bps double precision,
    imbalance double precision, mid double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 200
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($4);
    v_symbol constant text := analytics._pictured($1, v_as_of);
    v_to timestamptz := coalesce(least($3, v_as_of), v_as_of);
    v_from timestamptz := $2;
    v_width interval;
begin
    if not (isfinite(v_from) and isfinite($3)) then
        raise exception 'the range % to % has no end', v_from, $3
        using errcode = 'AP992', hint = 'Leave an end out for all that is near, or give a time with its zone.';
    end if;
    select least(v_to, max(s.ts) + interval '1 microsecond') into v_to
    from (
        select b.ts
        from market.order_book_snapshots b
        where b.symbol = v_symbol and b.ts < v_to and b.known_at <= v_as_of
        order by b.ts desc
        limit 1
    ) s
    having max(s.ts) is not null;
    if not found then
        return;
    end if;
    v_from := coalesce(v_from, v_to - interval '24 hours');
    v_width := case
        when v_to - v_from <= interval '5 hours' then interval '1 minute'
        when v_to - v_from <= interval '3 days' then interval '15 minutes'
        else interval '1 hour'
    end;
    return query
        select
            v_symbol, public.time_bucket(v_width, b.bucket), sum(b.snapshot_count)::bigint,
            1e4 * sum(b.relative_spread_sum) / nullif(sum(b.two_sided_count), 0),
            sum(b.imbalance_sum) / nullif(sum(b.two_sided_count), 0),
            sum(b.mid_sum) / nullif(sum(b.two_sided_count), 0)
        from market.book_1m_versions(v_symbol, v_from, v_to) b
        where b.usable_at <= v_as_of and b.expires_at > v_as_of
        group by 2
        order by 2;
end
$$;
comment on function analytics._books(text, timestamptz, timestamptz, timestamptz) is
'See analytics.books, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.books(
    symbol text default null, "from" timestamptz default null, "to" timestamptz default null,
    as_of timestamptz default null
)
returns table (
    symbol text, ts timestamptz, snapshots bigint, spread_bps double precision,
    imbalance double precision, mid double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 200
as $$
    select x.* from analytics._books($1, $2, $3, $4) x
$$;
comment on function analytics.books(text, timestamptz, timestamptz, timestamptz) is
'Order books in [from, to) as known at as_of (default: now), by minute, quarter of an hour or hour according to the length of the range: mean spread in basis points, imbalance = (bid - ask) / (bid + ask) size at the top, mid price. Times left out: the last day there is. Errors: AP101, AP102 symbol, AP960 as_of, AP992 an end of the range.';

create or replace function analytics._shown_versions(
    asked_model text, asked_symbol text, asked_as_of timestamptz
)
returns table (
    version_id bigint, model text, symbol text, regime text, version integer, is_champion boolean
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 20
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($3);
    v_model constant text := analytics._model(nullif($1, ''));
    v_symbol constant text := case when nullif($2, '') is not null then market.resolve($2) end;
begin
    return query
        select distinct on (v.model, v.symbol, v.regime)
            v.version_id, v.model, v.symbol, v.regime, v.version, l.version_id is not null
        from ml.model_versions v
        left join analytics._lines(v_as_of) l on l.version_id = v.version_id
        where v.created_at <= v_as_of and (v.archived_at is null or v.archived_at > v_as_of)
            and (v_model is null or v.model = v_model)
            and (v_symbol is null or v.symbol is null or v.symbol = v_symbol)
        order by v.model, v.symbol, v.regime, l.version_id is not null desc, v.version_id desc;
end
$$;
comment on function analytics._shown_versions(text, text, timestamptz) is
'The version of each line that stands for it at a time: its champion then, else the newest. Errors: AP101, AP102 symbol, AP960 as_of, AP961 unknown model.';

create or replace function analytics.importance(
    model text default null, symbol text default null, as_of timestamptz default null
)
returns table (
    model text, symbol text, regime text, version_id bigint, version integer, is_champion boolean,
    feature text, importance double precision, kind text, share double precision, rank bigint,
    shap_share double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 100
as $$
    select
        s.model, s.symbol, s.regime, s.version_id, s.version, s.is_champion, f.key,
        f.value::double precision, k.kind,
        f.value::double precision / nullif(sum(f.value::double precision) over (partition by s.version_id), 0),
        row_number() over (partition by s.version_id order by f.value::double precision desc, f.key),
        h.shap_share
    from analytics._shown_versions($1, $2, $3) s
    join ml.model_versions v on v.version_id = s.version_id
    -- Gain where there is one: splits count a feature often that says little.
    cross join lateral (
        select e.key as kind, e.value
        from jsonb_each(case when jsonb_typeof(v.importance) = 'object' then v.importance else '{}' end) e
        where jsonb_typeof(e.value) = 'object'
        order by e.key <> 'gain', e.key
        limit 1
    ) k
    cross join lateral jsonb_each_text(k.value) f
    left join lateral (
        select avg(r.shap_share) as shap_share
        from drift.reference_features r
        where r.version_id = s.version_id and r.feature = f.key and r.kind = 'feature'
    ) h on true
    order by s.model, s.symbol, s.regime, 11
$$;
comment on function analytics.importance(text, text, timestamptz) is
'What each line''s champion at as_of (default: now), else its newest version, says of its features: importance in the unit of its kind (gain: summed reduction of the loss by splits on it), its share of all, its rank, and its share of the mean absolute SHAP values of the training rows where a drift reference was taken. Errors: AP101, AP102 symbol, AP960 as_of, AP961 unknown model.';

create or replace function analytics.folds(
    model text default null, symbol text default null, as_of timestamptz default null
)
returns table (
    model text, symbol text, regime text, version_id bigint, version integer, is_champion boolean,
    fold integer, test_from timestamptz, test_to timestamptz, row_count bigint,
    auc double precision, log_loss double precision, base_rate_log_loss double precision,
    rmse double precision, baseline_rmse double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 50
as $$
    select
        s.model, s.symbol, s.regime, s.version_id, s.version, s.is_champion,
        (f.value ->> 'fold')::integer, ops._at((f.value ->> 'test_from')::bigint),
        ops._at((f.value ->> 'test_to')::bigint), (f.value ->> 'rows')::bigint,
        (f.value ->> 'auc')::double precision, (f.value ->> 'log_loss')::double precision,
        (f.value #>> '{baseline,log_loss}')::double precision,
        (f.value ->> 'rmse')::double precision, (f.value #>> '{baseline,rmse}')::double precision
    from analytics._shown_versions($1, $2, $3) s
    join ml.model_versions v on v.version_id = s.version_id
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof(v.fold_metrics) = 'array' then v.fold_metrics else '[]' end
    ) f
    order by s.model, s.symbol, s.regime, 7
$$;
comment on function analytics.folds(text, text, timestamptz) is
'The walk-forward folds by which each line''s champion at as_of (default: now), else its newest version, was judged: when its held-out rows were, how many, and the measures beside those of the base rate (classes) or the mean (values). Errors: AP101, AP102 symbol, AP960 as_of, AP961 unknown model.';

create or replace function analytics.reliability(
    model text default null, symbol text default null, as_of timestamptz default null,
    bins integer default 10
)
returns table (
    model text, symbol text, regime text, version_id bigint, version integer, is_champion boolean,
    bin integer, predictions bigint, mean_probability double precision, observed double precision,
    observed_low double precision, observed_high double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 50
as $$
    with shown as materialized (
        select
            s.model, s.symbol, s.regime, s.version_id, s.version, s.is_champion, p.prediction,
            p.target, greatest(1, cardinality(p.prediction) / 4000) as every
        from analytics._shown_versions($1, $2, $3) s
        join ml.model_versions v on v.version_id = s.version_id and v.task = 'classification'
        join ml.version_predictions p on p.version_id = s.version_id
    ),
    -- Edges by some 4,000 of a version's rows: sorting all of them took most of the time.
    edges as materialized (
        select
            s.version_id, percentile_disc((
                select array_agg(g.i::double precision / b.bins order by g.i)
                from (select least(greatest(coalesce($4, 10), 2), 100) as bins) b
                cross join lateral generate_series(1, b.bins - 1) g (i)
            )) within group (order by i.prediction) as edges
        from shown s
        cross join lateral unnest(s.prediction) with ordinality i (prediction, place)
        where i.place % s.every = 0
        group by s.version_id
    ),
    counted as materialized (
        select
            s.version_id, width_bucket(u.prediction, e.edges) as cell, count(*) as n,
            avg(u.prediction) as said, avg(u.target) as rate
        from shown s
        join edges e on e.version_id = s.version_id
        cross join lateral unnest(s.prediction, s.target) as u (prediction, target)
        group by 1, 2
    )
    select
        s.model, s.symbol, s.regime, s.version_id, s.version, s.is_champion,
        row_number() over (partition by s.version_id order by c.cell)::integer, c.n, c.said, c.rate,
        -- Wilson (1927), 95 %.
        greatest(0, least(c.rate, (c.rate + 1.920729410347062 / c.n - w.half) / (1 + 3.841458820694124 / c.n))),
        least(1, greatest(c.rate, (c.rate + 1.920729410347062 / c.n + w.half) / (1 + 3.841458820694124 / c.n)))
    from shown s
    join counted c on c.version_id = s.version_id
    cross join lateral (
        select 1.959963984540054 * sqrt(c.rate * (1 - c.rate) / c.n + 0.960364705173531 / c.n ^ 2) as half
    ) w
    order by s.model, s.symbol, s.regime, c.cell
$$;
comment on function analytics.reliability(text, text, timestamptz, integer) is
'Reliability out of fold of each line''s champion at as_of (default: now), else its newest version: bins of as many predictions each, mean probability beside the observed share with its 95 % interval (Wilson 1927, JASA 22; too narrow where labels overlap). Of classes only. bins: 2 to 100. Errors: AP101, AP102 symbol, AP960 as_of, AP961 unknown model.';

create or replace function analytics.equity(
    strategy text default null, model text default null, as_of timestamptz default null,
    trials integer default 8
)
returns table (
    trial_id bigint, strategy text, family text, trial text, ts timestamptz,
    equity double precision, net_return double precision, drawdown double precision,
    "position" double precision, turnover double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 1000
as $$
    with newest as (
        select t.trial_id, t.strategy, t.family, (t.settings ->> 'capital')::double precision as capital
        from backtest.trials t
        where t.ran_at <= analytics._asked($3)
            and (nullif($1, '') is null or t.strategy = $1)
            and (nullif($2, '') is null or t.family = $2 or t.settings ->> 'model' = $2)
        order by t.trial_id desc
        limit least(greatest(coalesce($4, 8), 1), 100)
    )
    select
        n.trial_id, n.strategy, n.family, format('%s, trial %s', n.strategy, n.trial_id), e.ts,
        e.equity, e.equity / nullif(n.capital, 0) - 1, e.drawdown, e.position, e.turnover
    from newest n
    join backtest.equity e on e.trial_id = n.trial_id
    order by n.trial_id, e.ts
$$;
comment on function analytics.equity(text, text, timestamptz, integer) is
'Equity by bar of the newest trials of back-tests (default: eight) that had run at as_of (default: now), of one strategy or of one model: equity in quote currency, net_return = equity over the capital less one, drawdown as a share of the highest equity, position and turnover over the capital. Errors: AP960 as_of.';

create or replace function analytics.moments(as_of timestamptz default null)
returns table (as_of text, at timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 15
as $$
    select 'now', null::timestamptz
    union all
    (
        select to_char(d.at at time zone 'UTC', 'YYYY-MM-DD HH24:MI+00'), d.at
        from (select analytics._pictured(null, analytics._asked($1)) as symbol) s
        cross join lateral analytics._last_bar(s.symbol, analytics._asked($1)) b
        cross join lateral (
            select public.time_bucket(interval '1 day', b.ts) - g.day * interval '24 hours' as at
            from generate_series(0, 13) g (day)
        ) d
        where b.ts is not null
        order by d.at desc
    )
$$;
comment on function analytics.moments(timestamptz) is
'Times that a filter offers to look back to, as text and as time: now (null), and the midnights (UTC) before the newest bar. Errors: AP960.';

create or replace function analytics.pictured(symbol text default null, as_of timestamptz default null)
returns table (symbol text, until timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 1
as $$
    select s.symbol, b.ts + b.timeframe
    from (select analytics._pictured($1, analytics._asked($2)) as symbol) s
    cross join lateral analytics._last_bar(s.symbol, analytics._asked($2)) b
    where b.ts is not null
$$;
comment on function analytics.pictured(text, timestamptz) is
'The instrument that a picture shows, and the end of its newest bar known at as_of (default: now): the one named, else the one whose bars go furthest. No row without bars. Errors: AP101, AP102 symbol, AP960 as_of.';

create or replace function analytics.liquidation_risks(
    symbol text default null, as_of timestamptz default null
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision,
    version_id bigint, is_fallback boolean, reason text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 4
as $$
    select
        s.symbol, s.until, (r.value ->> 'seconds')::double precision * interval '1 second',
        (r.value ->> 'probability')::double precision, (r.value ->> 'confidence')::double precision,
        r.value ->> 'risk_level', (r.value ->> 'expected_volume')::double precision,
        (r.value ->> 'version_id')::bigint, (r.value ->> 'is_fallback')::boolean, r.value ->> 'reason'
    from analytics.pictured($1, $2) s
    cross join lateral jsonb_array_elements(analytics._risks(s.symbol, s.until)) r
    order by 3
$$;
comment on function analytics.liquidation_risks(text, timestamptz) is
'The risk of a forced liquidation at every horizon that has a model, at the end of the newest bar known at as_of (default: now), of the instrument named, else of the one whose bars go furthest: the columns are those of ml.predict_liquidation; probability is null, with the reason, where there is no answer. Errors: AP101, AP102 symbol, AP960 as_of.';

create or replace function analytics._recent_predictions(
    asked_model text, asked_as_of timestamptz
) returns timestamptz
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_model constant text := analytics._model(nullif($1, ''));
begin
    return (
        select public.time_bucket(interval '1 hour', p.as_of - interval '7 days')
        from ml.predictions p
        where p.as_of <= v_as_of and p.created_at <= v_as_of and (v_model is null or p.model = v_model)
        order by p.as_of desc
        limit 1
    );
end
$$;
comment on function analytics._recent_predictions(text, timestamptz) is
'See analytics.recent_predictions, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.recent_predictions(
    model text default null, as_of timestamptz default null
) returns timestamptz
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select analytics._recent_predictions($1, $2)
$$;
comment on function analytics.recent_predictions(text, timestamptz) is
'The hour seven days before the newest prediction of a model (null: of any) that was recorded by as_of (default: now); null where none was. Errors: AP960 as_of, AP961 unknown model.';
