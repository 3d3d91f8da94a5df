alter table market.candles_history alter column volume set not null;
alter table market.candles alter column volume set not null;
alter table market.candles drop constraint candles_range;
alter table market.candles add constraint candles_range check (
    high >= low and open between low and high and close between low and high and low > 0
);
drop table market.trade_spans;
alter table market.loads drop column summary;
alter table market.loads drop column description;
drop table market.contract_rules;
alter table market.instruments add column is_inverse boolean not null default false;
update market.instruments set is_inverse = true where margin = 'inverse';
delete from market.instruments where series <> 'traded';
update market.instruments set kind = 'perpetual'
where kind is null or kind in ('stock', 'fx');
update market.instruments set quote = 'USD' where quote is null;
update market.instruments set contract_size = 1 where contract_size is null;
alter table market.instruments drop constraint instruments_identity_key;
alter table market.instruments drop constraint instruments_kind_check;
alter table market.instruments add constraint instruments_kind_check check (
    kind in ('spot', 'perpetual', 'future', 'option', 'index')
);
alter table market.instruments
drop column margin, drop column settlement, drop column size_unit, drop column expiry, drop column series,
drop column negative_prices, drop column listed_at, drop column delisted_at, drop column source,
drop column source_date;
alter table market.instruments add constraint instruments_exchange_native_symbol_kind_key
unique (exchange, native_symbol, kind);
alter table market.instruments alter column contract_size set default 1;
alter table market.instruments alter column contract_size set not null;
alter table market.instruments alter column quote set not null;
alter table market.instruments alter column kind set default 'perpetual';
alter table market.instruments alter column kind set not null;
