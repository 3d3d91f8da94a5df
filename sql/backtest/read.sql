-- What a back-test reads: predictions by when they were known, rows that orders fill at, bars, funding.
create or replace function backtest._predictions(
    model text, symbol text, source text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns table (known timestamptz, value double precision)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_first timestamptz := 'infinity';
    v_version bigint;
begin
    if source in ('auto', 'recorded') then
        return query
            select greatest(p.created_at, p.as_of), p.prediction
            from ml.predictions p
            where p.model = $1 and p.symbol = $2 and p.as_of < $5
                and greatest(p.created_at, p.as_of) >= $4 and greatest(p.created_at, p.as_of) < $5
                and p.created_at <= $6 and p.prediction between -1e300 and 1e300
            order by greatest(p.created_at, p.as_of), p.prediction_id;
        select min(greatest(p.created_at, p.as_of)) into v_first
        from ml.predictions p
        where p.model = $1 and p.symbol = $2 and p.created_at <= $6;
        v_first := coalesce(v_first, 'infinity');
    end if;
    if source in ('auto', 'walk-forward') then
        -- Of the champion at as_of: each row predicted by a model that had not seen it.
        select l.version_id into v_version
        from analytics._lines($6) l
        where l.model = $1 and (l.symbol = $2 or l.symbol is null) and l.regime is null
        order by l.symbol nulls last
        limit 1;
        return query
            select o.ts, o.prediction
            from ml.out_of_fold(v_version) o
            where v_version is not null and o.symbol = $2 and o.ts >= $4 and o.ts < least($5, v_first)
                and o.prediction between -1e300 and 1e300
            order by o.ts;
    end if;
    if source = 'shadow' then
        -- What the champion of each moment said, as the clock wrote it down.
        return query
            with reigns as (
                select
                    h.version_id, h.symbol, h.at,
                    coalesce(lead(h.at) over (
                        partition by h.model, h.symbol, h.regime order by h.history_id
                    ), 'infinity') as until
                from ml.alias_history h
                where h.model = $1 and h.alias = 'champion' and h.regime is null
                    and (h.symbol = $2 or h.symbol is null) and h.at <= $6
            )
            select q.known, q.value
            from (
                select distinct on (greatest(s.known_at, s.ts), s.ts)
                    greatest(s.known_at, s.ts) as known, s.prediction as value, s.ts
                from reigns r
                join ml.shadow_predictions s on s.version_id = r.version_id and s.symbol = $2
                    and s.known_at >= r.at and s.known_at < r.until
                where s.known_at <= $6 and greatest(s.known_at, s.ts) >= $4
                    and greatest(s.known_at, s.ts) < $5 and s.prediction between -1e300 and 1e300
                order by greatest(s.known_at, s.ts), s.ts, r.symbol nulls last
            ) q
            order by q.known, q.ts;
    end if;
end
$$;
comment on function backtest._predictions(text, text, text, timestamptz, timestamptz, timestamptz) is
'Predictions that became known in [from, to), as known at as_of, by when they did; walk-forward ones come last where both are read.';

create or replace function backtest._predictions_packed(
    model text, symbol text, source text, "from" bigint, "to" bigint, as_of bigint,
    out known bytea, out value bytea
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        array_send(array_agg(ops._micros(p.known) order by p.known, p.place)),
        array_send(array_agg(p.value order by p.known, p.place))
    from backtest._predictions($1, $2, $3, ops._at($4), ops._at($5), ops._at($6))
        with ordinality as p (known, value, place)
$$;
comment on function backtest._predictions_packed(text, text, text, bigint, bigint, bigint) is
'backtest._predictions for Python: arrays as array_send writes them, times in microseconds since 1970.';

create or replace function backtest._rows(
    symbol text, fill text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns table (ts timestamptz, known timestamptz, buy double precision, sell double precision)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    -- Corrected rows as they first were: that is what an order met.
    case fill
        when 'trade' then
            return query
                select t.ts, t.known_at, t.price, t.price
                from market.trades t
                where t.symbol = $1 and t.ts >= $3 and t.ts <= $4 and t.known_at <= $5
                    and not exists (
                        select from market.trades_history h
                        where h.symbol = t.symbol and h.ts = t.ts and h.trade_id = t.trade_id
                            and h.known_at <= $5
                    )
                union all
                (
                    select distinct on (h.ts, h.trade_id) h.ts, h.known_at, h.price, h.price
                    from market.trades_history h
                    where h.symbol = $1 and h.ts >= $3 and h.ts <= $4 and h.known_at <= $5
                    order by h.ts, h.trade_id, h.known_at
                );
        when 'book' then
            return query
                select b.ts, b.known_at, b.ask_prices[1], b.bid_prices[1]
                from market.order_book_snapshots b
                where b.symbol = $1 and b.ts >= $3 and b.ts <= $4 and b.known_at <= $5
                    and b.ask_prices[1] > 0 and b.bid_prices[1] > 0
                    and not exists (
                        select from market.order_book_snapshots_history h
                        where h.symbol = b.symbol and h.ts = b.ts and h.sequence = b.sequence
                            and h.known_at <= $5
                    )
                union all
                (
                    select distinct on (h.ts, h.sequence)
                        h.ts, h.known_at, h.ask_prices[1], h.bid_prices[1]
                    from market.order_book_snapshots_history h
                    where h.symbol = $1 and h.ts >= $3 and h.ts <= $4 and h.known_at <= $5
                        and h.ask_prices[1] > 0 and h.bid_prices[1] > 0
                    order by h.ts, h.sequence, h.known_at
                );
        else
            return query
                select distinct on (v.bucket) v.bucket, v.usable_at, v.open, v.open
                from analytics._last_bar($1, $5) l
                cross join lateral market.candle_versions($1, l.timeframe, $3, $4) v
                where v.usable_at <= $5 and v.open > 0
                order by v.bucket, v.usable_at, v.priority, v.first_ts;
    end case;
end
$$;
comment on function backtest._rows(text, text, timestamptz, timestamptz, timestamptz) is
'Rows of [from, to] that an order can fill at, known by as_of: trades, order books (best ask and bid) or bars (their open), each as it was first known.';

create or replace function backtest._rows_packed(
    symbol text, fill text, "from" bigint, "to" bigint, as_of bigint,
    out ts bytea, out known bytea, out buy bytea, out sell bytea
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        array_send(array_agg(ops._micros(r.ts))), array_send(array_agg(ops._micros(r.known))),
        array_send(array_agg(r.buy)), array_send(array_agg(r.sell))
    from (
        select * from backtest._rows($1, $2, ops._at($3), ops._at($4), ops._at($5)) x
        order by x.ts, x.known, x.buy, x.sell
    ) r
$$;
comment on function backtest._rows_packed(text, text, bigint, bigint, bigint) is
'backtest._rows for Python, by time.';

create or replace function backtest._bars_packed(
    symbol text, "from" bigint, "to" bigint, as_of bigint,
    out usable bytea, out close bytea, out volume bytea, out width bigint
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        array_send(array_agg(ops._micros(b.usable_at))), array_send(array_agg(b.close)),
        array_send(array_agg(b.volume)), max(b.width)
    from (
        select x.*
        from (
            select distinct on (v.bucket)
                v.bucket, v.usable_at, v.close, coalesce(v.volume, 0) as volume,
                ops._micros(l.timeframe) as width
            from analytics._last_bar($1, ops._at($4)) l
            cross join lateral market.candle_versions(
                $1, l.timeframe, ops._at($2) - interval '2 days', ops._at($3)
            ) v
            where v.usable_at <= ops._at($4) and v.close > 0
            order by v.bucket, v.usable_at, v.priority, v.first_ts
        ) x
        order by x.usable_at, x.bucket
    ) b
$$;
comment on function backtest._bars_packed(text, bigint, bigint, bigint) is
'Bars from two days before a back-test on, each as it was first known, by when it was: what volatility and volume before a decision are taken from. width: microseconds.';

create or replace function backtest._funding_packed(
    symbol text, "from" bigint, "to" bigint, as_of bigint, out ts bytea, out rate bytea
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select array_send(array_agg(ops._micros(f.ts) order by f.ts)), array_send(array_agg(f.rate order by f.ts))
    from (
        select distinct on (x.ts) x.ts, x.rate
        from (
            select r.ts, r.rate, r.known_at
            from market.funding_rates r
            where r.symbol = $1 and r.ts >= ops._at($2) and r.ts <= ops._at($3) and r.known_at <= ops._at($4)
            union all
            select h.ts, h.rate, h.known_at
            from market.funding_rates_history h
            where h.symbol = $1 and h.ts >= ops._at($2) and h.ts <= ops._at($3) and h.known_at <= ops._at($4)
        ) x
        where x.rate between -1 and 1
        order by x.ts, x.known_at desc
    ) f
$$;
comment on function backtest._funding_packed(text, bigint, bigint, bigint) is
'Funding paid by longs at each time, as a fraction of notional, in the newest version known by as_of.';
