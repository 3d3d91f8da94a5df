create or replace function market.usable_at(width interval, ts timestamptz, known_at timestamptz)
returns timestamptz
language sql immutable parallel safe
return greatest(
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
);
