-- A set that fails for a symbol at a time stops no other: it is written down, seen in ops.health, and
-- tried again.

-- What failed while [start, stop) of some symbols was stored; the rest of it no longer fails.
create or replace function feature._note_errors(
    set_id integer, symbols text [], start bigint, stop bigint, of_symbols text [],
    times bigint [], states text [], messages text []
)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from feature.set_errors e
    where e.set_id = _note_errors.set_id and e.symbol = any (symbols)
        and e.ts >= ops._at(start) and e.ts < ops._at(stop)
        and not exists (
            select from unnest(of_symbols, times) as f (symbol, at)
            where f.symbol = e.symbol and ops._at(f.at) = e.ts
        );
    perform feature._note_error(_note_errors.set_id, f.symbol, ops._at(f.at), f.state, f.message)
    from unnest(of_symbols, times, states, messages) as f (symbol, at, state, message);
end
$$;

create or replace function feature._note_error(
    set_id integer, symbol text, ts timestamptz, sqlstate text, message text
)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into feature.set_errors as e (set_id, symbol, ts, sqlstate, message, retry_at)
    values ($1, $2, $3, $4, left($5, 2000), clock_timestamp() + interval '1 minute')
    on conflict on constraint set_errors_pkey do update
    set sqlstate = excluded.sqlstate, message = excluded.message, last_at = clock_timestamp(),
        attempts = e.attempts + 1,
        retry_at = clock_timestamp()
        + least(interval '1 minute' * power(2, least(e.attempts, 20)), interval '1 day')
$$;

create or replace function feature._set_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        case when max(e.attempts) > 1 then 'red' else 'yellow' end, 'set', s.name,
        format(
            'not computed at %s times of %s symbols, %s at %s of late: %s; next tried %s',
            count(*), count(distinct e.symbol), max(e.symbol), max(e.ts), max(e.message),
            min(e.retry_at)
        )
    from feature.set_errors e
    join feature.sets s on s.set_id = e.set_id
    where e.first_at <= $1
    group by s.name
$$;
comment on function feature._set_health(timestamptz) is
'Users'' sets that could not be computed at some times, red where they have been tried again.';
