-- The stored vectors that hold: late or corrected rows have not made them void.
create or replace view feature.valid_vectors as
select
    v.set_id,
    v.symbol,
    v.ts,
    v.values
from feature.vectors as v
where
    not exists (
        select from feature.pending as p
        where p.set_id = v.set_id and p.symbol = v.symbol and v.ts between p.ts_from and p.ts_to
    );
comment on view feature.valid_vectors is
'feature.vectors less those that rows which arrived late, or were corrected, can have changed (feature.pending): what every reader of stored vectors reads.';
comment on column feature.valid_vectors.set_id is 'The feature set.';
comment on column feature.valid_vectors.symbol is 'The canonical symbol.';
comment on column feature.valid_vectors.ts is 'The grid time as of which the vector is known.';
comment on column feature.valid_vectors.values is 'The vector, in the order of feature.sets.features; NaN where not knowable.';
