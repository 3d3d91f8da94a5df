-- Holes in live records: which bars, features and predictions they touch.

create or replace function market.gaps_over(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz default null
)
returns table (
    channel text, how text, from_ts timestamptz, to_ts timestamptz, found_at timestamptz,
    gap_id bigint
)
language sql stable parallel safe rows 1
set search_path = pg_catalog, pg_temp
as $$
    select g.channel, g.how, g.from_ts, g.to_ts, g.found_at, g.gap_id
    from market.gaps g
    where g.symbol = $1 and g.from_ts < $3 and coalesce(g.to_ts, 'infinity') > $2
        and g.found_at <= coalesce($4, now())
        and coalesce(g.repaired_at, 'infinity') > coalesce($4, now())
    order by g.from_ts, g.gap_id
$$;
comment on function market.gaps_over(text, timestamptz, timestamptz, timestamptz) is
'Holes of a symbol''s live record that touch [from, to) and were known and not yet filled as of as_of
(default: now): what of the stretch is incomplete. symbol: the canonical one.';

create or replace view market.incomplete_bars as
select
    c.symbol,
    c.timeframe,
    c.ts,
    g.channel,
    g.how,
    g.gap_id,
    g.found_at
from market.gaps as g
inner join market.candles as c
    on g.symbol = c.symbol
    and c.ts < coalesce(g.to_ts, 'infinity')
    and c.ts > g.from_ts - interval '32 days'
    and c.ts + c.timeframe > g.from_ts
where g.repaired_at is null and g.channel in ('trades', 'candles');
comment on view market.incomplete_bars is
'Stored bars over a hole of the live record that is not filled: a row per bar and hole.';
comment on column market.incomplete_bars.symbol is 'The symbol.';
comment on column market.incomplete_bars.timeframe is 'Length of the bar.';
comment on column market.incomplete_bars.ts is 'Opening time of the bar.';
comment on column market.incomplete_bars.channel is 'What is missing.';
comment on column market.incomplete_bars.how is 'How the hole was found, as in market.gaps.';
comment on column market.incomplete_bars.gap_id is 'The hole in market.gaps.';
comment on column market.incomplete_bars.found_at is 'When it was found.';

create or replace view market.stream_health as
select
    s.stream,
    case
        when s.status = 'stopped' then 'stopped'
        when s.heartbeat_at < now() - interval '1 minute' or s.status = 'failed' then 'red'
        when s.status = 'reconnecting' or abs(extract(epoch from s.clock_offset)) > 2
            or s.evicted > 0 then 'yellow'
        else 'green'
    end as status,
    case
        when s.status = 'stopped' then 'stopped by its user'
        when s.heartbeat_at < now() - interval '1 minute'
            then format('its process was last heard of at %s', s.heartbeat_at)
        when abs(extract(epoch from s.clock_offset)) > 2
            then format('the clocks are apart: received %s after the event', s.clock_offset)
        when s.evicted > 0 then format('%s messages thrown out of a full spool', s.evicted)
        else coalesce(s.error, s.status)
    end as detail,
    s.messages,
    s.rows_stored,
    s.reconnects,
    s.last_received_at,
    s.clock_offset,
    s.spool_bytes,
    (
        select count(*) from market.gaps as g
        where g.stream = s.stream and g.repaired_at is null
    ) as open_gaps,
    s.latency_ms
from market.streams as s;
comment on view market.stream_health is 'How each live stream is, in a row.';
comment on column market.stream_health.stream is 'The stream.';
comment on column market.stream_health.status is 'green, yellow, red, or stopped.';
comment on column market.stream_health.detail is 'Why.';
comment on column market.stream_health.messages is 'Messages since its process started.';
comment on column market.stream_health.rows_stored is 'New rows since its process started.';
comment on column market.stream_health.reconnects is 'Connections after the first one.';
comment on column market.stream_health.last_received_at is 'When its newest stored message came in.';
comment on column market.stream_health.clock_offset is 'Receive time less exchange time, the median of recent messages.';
comment on column market.stream_health.spool_bytes is 'Bytes waiting on disk.';
comment on column market.stream_health.open_gaps is 'Holes that are not filled.';
comment on column market.stream_health.latency_ms is 'Receipt to commit of the last batch: first, median, last message.';

create or replace procedure market.refresh_trade_quantiles(
    as_of timestamptz default null, quantile double precision default 0.999
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_at timestamptz := ops._moment(as_of);
begin
    if quantile is null or not (quantile > 0 and quantile < 1) or not isfinite(v_at) then
        raise exception 'quantile is %, it must be between 0 and 1', coalesce(quantile::text, 'null')
        using errcode = 'AP931', hint = 'call market.refresh_trade_quantiles(quantile => 0.999)';
    end if;
    insert into market.trade_size_quantiles (symbol, computed_at, quantile, trade_count, size)
    select t.symbol, v_at, $2, count(*), percentile_cont($2) within group (order by t.size)
    from market.trades t
    where t.ts > v_at - interval '1 day' and t.ts < v_at and t.known_at <= v_at
    group by t.symbol
    having count(*) >= 1000
    on conflict do nothing;
    delete from market.trade_size_quantiles q where q.computed_at < v_at - interval '90 days';
end
$$;
comment on procedure market.refresh_trade_quantiles(timestamptz, double precision) is
'For the clock: the quantile of each symbol''s own trade sizes over the day before as_of (default: now),
where there are at least 1,000 trades. Errors: AP931 no such quantile.';
