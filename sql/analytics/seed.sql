-- Settings as delivered; an operator's changes stay.
insert into ops.settings (name, value, description)
values
('analytics.state_timeframes', '["1 hour", "15 minutes"]', 'Lengths of bars at which analytics.refresh_states keeps states: "1 hour", "15 minutes", "5 minutes".'),
('analytics.snapshot_max_age', '"11 minutes"', 'How old a kept analytics.comprehensive_analysis may be before the question as of now is computed anew.')
on conflict (name) do nothing;
