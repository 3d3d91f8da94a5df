-- Costs as delivered; an operator's changes stay.
insert into backtest.costs (costs, fee_bps, half_spread_bps, impact, funding, description)
values
('taker', 5, 1, 1, true, 'A taker at a large venue: 5 bp a fill, 1 bp half spread, square-root impact, funding.'),
('maker', -0.5, 0, 1, true, 'Resting orders: a small rebate. Fills at the next trade are then too good to be true.'),
('none', 0, 0, 0, false, 'No costs at all; for comparisons.')
on conflict (costs) do nothing;

insert into ops.settings (name, value, description)
values
('backtest.live_lag', '"10 seconds"', 'How long after a row is known strategies that are followed live act on it: longer than the transactions that write rows take.')
on conflict (name) do nothing;
