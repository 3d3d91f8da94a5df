-- The quickest way: by the key of a stored vector.
create or replace function ml.predict_stored(model text, symbol text, ts timestamptz)
returns table (
    prediction double precision, version_id bigint, trained_to timestamptz, in_sample boolean
)
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; every name is
    -- qualified. ml.serving is ml.champion's chain without regimes: one row serves a symbol.
    select
        ml.score_served(c.version_id, v.values), c.version_id, c.trained_to, v.ts < c.trained_to
    from ml.serving c
    join feature.valid_vectors v on v.set_id = c.set_id and v.symbol = $2 and v.ts = ops._within($3)
    where c.model = $1 and (c.symbol = $2 or c.symbol is null and $2 <> all (c.others))
$$;
comment on function ml.predict_stored(text, text, timestamptz) is
'What the champion of now (the symbol''s, else the pooled one) says of the vector stored at exactly (symbol, ts): the quickest way, inlined into the calling plan; symbol is the canonical one. in_sample: ts lies before trained_to, the end of the data the version was trained on. For models that take one vector, not a sequence. No row where no valid vector is stored (late rows void it until the next refresh) or no version promoted.';
