-- depends: 0380_instruments
--
-- 0381: what changes a series without a trade: splits, dividends, renames, delistings. Each is a row
-- with two clocks, so that a question asked as of an earlier time is answered without it.
create table market.corporate_actions (
    symbol text collate "C" not null,
    ts timestamptz not null,
    kind text not null check (kind in ('split', 'dividend', 'rename', 'delisting')),
    known_at timestamptz not null default clock_timestamp(),
    ratio double precision check (ratio > 0 and ratio < 'infinity'),
    amount double precision check (amount > 0 and amount < 'infinity'),
    new_symbol text collate "C" check (new_symbol <> symbol),
    source text,
    primary key (symbol, ts, kind),
    constraint corporate_actions_content check (
        (kind = 'split') = (ratio is not null)
        and (kind = 'dividend') = (amount is not null)
        and (kind = 'rename') = (new_symbol is not null)
    )
);
create index corporate_actions_new_symbol_idx on market.corporate_actions (new_symbol)
where new_symbol is not null;

create table market.corporate_actions_history (
    like market.corporate_actions, superseded_at timestamptz not null
);
create index on market.corporate_actions_history (symbol, ts);

comment on table market.corporate_actions is 'Splits, dividends, renames and delistings. Prices in market.candles stay as traded; market.adjusted_candles gives them adjusted as known at a time.';
comment on column market.corporate_actions.symbol is 'The symbol; of a rename the old one.';
comment on column market.corporate_actions.ts is 'From when it counts: the ex-date of a split or dividend, the first time under the new symbol, the end of trading.';
comment on column market.corporate_actions.kind is 'split, dividend, rename or delisting.';
comment on column market.corporate_actions.known_at is 'When it could first have been used here (often before ts: it is announced).';
comment on column market.corporate_actions.ratio is 'Of a split: new units for one old unit (7 for 7:1, 0.1 for 1:10).';
comment on column market.corporate_actions.amount is 'Of a dividend: quote currency per unit as traded before it.';
comment on column market.corporate_actions.new_symbol is 'Of a rename: the symbol from ts on.';
comment on column market.corporate_actions.source is 'Who says so.';
comment on table market.corporate_actions_history is 'Superseded versions of market.corporate_actions rows.';
comment on column market.corporate_actions_history.superseded_at is 'Until when the version held.';
