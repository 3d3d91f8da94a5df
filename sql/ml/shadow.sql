-- Shadow predictions: what every version that plays a part says at every grid time, by the clock, so
-- that versions are compared on the same rows and nobody waits for it.

create or replace view ml.shadowed as
select
    v.version_id,
    v.model,
    v.symbol,
    v.regime,
    w.part,
    v.label,
    v.horizon,
    v.as_of,
    (v.spec #>> '{inputs,length}')::integer as length,
    s.set_id,
    s.grid
from (
    select
        p.version_id,
        min(p.part) as part
    from (
        select
            a.version_id,
            a.alias as part
        from ml.aliases as a
        union all
        select
            h.previous_version_id,
            'replaced'
        from ml.alias_history as h
        where
            h.alias = 'champion' and h.action in ('promote', 'rollback')
            and h.previous_version_id is not null
            and h.at > clock_timestamp() - ops.setting_interval('ml.shadow_after', interval '14 days')
    ) as p
    group by p.version_id
) as w
inner join ml.model_versions as v on w.version_id = v.version_id
inner join feature.sets as s on v.feature_set = s.name and v.feature_version = s.version
where v.archived_at is null;
comment on view ml.shadowed is
'The versions whose predictions the clock records: champions, challengers, shadows, and champions
replaced within ml.shadow_after (14 days), so that what a retraining was good for can be told.';

create or replace function ml._shadow(
    version_id bigint, set_id integer, symbol text, grid interval, length integer,
    "from" timestamptz, "to" timestamptz
)
returns table (ts timestamptz, prediction double precision)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
begin
    if length is not null then
        return query
            select to_timestamp(n.seconds), n.prediction
            from (
                select array_agg(extract(epoch from v.ts)::float8) as times
                from feature.vectors v
                where v.set_id = _shadow.set_id and v.symbol = _shadow.symbol
                    and v.ts >= "from" and v.ts < "to"
            ) q
            cross join lateral ml.score_sequences(
                version_id, set_id, symbol, q.times, extract(epoch from grid)::float8
            ) n
            where q.times is not null;
        return;
    end if;
    return query
        select u.ts, u.score
        from (
            select
                array_agg(v.ts) as times,
                ml.score_block(version_id, string_agg(array_send(v.values), ''::bytea)) as scores
            from feature.vectors v
            where v.set_id = _shadow.set_id and v.symbol = _shadow.symbol
                and v.ts >= "from" and v.ts < "to"
            group by public.time_bucket(grid * 4096, v.ts)
        ) p
        cross join lateral unnest(p.times, p.scores) as u (ts, score);
end
$$;
comment on function ml._shadow(bigint, integer, text, interval, integer, timestamptz, timestamptz) is
'What a version says of the vectors stored in [from, to).';

create or replace procedure ml.record_shadows(as_of timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_work record;
    v_until timestamptz;
    v_from timestamptz;
    v_most interval := ops.setting_interval('ml.shadow_backfill', interval '35 days');
begin
    for v_work in
        select w.*, m.symbol as instrument, m.through, p.through as recorded
        from ml.shadowed w
        join feature.watermarks m on m.set_id = w.set_id and (w.symbol is null or m.symbol = w.symbol)
        left join ml.shadow_progress p on p.version_id = w.version_id and p.symbol = m.symbol
        order by w.version_id, m.symbol
    loop
        v_until := least(v_work.through, as_of);
        -- What it was trained on proves nothing; labels of its last rows reach to its as_of.
        v_from := coalesce(v_work.recorded, greatest(v_work.as_of, v_until - v_most));
        continue when v_from >= v_until;
        insert into ml.shadow_predictions (version_id, symbol, ts, prediction)
        select v_work.version_id, v_work.instrument, s.ts, s.prediction
        from ml._shadow(
            v_work.version_id, v_work.set_id, v_work.instrument, v_work.grid, v_work.length,
            v_from, v_until
        ) s
        where s.prediction = s.prediction and abs(s.prediction) < 'infinity'
        on conflict do nothing;
        insert into ml.shadow_progress as p (version_id, symbol, since, through)
        values (v_work.version_id, v_work.instrument, v_from, v_until)
        on conflict on constraint shadow_progress_pkey do update set through = excluded.through;
    end loop;
end
$$;
comment on procedure ml.record_shadows(timestamptz) is
'For the clock: records what every version that plays a part (ml.shadowed) says of the vectors stored
since the last time, for each of its symbols; of a new version of those after its as_of, at most
ml.shadow_backfill (35 days) back. as_of: not of later grid times.';

-- Labels and predictions are many on both sides: hashed, whatever the planner believes of them.
create or replace procedure ml.join_shadow_outcomes(as_of timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
declare
    v_now timestamptz := ops._moment(as_of);
    v_todo record;
begin
    for v_todo in
        select
            p.symbol, v.label, s.grid, min(p.ts) as first_ts, max(p.ts) as last_ts,
            array_agg(distinct p.version_id) as versions
        from ml.shadow_predictions p
        join ml.model_versions v on v.version_id = p.version_id
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where p.target is null and p.ts > v_now - interval '40 days' and p.ts + v.horizon <= v_now
        group by p.symbol, v.label, s.grid
    loop
        update ml.shadow_predictions p
        set target = l.target, target_known_at = clock_timestamp()
        from ml.label_values(
            v_todo.label, v_todo.symbol, v_todo.first_ts, v_todo.last_ts + v_todo.grid, v_now,
            v_todo.grid
        ) l
        where p.version_id = any (v_todo.versions) and p.symbol = v_todo.symbol
            and p.ts = l.ts and p.target is null
            and p.ts between v_todo.first_ts and v_todo.last_ts;
    end loop;
end
$$;
comment on procedure ml.join_shadow_outcomes(timestamptz) is
'For the clock: writes what came about beside the shadow predictions of the last 40 days whose label
is known by as_of (default: now).';

create or replace function ml._spacing(version_id bigint)
returns interval
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select s.grid * greatest(1, ceil(extract(epoch from v.horizon) / extract(epoch from s.grid)))::integer
    from ml.model_versions v
    join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
    where v.version_id = $1
$$;
comment on function ml._spacing(bigint) is
'Time between two outcomes of a version that do not overlap: its horizon in whole grid steps.';
