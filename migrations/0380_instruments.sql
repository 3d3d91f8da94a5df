-- depends: 0008_simulation
--
-- 0380: what an instrument is and where that is known from. An unknown part is null, never a
-- default: who converts a size needs the contract, and who has none refuses the row.
alter table market.instruments drop constraint instruments_kind_check;
alter table market.instruments drop constraint instruments_exchange_native_symbol_kind_key;
alter table market.instruments alter column kind drop not null;
alter table market.instruments alter column kind drop default;
alter table market.instruments alter column quote drop not null;
alter table market.instruments alter column contract_size drop not null;
alter table market.instruments alter column contract_size drop default;
alter table market.instruments add column margin text
check (margin in ('linear', 'inverse', 'quanto'));
alter table market.instruments add column settlement text;
alter table market.instruments add column size_unit text
check (size_unit in ('base', 'quote', 'contracts'));
alter table market.instruments add column expiry timestamptz;
alter table market.instruments add column series text not null default 'traded'
check (series in ('traded', 'mark', 'index', 'premium'));
alter table market.instruments add column negative_prices boolean not null default false;
alter table market.instruments add column listed_at timestamptz;
alter table market.instruments add column delisted_at timestamptz;
alter table market.instruments add column source text;
alter table market.instruments add column source_date date;
alter table market.instruments add constraint instruments_kind_check check (
    kind in ('spot', 'perpetual', 'future', 'option', 'index', 'stock', 'fx')
);
alter table market.instruments add constraint instruments_identity_key
unique nulls not distinct (exchange, native_symbol, kind, series);
update market.instruments set margin = case when is_inverse then 'inverse' else 'linear' end
where kind in ('perpetual', 'future', 'option');
alter table market.instruments drop column is_inverse;

create table market.contract_rules (
    exchange text not null,
    pattern text not null,
    kind text check (kind in ('spot', 'perpetual', 'future', 'option')),
    margin text check (margin in ('linear', 'inverse', 'quanto')),
    contract_size double precision check (contract_size > 0),
    size_unit text not null check (size_unit in ('base', 'quote', 'contracts')),
    settlement text,
    source text not null,
    source_date date not null,
    shipped boolean not null default false,
    primary key (exchange, pattern)
);

-- What the loader took a file for, and what it made of it.
alter table market.loads add column description jsonb;
alter table market.loads add column summary jsonb;

-- Which of a venue's two tellings of its trades (single ones, or those of one order together) is
-- stored for a stretch of time: the other one would count them twice.
create table market.trade_spans (
    symbol text collate "C" not null,
    dataset text not null check (dataset in ('trade', 'aggTrade')),
    first_ts timestamptz not null,
    last_ts timestamptz not null,
    load_id bigint references market.loads (load_id),
    primary key (symbol, dataset, first_ts)
);

-- Prices of some instruments may be negative (crude oil in April 2020, spreads, premium indices),
-- and not every bar has a volume: the loader asks the instrument and the file.
alter table market.candles drop constraint candles_range;
alter table market.candles add constraint candles_range check (
    high >= low and open between low and high and close between low and high
);
alter table market.candles alter column volume drop not null;
alter table market.candles_history alter column volume drop not null;

comment on table market.instruments is 'One row per tradable contract at a venue, or series of it (mark, index or premium-index price). symbol is the name every other table uses: the native symbol for the default exchange (setting market.default_exchange), native_symbol@exchange for the others, .SPOT for spot, .MARK, .INDEX and .PREMIUM for the series. aliases are further names (BTC/USDT:USDT, XBTUSD); market.resolve(text) finds the symbol for any of them. What is not known is null.';
comment on column market.instruments.symbol is 'The name in every other table.';
comment on column market.instruments.exchange is 'The venue; local: files whose venue is not known.';
comment on column market.instruments.native_symbol is 'The venue''s own name.';
comment on column market.instruments.base is 'The asset that sizes count.';
comment on column market.instruments.quote is 'The currency of prices; null: not known.';
comment on column market.instruments.kind is 'spot, perpetual, future (dated), option, index, stock or fx; null: not known.';
comment on column market.instruments.margin is 'linear: profit in quote currency; inverse: a contract is a fixed amount of quote currency, paid in base; quanto: paid in a third currency.';
comment on column market.instruments.settlement is 'The currency that profit is paid in.';
comment on column market.instruments.contract_size is 'One contract: base units of a linear, quote units of an inverse one; of a quanto contract units of the settlement currency per unit of price. Null: not known, so that rows counted in contracts are refused.';
comment on column market.instruments.size_unit is 'What the venue''s own sizes count: base units, quote units or contracts. Sizes in market.* are always in base units.';
comment on column market.instruments.expiry is 'When a dated contract expires.';
comment on column market.instruments.series is 'traded: prices of trades; mark, index, premium: the venue''s computed prices of the same name.';
comment on column market.instruments.negative_prices is 'Whether a price may be zero or negative; rows with one are refused otherwise.';
comment on column market.instruments.tick_size is 'Smallest step of prices.';
comment on column market.instruments.lot_size is 'Smallest step of sizes.';
comment on column market.instruments.aliases is 'Further names, in capitals.';
comment on column market.instruments.priority is 'Lower wins when a bare name fits several venues.';
comment on column market.instruments.is_simulated is 'Whether the market simulator made it.';
comment on column market.instruments.listed_at is 'First trading; null: not known.';
comment on column market.instruments.delisted_at is 'Last trading; null: not known, or still traded.';
comment on column market.instruments.source is 'Where the contract''s terms are from.';
comment on column market.instruments.source_date is 'The day on which they were written down here.';
comment on column market.instruments.created_at is 'When this row was made.';
comment on table market.contract_rules is 'What a venue''s contracts are, by the venue''s own names: the rule whose pattern fits a native symbol best (most letters outside *) tells margin, contract size and unit. A row of market.instruments goes before any rule.';
comment on column market.contract_rules.exchange is 'The venue.';
comment on column market.contract_rules.pattern is 'Native symbols, with * for any letters and # for a digit.';
comment on column market.contract_rules.kind is 'The kind that the rule is about; null: whatever the name says.';
comment on column market.contract_rules.margin is 'linear, inverse or quanto.';
comment on column market.contract_rules.contract_size is 'As in market.instruments.';
comment on column market.contract_rules.size_unit is 'What the venue''s sizes count: base, quote or contracts.';
comment on column market.contract_rules.settlement is 'The currency that profit is paid in, where the name does not say.';
comment on column market.contract_rules.source is 'The page that says so.';
comment on column market.contract_rules.source_date is 'The day on which the rule was written down here.';
comment on column market.contract_rules.shipped is 'Whether the rule came with the project (a deploy writes it anew) or is the user''s.';
comment on column market.loads.description is 'What the file was taken for, part by part, each with where that is known from.';
comment on column market.loads.summary is 'By symbol: rows, first and last time, bar length, gaps.';
comment on table market.trade_spans is 'Which telling of a symbol''s trades is stored for a stretch of time: single trades, or those of one order together (aggTrade). The other one of the same stretch is left out, as it would count the volume twice.';
comment on column market.trade_spans.symbol is 'The symbol.';
comment on column market.trade_spans.dataset is 'trade or aggTrade.';
comment on column market.trade_spans.first_ts is 'First trade of the stretch.';
comment on column market.trade_spans.last_ts is 'Last trade of the stretch.';
comment on column market.trade_spans.load_id is 'The load that stored it.';
comment on column market.candles.volume is 'Base units; null where the source has no volume.';
