create or replace procedure market._create_aggregate(
    name text, source regclass, width interval, definition text
)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    insert into market.aggregates values (
        name, source, width, definition,
        current_setting('timescaledb.license', true) = 'timescale'
    );
    call market._make_rows(name);
end
$$;

drop function market._native_works();
