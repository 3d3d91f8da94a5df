-- The rules as delivered; one that the operator changed stays as it is.
insert into ops.alert_rules as r (
    rule, view_name, key_columns, column_name, operator, threshold, kind, severity,
    severity_column, message, cooldown, resolves, enabled, shipped, created_by
)
values
(
    'liquidation risk', 'analytics.live_liquidation_risk', '{model,symbol}', 'risk_rank', '>=', '3',
    'liquidation_risk', null, 'severity',
    '{symbol}: {risk_level} liquidation risk, probability {probability} ({model})',
    '15 minutes', true, true, true, 'AlphaPlus'
),
(
    'whale trade', 'analytics.live_whale_trades', '{symbol,trade_id}', 'times_usual', '>', '1', 'whale',
    'medium', null, '{symbol}: {side} of {size} ({times_usual} times the {quantile} quantile)',
    '1 day', false, true, true, 'AlphaPlus'
),
(
    'liquidation cascade', 'analytics.live_liquidation_cascades', '{symbol}', 'times_usual', '>', '1',
    'cascade', 'high', null,
    '{symbol}: {orders} forced orders of {notional} in five minutes, {times_usual} times the usual',
    '15 minutes', true, true, true, 'AlphaPlus'
),
(
    'funding extreme', 'analytics.live_funding_extremes', '{symbol}', 'deviations', '>', '3', 'funding',
    'medium', null, '{symbol}: funding of {rate} is {deviations} standard deviations away',
    '8 hours', true, true, true, 'AlphaPlus'
),
(
    'feed gap', 'analytics.live_feed_gaps', '{gap_id}', 'age_s', '>', '60', 'gap', 'medium', null,
    '{symbol}: {channel} are missing from {from_ts} to {to_ts} ({how})', '1 hour', true, true,
    true, 'AlphaPlus'
),
(
    'stream', 'analytics.live_stream_trouble', '{stream}', 'status', '=', 'red', 'stream', 'high', null,
    'stream {stream}: {detail}', '15 minutes', true, true, true, 'AlphaPlus'
),
(
    'health', 'analytics.live_health', '{check_name,subject}', 'status', '=', 'red', 'health', 'high',
    null, '{check_name} {subject}: {detail}', '15 minutes', true, true, true, 'AlphaPlus'
)
on conflict (rule) do update
set view_name = excluded.view_name, key_columns = excluded.key_columns,
    column_name = excluded.column_name, operator = excluded.operator,
    threshold = excluded.threshold, kind = excluded.kind, message = excluded.message
where r.shipped;
