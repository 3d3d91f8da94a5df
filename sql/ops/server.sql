-- The server under the database: disk, write-ahead log, replication.

create or replace function ops.disk_space(out free_bytes bigint, out total_bytes bigint)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $$
from alphaplus.server import disk
return disk.space()
$$;
comment on function ops.disk_space() is
'Bytes free and in all on the disk of the server''s data directory.';

create or replace function ops.server_health(at timestamptz default clock_timestamp())
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        case
            when d.free_bytes < 0.05 * d.total_bytes or d.free_bytes < 1e9 then 'red'
            when d.free_bytes < 0.10 * d.total_bytes or d.free_bytes < 5e9 then 'yellow'
            else 'green'
        end,
        'disk', 'data directory',
        format('%s of %s free', pg_size_pretty(d.free_bytes), pg_size_pretty(d.total_bytes))
    from ops.disk_space() d
    union all
    select
        case
            when a.last_failed_time > coalesce(a.last_archived_time, '-infinity') then 'red'
            else 'green'
        end,
        'wal', 'archiving',
        case
            when a.last_failed_time > coalesce(a.last_archived_time, '-infinity')
                then format('%s could not be archived at %s', a.last_failed_wal, a.last_failed_time)
            else format('last archived at %s', a.last_archived_time)
        end
    from pg_stat_archiver a
    where a.last_failed_time is not null or a.last_archived_time is not null
    union all
    select
        case
            when s.wal_status in ('unreserved', 'lost') then 'red'
            when not s.active then 'yellow'
            else 'green'
        end,
        'wal', 'slot ' || s.slot_name,
        format(
            '%s, keeps %s of log (%s)', case when s.active then 'in use' else 'nobody reads it' end,
            coalesce(pg_size_pretty(pg_wal_lsn_diff(p.here, s.restart_lsn)), 'nothing'),
            coalesce(s.wal_status, 'nothing reserved')
        )
    from pg_replication_slots s
    cross join (
        select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as here
    ) p
    union all
    select
        case
            when r.replay_lag > interval '10 minutes' then 'red'
            when r.replay_lag > interval '1 minute' or r.state <> 'streaming' then 'yellow'
            else 'green'
        end,
        'replication', coalesce(nullif(r.application_name, ''), r.pid::text),
        format('%s, %s; behind by %s', r.state, r.sync_state, coalesce(r.replay_lag, interval '0'))
    from pg_stat_replication r
    union all
    select
        case when x.ago > interval '10 minutes' then 'yellow' else 'green' end,
        'replication', 'this standby', format('the newest transaction it has is %s old', x.ago)
    from (select at - pg_last_xact_replay_timestamp() as ago) x
    where pg_is_in_recovery() and x.ago is not null
$$;
comment on function ops.server_health(timestamptz) is
'Room on the disk (red below 5 % or 1 GB), archiving, replication slots and what of the log they keep,
standbys and how far they are behind.';
