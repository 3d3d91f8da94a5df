-- Predictions mark when what was known of them changed, see analytics.refresh.
create or replace function analytics._note_outcome() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if new.outcome is null then
        new.outcome_known_at := null;
    elsif tg_op = 'INSERT' then
        new.outcome_known_at := greatest(coalesce(new.outcome_known_at, clock_timestamp()), new.created_at);
    elsif new.outcome is distinct from old.outcome then
        new.outcome_known_at := greatest(
            case when new.outcome_known_at is distinct from old.outcome_known_at
                then new.outcome_known_at else clock_timestamp() end,
            new.created_at
        );
    end if;
    return new;
end
$$;
comment on function analytics._note_outcome() is
'Notes when an outcome was written down, unless whoever writes it says so.';

create or replace function analytics._mark_known() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_times timestamptz [];
    v_hour timestamptz;
    v_until timestamptz;
begin
    if tg_op <> 'INSERT' then
        v_times := array[old.outcome_known_at];
    end if;
    if tg_op = 'UPDATE' and old.outcome is not null and new.outcome is distinct from old.outcome then
        v_until := coalesce(new.outcome_known_at, clock_timestamp());
        if v_until > old.outcome_known_at then
            insert into analytics.superseded_outcomes (
                prediction_id, as_of, model, symbol, version_id, regime, prediction, probability,
                outcome, known_at, superseded_at
            )
            values (
                old.prediction_id, old.as_of, old.model, old.symbol, old.version_id, old.regime,
                old.prediction, old.probability, old.outcome, old.outcome_known_at, v_until
            );
            v_times := v_times || v_until;
        end if;
    elsif tg_op = 'DELETE' and old.outcome_known_at is not null then
        -- What it had said before it was corrected goes with it.
        with gone as (
            delete from analytics.superseded_outcomes h
            where h.prediction_id = old.prediction_id
            returning h.known_at, h.superseded_at
        )
        select v_times || array_agg(t.at) into v_times
        from gone g
        cross join lateral (values (g.known_at), (g.superseded_at)) t (at);
    end if;
    if tg_op = 'DELETE' then
        v_times := v_times || old.created_at;
    else
        v_times := v_times || new.outcome_known_at;
        if tg_op = 'INSERT' then
            v_times := v_times || new.created_at;
        elsif (new.created_at, new.as_of, new.model, new.symbol, new.version_id, new.regime,
            new.is_fallback, new.prediction, new.probability, new.details ->> 'latency_ms')
            is distinct from (old.created_at, old.as_of, old.model, old.symbol, old.version_id,
            old.regime, old.is_fallback, old.prediction, old.probability, old.details ->> 'latency_ms')
        then
            v_times := v_times || old.created_at || new.created_at;
        end if;
    end if;
    foreach v_hour in array coalesce(v_times, '{}') loop
        continue when v_hour is null;
        v_hour := public.time_bucket(interval '1 hour', v_hour);
        -- A mark is relied on only while it is held: one that a refresh is taking away is not.
        if current_setting('transaction_isolation') = 'read committed' then
            perform from analytics.known_marks m where m.ts = v_hour limit 1 for key share skip locked;
            continue when found;
        end if;
        insert into analytics.known_marks (ts) values (v_hour);
    end loop;
    return null;
end
$$;
comment on function analytics._mark_known() is
'Marks the hours in which a prediction or its outcome became known, for analytics.refresh.';

create or replace function analytics._forget_sums() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from analytics.prediction_sums;
    delete from analytics.prediction_cells;
    delete from analytics.superseded_outcomes;
    delete from analytics.known_marks;
    return null;
end
$$;
comment on function analytics._forget_sums() is 'No predictions, no sums.';

create or replace trigger note_outcome before insert or update of outcome, outcome_known_at on ml.predictions
for each row execute function analytics._note_outcome();
create or replace trigger mark_known after insert or update or delete on ml.predictions
for each row execute function analytics._mark_known();
create or replace trigger forget_sums after truncate on ml.predictions
for each statement execute function analytics._forget_sums();
