-- What a text says: score, label, words, by one of the methods.

-- No error for a name that is none: market.resolve's hints follow where it is asked for.
create or replace function sentiment._asset(symbol text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_asset text;
begin
    if symbol is null or symbol = '*' then
        return symbol;
    end if;
    select a.asset into v_asset
    from sentiment.assets a
    where a.asset = upper(ltrim(symbol, '$#')) or a.name = lower(symbol)
    limit 1;
    if found then
        return v_asset;
    end if;
    select i.base into strict v_asset
    from market.instruments i where i.symbol = market.resolve(_asset.symbol);
    return v_asset;
end
$$;
comment on function sentiment._asset(text) is
'The asset that a symbol, alias, ticker or name stands for; * and null stay. Errors: AP101, AP102.';

create or replace function sentiment._micros(at timestamptz) returns bigint
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if at is not null and ops._micros(at) is null then
        return case when at > '2000-01-01 00:00:00+00' then 9223372036854775807 else -9223372036854775807 end;
    end if;
    return (extract(epoch from at) * 1000000)::bigint;
end
$$;
comment on function sentiment._micros(timestamptz) is 'A time as microseconds since 1970.';

create or replace function sentiment._analyze(
    text text, symbol text, method text, text_language text, as_of bigint,
    out score double precision, out label text, out confidence double precision,
    out keywords text [], out language text, out per_word jsonb, out reason text,
    out version text
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import analyze
    return analyze.analyze(plpy, GD, text, symbol, method, text_language, as_of)
$python$;

create or replace function sentiment.analyze(
    text text, symbol text default null, method text default 'blend', text_language text default null,
    as_of timestamptz default null,
    out score double precision, out label text, out confidence double precision,
    out keywords text [], out language text, out per_word jsonb, out reason text,
    out version text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    select a.* into score, label, confidence, keywords, language, per_word, reason, version
    from sentiment._analyze(
        text, sentiment._asset(symbol), method, text_language, sentiment._micros(as_of)
    ) a;
end
$$;
comment on function sentiment.analyze(text, text, text, text, timestamptz) is
'Sentiment of a text: score (-1 to 1), label (negative, neutral, positive), confidence (0 to 1), keywords, the language found, per_word ([{word, contribution}], which sum to the score), reason (why there is no score, or what was left out), version. symbol: only what the text says of that asset ("BTC dumps, ETH flies"); a text that names no asset is taken to be about it, one that names others gets no score. method: vader (Hutto and Gilbert 2014), textblob (De Smedt and Daelemans 2012), finance (market words by VADER''s rules), blend (their weighted sum: sentiment.blend_weights), or a text model (sentiment.create_model), answered by its champion, as of as_of where given. text_language: where known; else found by script and function words. The lexicons read English; for another or an unknown language the score is null, not zero. Only the first 10,000 characters are read; HTML and zero-width characters are left out; empty text, addresses alone: null. Errors: AP670 unknown method, AP101/AP102 symbol.';

create or replace function sentiment._score(text text, method text, as_of bigint)
returns double precision
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import analyze
    return analyze.score(plpy, GD, text, method, as_of)
$python$;

-- Not pinned, so that it is inlined: the call is a good part of what a text costs.
create or replace function sentiment.score(text text, method text default 'blend')
returns double precision
language sql stable parallel restricted
as $$
    select sentiment._score(text, method, null)
$$;
comment on function sentiment.score(text, text) is
'The score alone of sentiment.analyze(text, method => method), for many texts. Errors: AP670 unknown method.';
