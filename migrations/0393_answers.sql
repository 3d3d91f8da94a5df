-- Answers where there were raw errors: a width or a time that cannot be.
-- depends: 0381_corporate_actions

create or replace function market.usable_at(width interval, ts timestamptz, known_at timestamptz)
returns timestamptz
language sql immutable parallel safe
return case
    when width > interval '0' and width <= interval '1 day'
        and ts > timestamptz '0100-01-01 00:00:00+00' and known_at > timestamptz '0100-01-01 00:00:00+00'
        and (ts < timestamptz '9999-01-01 00:00:00+00' or ts = 'infinity')
        and (known_at < timestamptz '9999-01-01 00:00:00+00' or known_at = 'infinity')
        then greatest(
            pg_catalog.to_timestamp(
                (pg_catalog.floor(
                    pg_catalog.date_part('epoch', ts - timestamptz '2000-01-01 00:00:00+00')
                    / pg_catalog.date_part('epoch', width)
                ) + 1) * pg_catalog.date_part('epoch', width) + 946684800
            ),
            pg_catalog.to_timestamp(
                pg_catalog.ceil(
                    pg_catalog.date_part('epoch', known_at - timestamptz '2000-01-01 00:00:00+00') / 60
                ) * 60 + 946684800
            )
        )
end;
comment on function market.usable_at(interval, timestamptz, timestamptz) is
'First whole minute (UTC) at which a row of time ts, known at known_at, can be used in a bucket of the given width: not before the bucket has closed, not before the row was known. width: whole minutes that divide a day; null for a width that is none, and outside of the years 100 to 9998.';
