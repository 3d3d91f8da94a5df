-- depends: 0211_kept_from 0220_serving_others
--
-- 0225: a run that is one statement of its session is over when that statement is, whatever the
-- session does next. A schedule's expected interval follows its cron expression.
alter table ops.runs add column call_started timestamptz;
comment on column ops.runs.call_started is
'When the statement began that the run is (ops.run), to tell a session that still runs it from one that has gone on to something else; null: a scheduler of one''s own says when it ends.';

create function ops._keep_interval() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if new.cron is distinct from old.cron and new.expected_interval = old.expected_interval then
        new.expected_interval := coalesce(ops.cron_interval(new.cron), new.expected_interval);
    end if;
    return new;
end
$$;
create trigger keep_interval before update on ops.schedules
for each row execute function ops._keep_interval();
