-- The rows of a table as known at a time: those that had happened and were known, in the version
-- that held then. What a user's feature set reads in place of the table.
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.
do $do$
declare
    v_table text;
    v_columns text;
begin
    foreach v_table in array array[
        'candles', 'trades', 'order_book_snapshots', 'liquidation_events', 'funding_rates',
        'open_interest'
    ] loop
        select pg_catalog.string_agg(pg_catalog.format('r.%I', a.attname), ', ' order by a.attnum)
        into v_columns
        from pg_catalog.pg_attribute a
        where a.attrelid = ('market.' || v_table)::regclass and a.attnum > 0 and not a.attisdropped;
        execute pg_catalog.format(
            $sql$
            create or replace function market.%1$I(symbol text, "from" timestamptz, as_of timestamptz)
            returns setof market.%2$I
            language sql stable parallel safe rows 100
            as $$
                select %3$s
                from market.%2$I r
                where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $3
                union all
                select %3$s
                from market.%4$I r
                where r.symbol = $1 and r.ts >= $2 and r.ts < $3
                    and r.known_at <= $3 and r.superseded_at > $3
            $$
            $sql$,
            '_' || v_table || '_known', v_table, v_columns, v_table || '_history'
        );
    end loop;
end
$do$;
