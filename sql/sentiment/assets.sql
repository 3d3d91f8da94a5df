-- What assets are called in texts.
create or replace view sentiment.assets as
select i.base as name, i.base as asset, true as is_ticker
from market.instruments i
union
select i.native_symbol, i.base, true from market.instruments i
union
select a.name, i.base, true
from market.instruments i
cross join lateral unnest(i.aliases) a (name)
where length(a.name) > 2
union
select n.name, n.asset, false from sentiment.asset_names n
union
select n.asset, n.asset, true from sentiment.asset_names n;
comment on view sentiment.assets is
'Tickers, aliases (from market.instruments) and names (sentiment.asset_names) by which assets are found in texts.';
comment on column sentiment.assets.name is 'The ticker, alias or name.';
comment on column sentiment.assets.asset is 'The asset, as in market.instruments.base.';
comment on column sentiment.assets.is_ticker is 'A ticker or alias, found in capitals or behind $ or #; else a name, found in any case.';

create or replace function sentiment._assets_state() returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select format('%s %s %s', count(*), max(i.created_at), sum(cardinality(i.aliases)))
        from market.instruments i
    ) || (select format(' %s %s', count(*), sum(hashtext(n.name || n.asset))) from sentiment.asset_names n);
end
$$;
comment on function sentiment._assets_state() is 'Changes whenever what assets are called does.';

create or replace function sentiment.author_hash(author text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_key bytea := (select k.key from sentiment.author_keys k);
    v_inner bytea := ''::bytea;
    v_outer bytea := ''::bytea;
begin
    -- HMAC-SHA-256 (RFC 2104) with a key of 32 bytes.
    for i in 0..63 loop
        v_inner := v_inner || set_byte('\x00', 0, 54 # case when i < 32 then get_byte(v_key, i) else 0 end);
        v_outer := v_outer || set_byte('\x00', 0, 92 # case when i < 32 then get_byte(v_key, i) else 0 end);
    end loop;
    return encode(substr(sha256(v_outer || sha256(v_inner || convert_to(author, 'UTF8'))), 1, 16), 'hex');
end
$$;
comment on function sentiment.author_hash(author text) is
'The keyed hash under which an author''s texts are stored (HMAC-SHA-256, first 16 bytes, hexadecimal), to find or delete them by name: delete from sentiment.texts where author = sentiment.author_hash(''…''). For the operator.';
