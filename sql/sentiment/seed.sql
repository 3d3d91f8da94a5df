-- Settings, the blend's weights, names of well-known assets, and the key of authors' hashes.
insert into ops.settings (name, value, description)
values
('sentiment.methods', '["vader", "textblob", "blend"]', 'The methods that score the texts that arrive; names of text models may be added.'),
('sentiment.method', '"blend"', 'The method that summaries, features and events read.'),
('sentiment.raw_authors', 'false', 'Whether loaders store authors'' names as they are; by default a keyed hash.'),
('sentiment.duplicate_window', '"3 days"', 'Within how long a text is compared with those before it.'),
('sentiment.duplicate_similarity', '0.8', 'From which estimated Jaccard similarity of its word triples a text is a near-duplicate.')
on conflict (name) do nothing;

insert into sentiment.blend_weights (method, weight)
values ('vader', 0.7), ('textblob', 0.3), ('finance', 0.3)
on conflict (method) do nothing;

insert into sentiment.author_keys (key_id, key)
select
    1, sha256(convert_to(string_agg(gen_random_uuid()::text, ''), 'UTF8'))
from generate_series(1, 4)
on conflict (key_id) do nothing;

insert into sentiment.asset_names (name, asset)
values
('bitcoin', 'BTC'), ('bitcoins', 'BTC'), ('btc', 'BTC'), ('xbt', 'BTC'), ('ethereum', 'ETH'), ('ether', 'ETH'),
('eth', 'ETH'), ('solana', 'SOL'), ('ripple', 'XRP'), ('xrp', 'XRP'), ('dogecoin', 'DOGE'), ('doge', 'DOGE'),
('cardano', 'ADA'), ('litecoin', 'LTC'), ('polkadot', 'DOT'), ('chainlink', 'LINK'), ('avalanche', 'AVAX'),
('avax', 'AVAX'), ('bnb', 'BNB'), ('binance coin', 'BNB'), ('tron', 'TRX'), ('shiba inu', 'SHIB'),
('uniswap', 'UNI'), ('monero', 'XMR'), ('hyperliquid', 'HYPE'), ('bitcoin cash', 'BCH'), ('toncoin', 'TON'),
('aptos', 'APT'), ('arbitrum', 'ARB'), ('filecoin', 'FIL'), ('pepe', 'PEPE'), ('aave', 'AAVE')
on conflict (name) do nothing;
