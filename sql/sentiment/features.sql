-- Scores row by row, for the feature set sentiment.

-- Fields, eight bytes each: ts, known_at (microseconds since 2000-01-01 UTC), score and novelty (NaN
-- where there is none), 1 for a copy, place of the source among twitter, reddit, news, telegram, other.
create or replace function sentiment._score_rows(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select string_agg(
        feature._bytes(array[
            feature._bits(s.ts), feature._bits(s.known_at), coalesce(s.score, 'NaN'),
            coalesce(s.novelty, 'NaN'), case when s.is_copy then 1 else 0 end,
            coalesce(array_position(array['twitter', 'reddit', 'news', 'telegram'], s.source), 5) - 1
        ], 21),
        ''::bytea order by s.ts, s.text_id
    )
    from sentiment.scores s
    where s.symbol = (select i.base from market.instruments i where i.symbol = $1)
        and s.method = 'blend' and s.ts >= $2 and s.ts < $3
$$;
comment on function sentiment._score_rows(text, timestamptz, timestamptz) is
'The scores (method blend) of a symbol''s asset with texts of [from, to), one after the other as they lie in memory: what the feature set sentiment reads.';
