-- The store of distributions, kept up to date.
create or replace function drift._refresh(
    binning_id integer, symbol text, "from" bigint, "to" bigint
)
returns integer
language plpython3u volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import histograms
    return histograms.refresh(plpy, GD, binning_id, symbol, args[2], args[3])
$python$;
comment on function drift._refresh(integer, text, bigint, bigint) is
'Counts the hours between two times (microseconds since 2000, whole hours) anew.';

create or replace function drift._micros(ts timestamptz)
returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select (extract(epoch from ts) * 1000000)::bigint - 946684800000000
$$;
comment on function drift._micros(timestamptz) is 'Microseconds since 2000-01-01 UTC.';

create or replace function drift._hour(ts timestamptz)
returns timestamptz
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select public.time_bucket(interval '1 hour', ts)
$$;
comment on function drift._hour(timestamptz) is 'The start of the hour that a time lies in.';

-- Until when there is something to count.
create or replace function drift._countable(
    binning_id integer, symbol text, out since timestamptz, out through timestamptz
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_binning drift.binnings;
begin
    select * into v_binning from drift.binnings b where b.binning_id = _countable.binning_id;
    if v_binning.kind = 'features' then
        select min(v.ts) into since
        from feature.vectors v
        where v.set_id = v_binning.set_id and v.symbol = _countable.symbol;
        select m.through into through
        from feature.watermarks m
        where m.set_id = v_binning.set_id and m.symbol = _countable.symbol;
        if through is null then
            select max(v.ts) + s.grid into through
            from feature.sets s
            left join feature.vectors v on v.set_id = s.set_id and v.symbol = _countable.symbol
            where s.set_id = v_binning.set_id
            group by s.grid;
        end if;
        return;
    end if;
    select
        min(p.ts),
        case v_binning.kind
            when 'score' then max(p.ts)
            else coalesce(min(p.ts) filter (where p.target is null), max(p.ts))
        end
    into since, through
    from ml.shadow_predictions p
    where p.version_id = v_binning.version_id and p.symbol = _countable.symbol;
end
$$;
comment on function drift._countable(integer, text) is
'From when to when there are rows to count: stored vectors, predictions by the clock, or outcomes.';

create or replace view drift.binnings_in_use as
select distinct
    b.binning_id,
    b.kind,
    y.symbol
from ml.aliases as a
inner join drift.reference_features as r on a.version_id = r.version_id
inner join drift.binnings as b on r.binning_id = b.binning_id
inner join drift.version_references as v on a.version_id = v.version_id
cross join lateral unnest(v.symbols) as y (symbol);
comment on view drift.binnings_in_use is
'The sets of bins in whose histograms what is seen is counted: those of the references of versions
that have an alias, for each of their symbols.';

create or replace procedure drift.refresh_histograms()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_work record;
    v_reach record;
    v_kept drift.coverage;
    v_mark record;
    v_from timestamptz;
    v_to timestamptz;
    v_back interval := ops.setting_interval('drift.backfill', interval '35 days');
    v_seen bigint [] := array(select m.mark_id from drift.histogram_marks m);
begin
    for v_work in
        select u.binning_id, u.symbol, b.set_id
        from drift.binnings_in_use u
        join drift.binnings b on b.binning_id = u.binning_id
        order by b.set_id nulls last, u.symbol, u.binning_id
    loop
        if v_work.set_id is not null then
            -- Who stores vectors of it is waited for, and waits.
            perform ops._lock('feature.materialise:' || v_work.set_id || ':' || v_work.symbol);
        end if;
        select * into v_reach from drift._countable(v_work.binning_id, v_work.symbol);
        v_to := drift._hour(v_reach.through);
        select * into v_kept
        from drift.coverage c
        where c.binning_id = v_work.binning_id and c.symbol = v_work.symbol;
        if found then
            v_from := v_kept.through;
            for v_mark in
                select m.mark_id, m.ts_from, m.ts_to
                from drift.histogram_marks m
                where m.set_id = v_work.set_id and m.symbol = v_work.symbol
                    and m.ts_from < v_kept.through and m.ts_to >= v_kept.since
                order by m.ts_from
            loop
                perform drift._refresh(
                    v_work.binning_id, v_work.symbol,
                    drift._micros(greatest(v_kept.since, drift._hour(v_mark.ts_from))),
                    drift._micros(least(v_kept.through, drift._hour(v_mark.ts_to) + interval '1 hour'))
                );
            end loop;
        else
            v_from := drift._hour(greatest(v_reach.since, v_reach.through - v_back));
        end if;
        continue when v_from is null or v_to is null or v_from >= v_to;
        perform drift._refresh(
            v_work.binning_id, v_work.symbol, drift._micros(v_from), drift._micros(v_to)
        );
        insert into drift.coverage as c (binning_id, symbol, since, through)
        values (v_work.binning_id, v_work.symbol, v_from, v_to)
        on conflict (binning_id, symbol) do update set through = excluded.through;
    end loop;
    -- Marks of a set are done when each of its binnings in use has counted them.
    delete from drift.histogram_marks m
    where m.mark_id = any (v_seen) and exists (
        select from drift.binnings_in_use u
        join drift.binnings b on b.binning_id = u.binning_id
        where b.set_id = m.set_id and u.symbol = m.symbol
    );
    -- What is no longer counted is not covered either: it would be, with a hole.
    delete from drift.coverage c
    where not exists (
        select from drift.binnings_in_use u
        where u.binning_id = c.binning_id and u.symbol = c.symbol
    );
end
$$;
comment on procedure drift.refresh_histograms() is
'For the clock: counts the hours that are over since the last time, and those whose stored vectors
changed since, in the bins of every version that has an alias, and merges their days and 30 days. A
binning that is new is counted back drift.backfill (35 days).';
