-- What the venues' contracts are, as their own pages say. A rule of a user's own stays; a shipped one
-- is written anew at every deploy. Contracts that no rule names are refused until a row of
-- market.instruments or a rule says what they are.
insert into market.contract_rules
(exchange, pattern, kind, margin, contract_size, size_unit, settlement, source, source_date, shipped)
values
-- Binance: USD-M counts base units; COIN-M contracts are 100 USD of BTC, 10 USD of all others.
('binance', '*USDT', 'perpetual', 'linear', 1, 'base', 'USDT', 'https://developers.binance.com/docs/derivatives/usds-margined-futures', '2026-11-27', true),
('binance', '*USDC', 'perpetual', 'linear', 1, 'base', 'USDC', 'https://developers.binance.com/docs/derivatives/usds-margined-futures', '2026-11-27', true),
('binance', '*BUSD', 'perpetual', 'linear', 1, 'base', 'BUSD', 'https://developers.binance.com/docs/derivatives/usds-margined-futures', '2026-11-27', true),
('binance', 'ETHBTC', 'perpetual', 'linear', 1, 'base', 'BTC', 'https://developers.binance.com/docs/derivatives/usds-margined-futures', '2026-11-27', true),
('binance', '*USDT_######', 'future', 'linear', 1, 'base', 'USDT', 'https://developers.binance.com/docs/derivatives/usds-margined-futures', '2026-11-27', true),
('binance', '*USDC_######', 'future', 'linear', 1, 'base', 'USDC', 'https://developers.binance.com/docs/derivatives/usds-margined-futures', '2026-11-27', true),
('binance', '*USD_PERP', 'perpetual', 'inverse', 10, 'contracts', null, 'https://developers.binance.com/docs/derivatives/coin-margined-futures', '2026-11-27', true),
('binance', 'BTCUSD_PERP', 'perpetual', 'inverse', 100, 'contracts', 'BTC', 'https://developers.binance.com/docs/derivatives/coin-margined-futures', '2026-11-27', true),
('binance', '*USD_######', 'future', 'inverse', 10, 'contracts', null, 'https://developers.binance.com/docs/derivatives/coin-margined-futures', '2026-11-27', true),
('binance', 'BTCUSD_######', 'future', 'inverse', 100, 'contracts', 'BTC', 'https://developers.binance.com/docs/derivatives/coin-margined-futures', '2026-11-27', true),
-- Bybit: linear contracts count base units, inverse ones US dollars (a contract is 1 USD).
('bybit', '*USDT', 'perpetual', 'linear', 1, 'base', 'USDT', 'https://bybit-exchange.github.io/docs/v5/market/instrument', '2026-11-27', true),
('bybit', '*PERP', 'perpetual', 'linear', 1, 'base', 'USDC', 'https://bybit-exchange.github.io/docs/v5/market/instrument', '2026-11-27', true),
('bybit', '*USDT-*', 'future', 'linear', 1, 'base', 'USDT', 'https://bybit-exchange.github.io/docs/v5/market/instrument', '2026-11-27', true),
('bybit', '*-*', 'future', 'linear', 1, 'base', 'USDC', 'https://bybit-exchange.github.io/docs/v5/market/instrument', '2026-11-27', true),
('bybit', '*USD', 'perpetual', 'inverse', 1, 'contracts', null, 'https://bybit-exchange.github.io/docs/v5/market/instrument', '2026-11-27', true),
('bybit', '*USD?##', 'future', 'inverse', 1, 'contracts', null, 'https://bybit-exchange.github.io/docs/v5/market/instrument', '2026-11-27', true),
-- BitMEX: XBTUSD and the futures named like it are 1 USD a contract.
('bitmex', 'XBTUSD', 'perpetual', 'inverse', 1, 'contracts', 'XBT', 'https://www.bitmex.com/app/contract/XBTUSD', '2026-11-27', true),
('bitmex', 'XBT?##', 'future', 'inverse', 1, 'contracts', 'XBT', 'https://www.bitmex.com/app/futuresGuide', '2026-11-27', true),
('bitmex', 'XBTUSDT', 'perpetual', 'linear', 0.000001, 'contracts', 'USDT', 'https://www.bitmex.com/app/contract/XBTUSDT', '2026-11-27', true),
('bitmex', 'ETHUSDT', 'perpetual', 'linear', 0.00001, 'contracts', 'USDT', 'https://www.bitmex.com/app/contract/ETHUSDT', '2026-11-27', true),
('bitmex', 'ETHUSD', 'perpetual', 'quanto', 0.000001, 'contracts', 'XBT', 'https://www.bitmex.com/app/contract/ETHUSD', '2026-11-27', true),
('bitmex', 'ETHUSD?##', 'future', 'quanto', 0.000001, 'contracts', 'XBT', 'https://www.bitmex.com/app/futuresGuide', '2026-11-27', true),
-- Deribit: amounts are US dollars of inverse contracts, base units of all others.
('deribit', '*-PERPETUAL', 'perpetual', 'inverse', 10, 'quote', null, 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
('deribit', 'ETH-PERPETUAL', 'perpetual', 'inverse', 1, 'quote', 'ETH', 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
('deribit', '*_US??-PERPETUAL', 'perpetual', 'linear', 1, 'base', null, 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
('deribit', 'BTC-*', 'future', 'inverse', 10, 'quote', 'BTC', 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
('deribit', 'ETH-*', 'future', 'inverse', 1, 'quote', 'ETH', 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
('deribit', '*_US??-*', 'future', 'linear', 1, 'base', null, 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
('deribit', '*-*-*-?', 'option', 'inverse', 1, 'base', null, 'https://docs.deribit.com/#public-get_instruments', '2026-11-27', true),
-- Kraken Futures: PI and FI are 1 USD a contract, PF and FF count base units.
('krakenfutures', 'PI_*', 'perpetual', 'inverse', 1, 'contracts', null, 'https://support.kraken.com/hc/en-us/articles/360022632172', '2026-11-27', true),
('krakenfutures', 'FI_*', 'future', 'inverse', 1, 'contracts', null, 'https://support.kraken.com/hc/en-us/articles/360022632172', '2026-11-27', true),
('krakenfutures', 'PF_*', 'perpetual', 'linear', 1, 'base', null, 'https://support.kraken.com/hc/en-us/articles/4844359082772', '2026-11-27', true),
('krakenfutures', 'FF_*', 'future', 'linear', 1, 'base', null, 'https://support.kraken.com/hc/en-us/articles/4844359082772', '2026-11-27', true),
-- OKX: contracts; ctVal of the instruments page.
('okx', 'BTC-USD-*', null, 'inverse', 100, 'contracts', 'BTC', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', '*-USD-*', null, 'inverse', 10, 'contracts', null, 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'BTC-USDT-*', null, 'linear', 0.01, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'ETH-USDT-*', null, 'linear', 0.1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'SOL-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'DOGE-USDT-*', null, 'linear', 1000, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'XRP-USDT-*', null, 'linear', 100, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'LTC-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'BCH-USDT-*', null, 'linear', 0.1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'ADA-USDT-*', null, 'linear', 100, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'DOT-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'AVAX-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'LINK-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'BNB-USDT-*', null, 'linear', 0.01, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'TRX-USDT-*', null, 'linear', 1000, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'UNI-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'ETC-USDT-*', null, 'linear', 10, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'FIL-USDT-*', null, 'linear', 0.1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'ATOM-USDT-*', null, 'linear', 1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
('okx', 'HYPE-USDT-*', null, 'linear', 0.1, 'contracts', 'USDT', 'https://www.okx.com/trade-market/info/swap', '2026-11-27', true),
-- Gate: quanto_multiplier of its contracts page (linear in spite of the name).
('gate', 'BTC_USD', 'perpetual', 'inverse', 1, 'contracts', 'BTC', 'https://www.gate.com/docs/developers/apiv4/#list-all-futures-contracts', '2026-11-27', true),
('gate', 'BTC_USDT*', 'perpetual', 'linear', 0.0001, 'contracts', 'USDT', 'https://www.gate.com/docs/developers/apiv4/#list-all-futures-contracts', '2026-11-27', true),
('gate', 'BTC_USDT_########', 'future', 'linear', 0.0001, 'contracts', 'USDT', 'https://www.gate.com/docs/developers/apiv4/#list-all-futures-contracts', '2026-11-27', true),
('gate', 'ETH_USDT*', 'perpetual', 'linear', 0.01, 'contracts', 'USDT', 'https://www.gate.com/docs/developers/apiv4/#list-all-futures-contracts', '2026-11-27', true),
('gate', 'SOL_USDT*', 'perpetual', 'linear', 1, 'contracts', 'USDT', 'https://www.gate.com/docs/developers/apiv4/#list-all-futures-contracts', '2026-11-27', true),
-- KuCoin Futures.
('kucoin', 'XBTUSDTM', 'perpetual', 'linear', 0.001, 'contracts', 'USDT', 'https://www.kucoin.com/docs/rest/futures-trading/market-data/get-symbols-list', '2026-11-27', true),
('kucoin', 'ETHUSDTM', 'perpetual', 'linear', 0.01, 'contracts', 'USDT', 'https://www.kucoin.com/docs/rest/futures-trading/market-data/get-symbols-list', '2026-11-27', true),
('kucoin', '*USDM', 'perpetual', 'inverse', 1, 'contracts', null, 'https://www.kucoin.com/docs/rest/futures-trading/market-data/get-symbols-list', '2026-11-27', true),
-- HTX, formerly Huobi.
('huobi', 'BTC-USD*', null, 'inverse', 100, 'contracts', 'BTC', 'https://huobiapi.github.io/docs/coin_margined_swap/v1/en/', '2026-11-27', true),
('huobi', '*-USD', null, 'inverse', 10, 'contracts', null, 'https://huobiapi.github.io/docs/coin_margined_swap/v1/en/', '2026-11-27', true),
('huobi', 'BTC-USDT*', null, 'linear', 0.001, 'contracts', 'USDT', 'https://huobiapi.github.io/docs/usdt_swap/v1/en/', '2026-11-27', true),
('huobi', 'ETH-USDT*', null, 'linear', 0.01, 'contracts', 'USDT', 'https://huobiapi.github.io/docs/usdt_swap/v1/en/', '2026-11-27', true),
-- Venues that count base units.
('hyperliquid', '*', 'perpetual', 'linear', 1, 'base', 'USDC', 'https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api', '2026-11-27', true),
('dydx', '*', 'perpetual', 'linear', 1, 'base', 'USDC', 'https://docs.dydx.exchange/', '2026-11-27', true),
('lighter', '*', 'perpetual', 'linear', 1, 'base', 'USDC', 'https://apidocs.lighter.xyz/', '2026-11-27', true),
('ftx', '*-PERP', 'perpetual', 'linear', 1, 'base', 'USD', 'https://help.ftx.com/hc/en-us/articles/360024780511', '2026-11-27', true),
('coinbase', '*-PERP*', 'perpetual', 'linear', 1, 'base', 'USDC', 'https://docs.cdp.coinbase.com/intx/docs/welcome', '2026-11-27', true)
on conflict (exchange, pattern) do update set
kind = excluded.kind, margin = excluded.margin, contract_size = excluded.contract_size,
size_unit = excluded.size_unit, settlement = excluded.settlement, source = excluded.source,
source_date = excluded.source_date
where contract_rules.shipped;
