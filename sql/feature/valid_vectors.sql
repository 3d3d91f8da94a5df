-- Which stored vectors may be read: the one place that knows. A row of the market that arrives late
-- or is corrected can change vectors that are stored already; feature.pending notes their times, and
-- until feature.refresh() has computed them anew they are void. Every reader goes through these two.
create or replace view feature.valid_vectors as
select
    v.set_id,
    v.symbol,
    v.ts,
    v.computed_at,
    v.values
from feature.vectors as v
where
    not exists (
        select from feature.pending as p
        where p.set_id = v.set_id and p.symbol = v.symbol and v.ts between p.ts_from and p.ts_to
    );
comment on view feature.valid_vectors is
'The stored vectors that equal what would be computed now: not those that late or corrected rows may
have changed (feature.pending). Whoever reads stored vectors reads them here; conditions on set_id,
symbol and ts reach the index of feature.vectors.';
comment on column feature.valid_vectors.set_id is 'The feature set, as in feature.sets.';
comment on column feature.valid_vectors.symbol is 'The canonical symbol.';
comment on column feature.valid_vectors.ts is 'The grid time at which the vector was known.';
comment on column feature.valid_vectors.computed_at is 'When it was computed.';
comment on column feature.valid_vectors.values is
'In the order of feature.sets.features; NaN where not knowable.';

create or replace view feature.valid_blocks as
select
    b.set_id,
    b.symbol,
    b.ts_from,
    b.ts_to,
    b.first_ts,
    b.last_ts,
    b.n,
    b.ts,
    b.vectors
from feature.vector_blocks as b
where
    not exists (
        select from feature.pending as p
        where
            p.set_id = b.set_id and p.symbol = b.symbol
            and p.ts_to >= b.ts_from and p.ts_from < b.ts_to
    );
comment on view feature.valid_blocks is
'The blocks of feature.vector_blocks of which every vector is valid, see feature.valid_vectors.';
comment on column feature.valid_blocks.set_id is 'The feature set, as in feature.sets.';
comment on column feature.valid_blocks.symbol is 'The canonical symbol.';
comment on column feature.valid_blocks.ts_from is 'Where the block begins, inclusive.';
comment on column feature.valid_blocks.ts_to is 'Where the block ends, exclusive.';
comment on column feature.valid_blocks.first_ts is 'The time of its first vector.';
comment on column feature.valid_blocks.last_ts is 'The time of its last vector.';
comment on column feature.valid_blocks.n is 'How many vectors it holds.';
comment on column feature.valid_blocks.ts is
'Their times: n little-endian int8, microseconds since 2000-01-01 UTC.';
comment on column feature.valid_blocks.vectors is
'Their values: n by k little-endian float8, row by row, k the number of the set''s features.';
