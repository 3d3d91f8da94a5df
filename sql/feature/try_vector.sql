-- For queries over many symbols and times, of which one that cannot be answered must not end all.
create or replace function feature.try_vector(
    feature_set text, symbol text, as_of timestamptz default null, version integer default null
)
returns table (canonical text, ts timestamptz, vector double precision [], reason text)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
begin
    return query
        select
            r.canonical, r.ts, r.vector,
            case
                when not exists (select from unnest(r.vector) x where x <> 'NaN')
                    then 'no feature is known'
            end
        from feature._row($1, $4, $2, $3) r;
exception when others then
    if sqlstate !~ '^AP' then
        raise;
    end if;
    return query select $2, null::timestamptz, null::double precision [], ml._plain(sqlerrm);
end
$$;
comment on function feature.try_vector(text, text, timestamptz, integer) is
'feature.vector where one symbol or time that cannot be answered must not end the query: always one row. canonical: the symbol; ts: the grid time, the last not after as_of (default: now); vector: in the order of feature.sets.features, NaN where not knowable; reason: why nothing is known, null otherwise. What feature.vector refuses (an unknown symbol or feature set, an infinite time) is a row of nulls with the symbol as given and the reason in words. Errors: none of AlphaPlus''s own.';
