-- What the shipped rules look at: each a view of now.

create or replace view analytics.live_liquidation_risk as
select distinct on (p.model, p.symbol)
    p.model,
    p.symbol,
    p.as_of,
    p.probability,
    p.risk_level,
    array_position(array['low', 'medium', 'high', 'critical'], p.risk_level) as risk_rank,
    case p.risk_level when 'critical' then 'critical' else 'high' end as severity
from ml.predictions as p
where p.as_of > now() - interval '15 minutes' and p.risk_level is not null
order by p.model asc, p.symbol asc, p.as_of desc, p.prediction_id desc;
comment on view analytics.live_liquidation_risk is 'The newest recorded liquidation prediction of the last 15 minutes, by model and symbol.';
comment on column analytics.live_liquidation_risk.model is 'The model.';
comment on column analytics.live_liquidation_risk.symbol is 'The symbol.';
comment on column analytics.live_liquidation_risk.as_of is 'When it was asked.';
comment on column analytics.live_liquidation_risk.probability is 'Its probability.';
comment on column analytics.live_liquidation_risk.risk_level is 'low, medium, high or critical.';
comment on column analytics.live_liquidation_risk.risk_rank is '1 for low to 4 for critical.';
comment on column analytics.live_liquidation_risk.severity is 'The alert''s severity.';

create or replace view analytics.live_whale_trades as
select
    t.symbol,
    t.trade_id,
    t.ts,
    t.side,
    t.size,
    t.price,
    t.price * t.size as notional,
    q.size as usual,
    q.quantile,
    t.size / q.size as times_usual
from market.trades as t
cross join lateral (
    select x.size, x.quantile
    from market.trade_size_quantiles as x
    where x.symbol = t.symbol and x.computed_at <= t.ts
    order by x.computed_at desc, x.quantile desc
    limit 1
) as q
where t.ts > now() - interval '5 minutes' and t.size > q.size;
comment on view analytics.live_whale_trades is 'Trades of the last five minutes above the quantile of their symbol''s own sizes that held then.';
comment on column analytics.live_whale_trades.symbol is 'The symbol.';
comment on column analytics.live_whale_trades.trade_id is 'The trade.';
comment on column analytics.live_whale_trades.ts is 'When it happened.';
comment on column analytics.live_whale_trades.side is 'The aggressor''s side.';
comment on column analytics.live_whale_trades.size is 'Size in base units.';
comment on column analytics.live_whale_trades.price is 'Its price.';
comment on column analytics.live_whale_trades.notional is 'Quote currency.';
comment on column analytics.live_whale_trades.usual is 'What it is compared with.';
comment on column analytics.live_whale_trades.quantile is 'Which quantile that is.';
comment on column analytics.live_whale_trades.times_usual is 'How many times that.';

create or replace view analytics.live_liquidation_cascades as
select
    r.symbol,
    r.notional,
    r.orders,
    h.usual,
    h.intervals,
    r.notional / nullif(h.usual, 0) as times_usual
from (
    select e.symbol, sum(e.notional) as notional, count(*) as orders
    from market.liquidation_events as e
    where e.ts > now() - interval '5 minutes'
    group by e.symbol
    having count(*) >= 5
) as r
cross join lateral (
    select
        percentile_cont(0.99) within group (order by b.notional) as usual,
        count(*) as intervals
    from (
        select sum(e.notional) as notional
        from market.liquidation_events as e
        where
            e.symbol = r.symbol and e.ts > now() - interval '7 days'
            and e.ts <= now() - interval '5 minutes'
        group by public.time_bucket(interval '5 minutes', e.ts)
    ) as b
) as h
where h.intervals >= 20;
comment on view analytics.live_liquidation_cascades is 'Liquidations of the last five minutes beside the 99 % quantile of the symbol''s own five minutes with liquidations of the last week, of which there must be 20.';
comment on column analytics.live_liquidation_cascades.symbol is 'The symbol.';
comment on column analytics.live_liquidation_cascades.notional is 'Quote currency.';
comment on column analytics.live_liquidation_cascades.orders is 'Forced orders.';
comment on column analytics.live_liquidation_cascades.usual is 'What it is compared with.';
comment on column analytics.live_liquidation_cascades.intervals is 'Five minutes with liquidations that it is compared with.';
comment on column analytics.live_liquidation_cascades.times_usual is 'How many times that.';

create or replace view analytics.live_funding_extremes as
select
    n.symbol,
    n.ts,
    n.rate,
    h.mean,
    h.deviation,
    abs(n.rate - h.mean) / nullif(h.deviation, 0) as deviations
from (
    select distinct on (f.symbol) f.symbol, f.ts, f.rate
    from market.funding_rates as f
    where f.ts > now() - interval '1 day'
    order by f.symbol asc, f.ts desc
) as n
cross join lateral (
    select avg(f.rate) as mean, stddev_samp(f.rate) as deviation, count(*) as payments
    from market.funding_rates as f
    where f.symbol = n.symbol and f.ts < n.ts and f.ts > n.ts - interval '90 days'
) as h
where h.payments >= 30;
comment on view analytics.live_funding_extremes is 'The newest funding of each symbol in standard deviations of its own last 90 days, of which there must be 30 payments.';
comment on column analytics.live_funding_extremes.symbol is 'The symbol.';
comment on column analytics.live_funding_extremes.ts is 'When it happened.';
comment on column analytics.live_funding_extremes.rate is 'The rate.';
comment on column analytics.live_funding_extremes.mean is 'Mean of its history.';
comment on column analytics.live_funding_extremes.deviation is 'Standard deviation of its history.';
comment on column analytics.live_funding_extremes.deviations is 'Standard deviations away from the mean.';

create or replace view analytics.live_feed_gaps as
select
    g.gap_id,
    g.stream,
    g.symbol,
    g.channel,
    g.how,
    g.from_ts,
    g.to_ts,
    g.found_at,
    extract(epoch from now() - g.found_at) as age_s
from market.gaps as g
where g.repaired_at is null and g.found_at > now() - interval '1 day';
comment on view analytics.live_feed_gaps is 'Holes of live streams found within a day and not filled.';
comment on column analytics.live_feed_gaps.gap_id is 'The hole in market.gaps.';
comment on column analytics.live_feed_gaps.stream is 'The stream.';
comment on column analytics.live_feed_gaps.symbol is 'The symbol.';
comment on column analytics.live_feed_gaps.channel is 'What is missing.';
comment on column analytics.live_feed_gaps.how is 'How it was found.';
comment on column analytics.live_feed_gaps.from_ts is 'Where it begins.';
comment on column analytics.live_feed_gaps.to_ts is 'Where it ends.';
comment on column analytics.live_feed_gaps.found_at is 'When it was found.';
comment on column analytics.live_feed_gaps.age_s is 'Seconds since then.';

create or replace view analytics.live_stream_trouble as
select s.stream, s.status, s.detail
from market.stream_health as s
where s.status in ('yellow', 'red');
comment on view analytics.live_stream_trouble is 'Live streams that are not well.';
comment on column analytics.live_stream_trouble.stream is 'The stream.';
comment on column analytics.live_stream_trouble.status is 'Its colour.';
comment on column analytics.live_stream_trouble.detail is 'Why.';

create or replace view analytics.live_drift as
select
    h.model,
    coalesce(h.symbol, 'all') as symbol,
    h.severity,
    h.known_at,
    h.message
from ops.alerts as h
where h.kind like 'drift%' and h.resolved_at is null;
comment on view analytics.live_drift is 'Open alerts of the drift schema, which raises its own in the same outbox.';
comment on column analytics.live_drift.model is 'The model.';
comment on column analytics.live_drift.symbol is 'The symbol.';
comment on column analytics.live_drift.severity is 'The alert''s severity.';
comment on column analytics.live_drift.known_at is 'When it was raised.';
comment on column analytics.live_drift.message is 'Its message.';

create or replace view analytics.live_health as
select h.check_name, h.subject, h.status, h.detail
from ops.health as h
where h.status = 'red';
comment on view analytics.live_health is 'What is red in ops.health.';
comment on column analytics.live_health.check_name is 'What is checked.';
comment on column analytics.live_health.subject is 'Of what.';
comment on column analytics.live_health.status is 'Its colour.';
comment on column analytics.live_health.detail is 'Why.';
