-- Sentiment against prices and voices against one another, beside chance.

create or replace function sentiment._correlation(
    assets text [], sentiment jsonb, returns jsonb, lags integer [], block integer, seed integer
)
returns table (
    asset text, lag_hours integer, n integer, r double precision, naive_p double precision,
    p double precision, q double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    import json
    from alphaplus.server.sentiment import significance
    return significance.correlation_rows(assets, json.loads(sentiment), json.loads(returns), lags, block, seed)
$python$;
comment on function sentiment._correlation(text [], jsonb, jsonb, integer [], integer, integer) is
'Lagged correlations of hourly series with block-permutation p-values, BH over all of them.';

-- Closes at the ends of hours, of the finest bars of at most an hour, as known at a time.
create or replace function sentiment._closes(
    symbol text, "from" timestamptz, as_of timestamptz
)
returns table (hour timestamptz, close double precision)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    with bars as (
        select c.timeframe, c.ts + c.timeframe as closed, c.close
        from market._candles_known($1, $2, $3, $3) c
        where c.timeframe <= interval '1 hour' and c.known_at <= $3
    )
    select b.closed, b.close
    from bars b
    where b.closed = date_trunc('hour', b.closed, 'UTC')
        and b.timeframe = (select min(x.timeframe) from bars x)
$$;
comment on function sentiment._closes(text, timestamptz, timestamptz) is
'Closes of a symbol at whole hours, as known at as_of.';

create or replace function sentiment.correlation(
    symbol text, hours double precision default 720, as_of timestamptz default null,
    method text default null, lags integer [] default array[0, 1, 2, 3, 6, 12, 24],
    block integer default 24, seed integer default 1
)
returns table (
    asset text, lag_hours integer, n integer, r double precision, naive_p double precision,
    p double precision, q double precision
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 10
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
    v_from timestamptz := date_trunc('hour', v_as_of - sentiment._hours(hours), 'UTC');
    v_method text := sentiment._method(method);
    v_assets text [] := array[]::text [];
    v_sentiment jsonb := jsonb '[]';
    v_returns jsonb := jsonb '[]';
    v_asset record;
    v_x jsonb;
    v_y jsonb;
begin
    if lags is null or cardinality(lags) = 0 or cardinality(lags) > 100
        or exists (select from unnest(lags) l where l is null or l < 0 or l > 1000) then
        raise exception 'lags % are not possible', coalesce(lags::text, 'null')
        using errcode = 'AP682', hint = 'Up to 100 whole hours from 0 to 1000.';
    end if;
    if block is null or block < 1 or block > 1000 or seed is null or seed < 0 then
        raise exception 'a block of % hours is not possible', coalesce(block::text, 'null')
        using errcode = 'AP683', hint = 'From 1 to 1000; 24 keeps days whole. A seed is a number from 0.';
    end if;
    for v_asset in
        select distinct on (i.base) i.base, i.symbol
        from market.instruments i
        where correlation.symbol is null or correlation.symbol = '*'
            or i.base = sentiment._asset(correlation.symbol)
        order by i.base, (i.symbol = correlation.symbol) desc nulls last, i.priority, i.symbol
    loop
        -- The hour's mean is known at its end; the return is from there on.
        select jsonb_agg(m.mean order by g.at) into v_x
        from generate_series(v_from, v_as_of - interval '1 hour', interval '1 hour') g (at)
        left join (
            select b.bucket, (sum(b.score_sum) / nullif(sum(b.scored_count), 0))::double precision as mean
            from sentiment._between(v_asset.base, v_method, v_from, v_as_of, v_as_of) b
            group by b.bucket
        ) m on m.bucket = g.at;
        select jsonb_agg(ln(b.close / a.close) order by g.at) into v_y
        from generate_series(v_from, v_as_of - interval '1 hour', interval '1 hour') g (at)
        left join sentiment._closes(v_asset.symbol, v_from, v_as_of) a on a.hour = g.at + interval '1 hour'
        left join sentiment._closes(v_asset.symbol, v_from, v_as_of) b on b.hour = g.at + interval '2 hours';
        if v_x is not null then
            v_assets := v_assets || v_asset.base;
            v_sentiment := v_sentiment || jsonb_build_array(v_x);
            v_returns := v_returns || jsonb_build_array(v_y);
        end if;
    end loop;
    return query
    select c.* from sentiment._correlation(v_assets, v_sentiment, v_returns, array(select l from unnest(lags) as l), block, seed) c;
end
$$;
comment on function sentiment.correlation(text, double precision, timestamptz, text, integer [], integer, integer) is
'Correlation of an asset''s hourly mean sentiment with the log return of the hour that begins lag hours after its end, over the last hours (720) as known at as_of; null or *: every asset. r: Pearson''s; naive_p: its p-value as if hours were independent, which they are not; p: of 499 permutations of blocks of hours (24); q: p adjusted over all assets and lags (Benjamini and Hochberg 1995). Null where fewer than 24 hours have both. The same seed gives the same answer. Errors: AP101/AP102 symbol, AP673 hours, AP674 as_of, AP682 lags, AP683 block.';

create or replace function sentiment._influence(
    who text [], hour bigint [], score double precision [], horizon integer, seed integer
)
returns table (
    voice text, posts integer, lead double precision, p double precision, q double precision,
    weight double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import significance
    return significance.influence_rows(who, hour, score, horizon, seed)
$python$;
comment on function sentiment._influence(text [], bigint [], double precision [], integer, integer) is
'Leads of voices against circularly shifted surrogates.';

create or replace function sentiment.influence(
    symbol text, hours double precision default 720, as_of timestamptz default null,
    by text default 'author', method text default null, horizon integer default 3,
    seed integer default 1
)
returns table (
    voice text, posts integer, lead double precision, p double precision, q double precision,
    weight double precision
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 100
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
    v_from timestamptz := v_as_of - sentiment._hours(hours);
    v_asset text := sentiment._as_asset(symbol);
    v_method text := sentiment._method(method);
    v_who text [];
    v_hour bigint [];
    v_score double precision [];
begin
    if by is null or by not in ('author', 'source') then
        raise exception 'influence by % is not offered', coalesce(quote_literal(by), 'null')
        using errcode = 'AP684', hint = 'By author or source.';
    end if;
    if horizon is null or horizon < 1 or horizon > 168 or seed is null or seed < 0 then
        raise exception 'a horizon of % hours is not possible', coalesce(horizon::text, 'null')
        using errcode = 'AP685', hint = 'From 1 to 168.';
    end if;
    select
        array_agg(x.who order by x.ts, x.text_id), array_agg(x.hour order by x.ts, x.text_id),
        array_agg(x.score order by x.ts, x.text_id)
    into v_who, v_hour, v_score
    from (
        select
            case by when 'author' then s.author else s.source end as who, s.ts, s.text_id, s.score,
            floor(extract(epoch from s.ts) / 3600)::bigint as hour
        from sentiment.scores s
        where s.symbol = v_asset and s.method = v_method and s.ts >= v_from and s.ts < v_as_of
            and s.known_at <= v_as_of and s.score is not null
    ) x
    where x.who is not null;
    if v_who is null then
        return;
    end if;
    return query select i.* from sentiment._influence(v_who, v_hour, v_score, horizon, seed) i;
end
$$;
comment on function sentiment.influence(text, double precision, timestamptz, text, text, integer, integer) is
'Who says it before the others: by author or source, over the last hours (720) as known at as_of. lead: mean of the voice''s hourly score times what all others say over the next hours (horizon, 3) less over the hours before; p: share of 499 circular shifts of the voice with as great a lead; q: adjusted over all voices (Benjamini and Hochberg 1995); weight: the lead times posts / (posts + 20), and 0 for a voice of fewer than ten posts or with q above 0.05. Strongest first. Errors: AP101/AP102 symbol, AP673 hours, AP674 as_of, AP684 by, AP685 horizon.';
