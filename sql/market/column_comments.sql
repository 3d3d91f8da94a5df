-- What the columns of market's older tables and views mean; newer ones say it beside their definition
-- (the migration, or the view). Applied last in the schema, when all of them are there.

comment on column market.book_1m.symbol is 'The symbol, as in market.instruments.';
comment on column market.book_1m.bucket is 'Opening time of the bucket.';
comment on column market.book_1m.snapshot_count is 'Number of snapshots.';
comment on column market.book_1m.mean_spread is 'Mean spread over two-sided snapshots, quote currency.';
comment on column market.book_1m.mean_mid is 'Mean mid price.';
comment on column market.book_1m.mean_spread_bps is 'Mean spread by mid price, basis points.';
comment on column market.book_1m.mean_imbalance is 'Mean of (bid - ask) / (bid + ask) size at the top.';
comment on column market.book_1m.last_ts is 'Time of the last snapshot.';
comment on column market.book_1m.bid_prices is 'Bid prices of the last snapshot, best first.';
comment on column market.book_1m.bid_sizes is 'Bid sizes of the last snapshot, base units.';
comment on column market.book_1m.ask_prices is 'Ask prices of the last snapshot, best first.';
comment on column market.book_1m.ask_sizes is 'Ask sizes of the last snapshot, base units.';
comment on column market.book_1m.usable_at is 'From when on all of the row was known and its bucket had closed.';

comment on column market.candles.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles.timeframe is 'Length of the bar.';
comment on column market.candles.ts is 'Opening time; the bar covers [ts, ts + timeframe).';
comment on column market.candles.known_at is 'When it could first be used here; never before its close.';
comment on column market.candles.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.candles.open is 'First price, quote currency.';
comment on column market.candles.high is 'Highest price, quote currency.';
comment on column market.candles.low is 'Lowest price, quote currency.';
comment on column market.candles.close is 'Last price, quote currency.';
comment on column market.candles.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles.trade_count is 'Number of trades; null: not known.';
comment on column market.candles.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';

comment on column market.candles_15m.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_15m.ts is 'Opening time.';
comment on column market.candles_15m.open is 'First price, quote currency.';
comment on column market.candles_15m.high is 'Highest price, quote currency.';
comment on column market.candles_15m.low is 'Lowest price, quote currency.';
comment on column market.candles_15m.close is 'Last price, quote currency.';
comment on column market.candles_15m.volume is 'Volume in base units.';
comment on column market.candles_15m.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_15m.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_15m.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_15m.source is 'Where the bar is from: loaded at this length; minutes: made of loaded one-minute bars; bars of a length between: made of loaded ones; trades.';

comment on column market.candles_1d.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_1d.ts is 'Opening time.';
comment on column market.candles_1d.open is 'First price, quote currency.';
comment on column market.candles_1d.high is 'Highest price, quote currency.';
comment on column market.candles_1d.low is 'Lowest price, quote currency.';
comment on column market.candles_1d.close is 'Last price, quote currency.';
comment on column market.candles_1d.volume is 'Volume in base units.';
comment on column market.candles_1d.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_1d.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_1d.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_1d.source is 'Where the bar is from: loaded at this length; minutes: made of loaded one-minute bars; bars of a length between: made of loaded ones; trades.';

comment on column market.candles_1h.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_1h.ts is 'Opening time.';
comment on column market.candles_1h.open is 'First price, quote currency.';
comment on column market.candles_1h.high is 'Highest price, quote currency.';
comment on column market.candles_1h.low is 'Lowest price, quote currency.';
comment on column market.candles_1h.close is 'Last price, quote currency.';
comment on column market.candles_1h.volume is 'Volume in base units.';
comment on column market.candles_1h.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_1h.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_1h.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_1h.source is 'Where the bar is from: loaded at this length; minutes: made of loaded one-minute bars; bars of a length between: made of loaded ones; trades.';

comment on column market.candles_1m.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_1m.ts is 'Opening time.';
comment on column market.candles_1m.open is 'First price, quote currency.';
comment on column market.candles_1m.high is 'Highest price, quote currency.';
comment on column market.candles_1m.low is 'Lowest price, quote currency.';
comment on column market.candles_1m.close is 'Last price, quote currency.';
comment on column market.candles_1m.volume is 'Volume in base units.';
comment on column market.candles_1m.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_1m.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_1m.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_1m.source is 'loaded, or trades: made of trades.';

comment on column market.candles_4h.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_4h.ts is 'Opening time.';
comment on column market.candles_4h.open is 'First price, quote currency.';
comment on column market.candles_4h.high is 'Highest price, quote currency.';
comment on column market.candles_4h.low is 'Lowest price, quote currency.';
comment on column market.candles_4h.close is 'Last price, quote currency.';
comment on column market.candles_4h.volume is 'Volume in base units.';
comment on column market.candles_4h.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_4h.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_4h.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_4h.source is 'Where the bar is from: loaded at this length; minutes: made of loaded one-minute bars; bars of a length between: made of loaded ones; trades.';

comment on column market.candles_5m.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_5m.ts is 'Opening time.';
comment on column market.candles_5m.open is 'First price, quote currency.';
comment on column market.candles_5m.high is 'Highest price, quote currency.';
comment on column market.candles_5m.low is 'Lowest price, quote currency.';
comment on column market.candles_5m.close is 'Last price, quote currency.';
comment on column market.candles_5m.volume is 'Volume in base units.';
comment on column market.candles_5m.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_5m.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_5m.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_5m.source is 'Where the bar is from: loaded at this length; minutes: made of loaded one-minute bars; bars of a length between: made of loaded ones; trades.';

comment on column market.candles_history.symbol is 'The symbol, as in market.instruments.';
comment on column market.candles_history.timeframe is 'Length of the bar.';
comment on column market.candles_history.ts is 'Opening time; the bar covers [ts, ts + timeframe).';
comment on column market.candles_history.known_at is 'When it could first be used here; never before its close.';
comment on column market.candles_history.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.candles_history.open is 'First price, quote currency.';
comment on column market.candles_history.high is 'Highest price, quote currency.';
comment on column market.candles_history.low is 'Lowest price, quote currency.';
comment on column market.candles_history.close is 'Last price, quote currency.';
comment on column market.candles_history.volume is 'Volume in base units.';
comment on column market.candles_history.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.candles_history.trade_count is 'Number of trades; null: not known.';
comment on column market.candles_history.taker_buy_volume is 'Volume of trades whose aggressor bought, base units; null: not known.';
comment on column market.candles_history.superseded_at is 'When this version of the row was replaced or deleted.';

comment on column market.corporate_actions_history.symbol is 'The symbol; of a rename the old one.';
comment on column market.corporate_actions_history.ts is 'From when it counted: the ex-date of a split or dividend, the first time under the new symbol, the end of trading.';
comment on column market.corporate_actions_history.kind is 'split, dividend, rename or delisting.';
comment on column market.corporate_actions_history.known_at is 'When it could first have been used here (often before ts: it is announced).';
comment on column market.corporate_actions_history.ratio is 'Of a split: new units for one old unit (7 for 7:1, 0.1 for 1:10).';
comment on column market.corporate_actions_history.amount is 'Of a dividend: quote currency per unit as traded before it.';
comment on column market.corporate_actions_history.new_symbol is 'Of a rename: the symbol from ts on.';
comment on column market.corporate_actions_history.source is 'Who said so.';

comment on column market.funding_rates.symbol is 'The symbol, as in market.instruments.';
comment on column market.funding_rates.ts is 'When it happened.';
comment on column market.funding_rates.known_at is 'When it could first be used here; never before ts.';
comment on column market.funding_rates.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.funding_rates.rate is 'Funding as a fraction of notional; above zero longs pay.';
comment on column market.funding_rates.funding_interval is 'The time that the rate is for.';

comment on column market.funding_rates_history.symbol is 'The symbol, as in market.instruments.';
comment on column market.funding_rates_history.ts is 'When it happened.';
comment on column market.funding_rates_history.known_at is 'When it could first be used here; never before ts.';
comment on column market.funding_rates_history.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.funding_rates_history.rate is 'Funding as a fraction of notional; above zero longs pay.';
comment on column market.funding_rates_history.funding_interval is 'The time that the rate is for.';
comment on column market.funding_rates_history.superseded_at is 'When this version of the row was replaced or deleted.';

comment on column market.liquidation_events.symbol is 'The symbol, as in market.instruments.';
comment on column market.liquidation_events.ts is 'When it happened.';
comment on column market.liquidation_events.event_id is 'Name of the event at its source.';
comment on column market.liquidation_events.known_at is 'When it could first be used here; never before ts.';
comment on column market.liquidation_events.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.liquidation_events.side is 'Side of the forced order; sell: a long was liquidated.';
comment on column market.liquidation_events.price is 'Price, quote currency.';
comment on column market.liquidation_events.size is 'Size, base units.';
comment on column market.liquidation_events.notional is 'Price times size, quote currency.';

comment on column market.liquidation_events_history.symbol is 'The symbol, as in market.instruments.';
comment on column market.liquidation_events_history.ts is 'When it happened.';
comment on column market.liquidation_events_history.event_id is 'Name of the event at its source.';
comment on column market.liquidation_events_history.known_at is 'When it could first be used here; never before ts.';
comment on column market.liquidation_events_history.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.liquidation_events_history.side is 'Side of the forced order; sell: a long was liquidated.';
comment on column market.liquidation_events_history.price is 'Price, quote currency.';
comment on column market.liquidation_events_history.size is 'Size, base units.';
comment on column market.liquidation_events_history.notional is 'Price times size, quote currency.';
comment on column market.liquidation_events_history.superseded_at is 'When this version of the row was replaced or deleted.';

comment on column market.liquidations_1m.symbol is 'The symbol, as in market.instruments.';
comment on column market.liquidations_1m.bucket is 'Opening time of the bucket.';
comment on column market.liquidations_1m.event_count is 'Number of forced orders.';
comment on column market.liquidations_1m.long_notional is 'Notional of liquidated longs (forced sells), quote currency.';
comment on column market.liquidations_1m.short_notional is 'Notional of liquidated shorts (forced buys), quote currency.';
comment on column market.liquidations_1m.max_notional is 'The largest forced order''s notional, quote currency.';
comment on column market.liquidations_1m.usable_at is 'From when on all of the row was known and its bucket had closed.';

comment on column market.loads.load_id is 'Number of the load.';
comment on column market.loads.kind is 'Kind of data that was asked for; auto: by content.';
comment on column market.loads.format is 'The layout that was recognised.';
comment on column market.loads.file is 'The file, with the member of an archive.';
comment on column market.loads.file_sha256 is 'SHA-256 of the file (of an archive: the whole).';
comment on column market.loads.options is 'What was said of the file when it was loaded.';
comment on column market.loads.status is 'running, done, failed or interrupted.';
comment on column market.loads.resume_line is 'The line after which a cut-short load goes on.';
comment on column market.loads.resume_state is 'What it needs to go on there.';
comment on column market.loads.rows_read is 'Rows read.';
comment on column market.loads.rows_loaded is 'Rows stored.';
comment on column market.loads.rows_duplicate is 'Rows that were there already.';
comment on column market.loads.rows_quarantined is 'Rows refused, in market.quarantine.';
comment on column market.loads.counters is 'Other counts, by what they count.';
comment on column market.loads.error is 'Its error; null: none.';
comment on column market.loads.loaded_by is 'Who loaded it.';
comment on column market.loads.started_at is 'When it began.';
comment on column market.loads.updated_at is 'When its progress was last noted.';
comment on column market.loads.finished_at is 'When it ended; null: it has not.';

comment on column market.open_interest.symbol is 'The symbol, as in market.instruments.';
comment on column market.open_interest.ts is 'When it happened.';
comment on column market.open_interest.known_at is 'When it could first be used here; never before ts.';
comment on column market.open_interest.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.open_interest.open_interest is 'Open contracts, base units.';
comment on column market.open_interest.value is 'The same in quote currency.';

comment on column market.open_interest_history.symbol is 'The symbol, as in market.instruments.';
comment on column market.open_interest_history.ts is 'When it happened.';
comment on column market.open_interest_history.known_at is 'When it could first be used here; never before ts.';
comment on column market.open_interest_history.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.open_interest_history.open_interest is 'Open contracts, base units.';
comment on column market.open_interest_history.value is 'The same in quote currency.';
comment on column market.open_interest_history.superseded_at is 'When this version of the row was replaced or deleted.';

comment on column market.order_book_snapshots.symbol is 'The symbol, as in market.instruments.';
comment on column market.order_book_snapshots.ts is 'When it happened.';
comment on column market.order_book_snapshots.sequence is 'The venue''s sequence number, or a number that orders snapshots of one time.';
comment on column market.order_book_snapshots.known_at is 'When it could first be used here; never before ts.';
comment on column market.order_book_snapshots.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.order_book_snapshots.bid_prices is 'Bid prices, best first, quote currency.';
comment on column market.order_book_snapshots.bid_sizes is 'Sizes at bid_prices, base units.';
comment on column market.order_book_snapshots.ask_prices is 'Ask prices, best first, quote currency.';
comment on column market.order_book_snapshots.ask_sizes is 'Sizes at ask_prices, base units.';
comment on column market.order_book_snapshots.after_gap is 'Whether updates before it are missing.';

comment on column market.order_book_snapshots_history.symbol is 'The symbol, as in market.instruments.';
comment on column market.order_book_snapshots_history.ts is 'When it happened.';
comment on column market.order_book_snapshots_history.sequence is 'The venue''s sequence number, or a number that orders snapshots of one time.';
comment on column market.order_book_snapshots_history.known_at is 'When it could first be used here; never before ts.';
comment on column market.order_book_snapshots_history.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.order_book_snapshots_history.bid_prices is 'Bid prices, best first, quote currency.';
comment on column market.order_book_snapshots_history.bid_sizes is 'Sizes at bid_prices, base units.';
comment on column market.order_book_snapshots_history.ask_prices is 'Ask prices, best first, quote currency.';
comment on column market.order_book_snapshots_history.ask_sizes is 'Sizes at ask_prices, base units.';
comment on column market.order_book_snapshots_history.after_gap is 'Whether updates before it are missing.';
comment on column market.order_book_snapshots_history.superseded_at is 'When this version of the row was replaced or deleted.';

comment on column market.quarantine.quarantine_id is 'Number of the row.';
comment on column market.quarantine.load_id is 'The load, as in market.loads.';
comment on column market.quarantine.kind is 'Kind of data it was taken for.';
comment on column market.quarantine.file is 'The file it stands in.';
comment on column market.quarantine.line is 'Its line in the file; of columnar files its row.';
comment on column market.quarantine.reason is 'Why it was refused.';
comment on column market.quarantine.detail is 'More of it.';
comment on column market.quarantine.raw is 'The row as the file has it.';
comment on column market.quarantine.created_at is 'When it was refused.';

comment on column market.sequence_gaps.symbol is 'The symbol, as in market.instruments.';
comment on column market.sequence_gaps.ts is 'When the hole was seen.';
comment on column market.sequence_gaps.stream is 'The stream of numbered updates.';
comment on column market.sequence_gaps.expected is 'The number that was due.';
comment on column market.sequence_gaps.received is 'The number that came.';
comment on column market.sequence_gaps.load_id is 'The load that found it, as in market.loads.';

comment on column market.simulation_runs.run_id is 'Number of the run.';
comment on column market.simulation_runs.symbol is 'The symbol, as in market.instruments.';
comment on column market.simulation_runs.seed is 'The seed; the same one gives the same market.';
comment on column market.simulation_runs.config is 'Parameters of the simulator.';
comment on column market.simulation_runs.first_ts is 'Begin of the simulated time.';
comment on column market.simulation_runs.last_ts is 'End of the simulated time.';
comment on column market.simulation_runs.created_at is 'When the row was written.';

comment on column market.simulation_truth.symbol is 'The symbol, as in market.instruments.';
comment on column market.simulation_truth.ts is 'The minute at whose start it holds.';
comment on column market.simulation_truth.regime is 'The simulator''s regime.';
comment on column market.simulation_truth.volatility is 'Log return per root minute.';
comment on column market.simulation_truth.intensity is 'Liquidations a minute.';
comment on column market.simulation_truth.hazard_5m is 'Expected liquidated notional of the next 5 minutes, quote currency; every tenth minute.';
comment on column market.simulation_truth.hazard_15m is 'The same for 15 minutes.';
comment on column market.simulation_truth.hazard_30m is 'The same for 30 minutes.';
comment on column market.simulation_truth.hazard_60m is 'The same for 60 minutes.';

comment on column market.trades.symbol is 'The symbol, as in market.instruments.';
comment on column market.trades.ts is 'When it happened.';
comment on column market.trades.trade_id is 'The venue''s number of the trade.';
comment on column market.trades.known_at is 'When it could first be used here; never before ts.';
comment on column market.trades.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.trades.price is 'Price, quote currency.';
comment on column market.trades.size is 'Size, base units.';
comment on column market.trades.side is 'Side of the aggressor.';

comment on column market.trades_1m.symbol is 'The symbol, as in market.instruments.';
comment on column market.trades_1m.bucket is 'Opening time of the bucket.';
comment on column market.trades_1m.open is 'First price, quote currency.';
comment on column market.trades_1m.high is 'Highest price, quote currency.';
comment on column market.trades_1m.low is 'Lowest price, quote currency.';
comment on column market.trades_1m.close is 'Last price, quote currency.';
comment on column market.trades_1m.volume is 'Volume in base units.';
comment on column market.trades_1m.quote_volume is 'Volume in quote currency; null: not known.';
comment on column market.trades_1m.buy_volume is 'Volume of trades whose aggressor bought, base units.';
comment on column market.trades_1m.sell_volume is 'Volume of trades whose aggressor sold, base units.';
comment on column market.trades_1m.buy_quote_volume is 'The same in quote currency.';
comment on column market.trades_1m.trade_count is 'Number of trades.';
comment on column market.trades_1m.usable_at is 'From when on all of the row was known and its bucket had closed.';

comment on column market.trades_history.symbol is 'The symbol, as in market.instruments.';
comment on column market.trades_history.ts is 'When it happened.';
comment on column market.trades_history.trade_id is 'The venue''s number of the trade.';
comment on column market.trades_history.known_at is 'When it could first be used here; never before ts.';
comment on column market.trades_history.received_at is 'The source''s own receive clock, where it says one.';
comment on column market.trades_history.price is 'Price, quote currency.';
comment on column market.trades_history.size is 'Size, base units.';
comment on column market.trades_history.side is 'Side of the aggressor.';
comment on column market.trades_history.superseded_at is 'When this version of the row was replaced or deleted.';

-- The aggregates' partial rows: a view, and its rows as of the last refresh.
comment on view market._trades_1m is 'Partial rows of market.trades_1m, as of now.';
comment on view market._book_1m is 'Partial rows of market.book_1m, as of now.';
comment on view market._liquidations_1m is 'Partial rows of market.liquidations_1m, as of now.';
comment on view market._candles is 'Partial rows of bars made of loaded one-minute bars, as of now.';


do $$
declare
    v_column record;
begin
    for v_column in
        select c.oid::regclass as relation, a.attname, m.meaning
        from pg_catalog.pg_class c
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        join (
            values
            ('ask_prices', 'Ask prices of the last snapshot, best first.'),
            ('ask_sizes', 'Ask sizes of the last snapshot.'),
            ('bar_count', 'Number of one-minute bars in it.'),
            ('bid_prices', 'Bid prices of the last snapshot, best first.'),
            ('bid_sizes', 'Bid sizes of the last snapshot.'),
            ('bucket', 'Opening time of the bucket.'),
            ('buy_quote_volume', 'The same in quote currency.'),
            ('buy_volume', 'Volume of trades whose aggressor bought, base units.'),
            ('close', 'Price of its last row, quote currency.'),
            ('event_count', 'Number of forced orders.'),
            ('first_id', 'trade_id of the first trade.'),
            ('first_ts', 'Time of the first source row in it.'),
            ('high', 'Highest price, quote currency.'),
            ('imbalance_sum', 'Sum of (bid - ask) / (bid + ask) size at the top over two-sided snapshots.'),
            ('last_id', 'trade_id of the last trade.'),
            ('last_sequence', 'sequence of the last snapshot.'),
            ('last_ts', 'Time of the last source row in it.'),
            ('long_notional', 'Notional of liquidated longs (forced sells), quote currency.'),
            ('low', 'Lowest price, quote currency.'),
            ('max_notional', 'The largest forced order''s notional, quote currency.'),
            ('mid_sum', 'Sum of mid prices over two-sided snapshots.'),
            ('open', 'Price of its first row, quote currency.'),
            ('quote_volume', 'Volume in quote currency; null: not known.'),
            ('relative_spread_sum', 'Sum of spread by mid price over two-sided snapshots.'),
            ('short_notional', 'Notional of liquidated shorts (forced buys), quote currency.'),
            ('snapshot_count', 'Number of snapshots.'),
            ('spread_sum', 'Sum of spreads over two-sided snapshots, quote currency.'),
            ('symbol', 'The symbol, as in market.instruments.'),
            ('taker_buy_volume', 'Volume of trades whose aggressor bought, base units; null: not known.'),
            ('timeframe', 'Length of the bars.'),
            ('trade_count', 'Number of trades; null: not known.'),
            ('two_sided_count', 'Number of snapshots with both sides.'),
            ('usable_at', 'From when on all of the row was known and its bucket had closed.'),
            ('volume', 'Volume in base units.')
        ) m (name, meaning) on m.name = a.attname
        where c.relnamespace = 'market'::regnamespace and c.relkind in ('r', 'v')
            and c.relname ~ '^_(trades|book|liquidations|candles)(_|$)'
            and pg_catalog.col_description(c.oid, a.attnum) is distinct from m.meaning
    loop
        execute format('comment on column %s.%I is %L', v_column.relation, v_column.attname, v_column.meaning);
    end loop;
end
$$;
