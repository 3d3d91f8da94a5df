-- What arrives waits to be scored, and what changes marks its hours.

create or replace function sentiment._queue_texts() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sentiment.unscored (text_id, ts) select n.text_id, n.ts from new_rows n;
    return null;
end
$$;

create or replace function sentiment._follow_texts() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    update sentiment.scores s
    set is_copy = n.duplicate_of is not null, weight = sentiment._weight(n.engagement),
        weight_known_at = n.engagement_known_at, novelty = n.novelty
    from new_rows n
    where s.text_id = n.text_id and s.ts = n.ts
        and (s.is_copy, s.weight, s.weight_known_at, s.novelty) is distinct from
            (n.duplicate_of is not null, sentiment._weight(n.engagement), n.engagement_known_at, n.novelty);
    return null;
end
$$;

create or replace function sentiment._forget_texts() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from sentiment.scores s using old_rows o where s.text_id = o.text_id and s.ts = o.ts;
    return null;
end
$$;

create or replace function sentiment._mark_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sentiment.hourly_marks (symbol, bucket)
    select distinct n.symbol, date_trunc('hour', n.ts, 'UTC') from new_rows n;
    -- Vectors that were stored before these were known here are void.
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select m.set_id, m.symbol, min(r.usable), least(max(r.ts) + interval '2 days', max(m.through)), 'scores'
    from (
        select x.symbol, x.ts, market.usable_at(interval '1 minute', x.ts, x.known_at) as usable
        from new_rows x
        where x.method = 'blend' and x.ts < (select max(w.through) from feature.watermarks w)
    ) r
    join market.instruments i on i.base = r.symbol
    join feature.sets s on s.kind = 'builtin' and s.definition = 'sentiment'
    join feature.watermarks m on m.set_id = s.set_id and m.symbol = i.symbol
    where r.usable < m.through
    group by m.set_id, m.symbol;
    return null;
end
$$;

create or replace function sentiment._mark_deleted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sentiment.hourly_marks (symbol, bucket)
    select distinct o.symbol, date_trunc('hour', o.ts, 'UTC') from old_rows o;
    -- Vectors that were stored before these were known here are void.
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select m.set_id, m.symbol, min(r.usable), least(max(r.ts) + interval '2 days', max(m.through)), 'scores'
    from (
        select x.symbol, x.ts, market.usable_at(interval '1 minute', x.ts, x.known_at) as usable
        from old_rows x
        where x.method = 'blend' and x.ts < (select max(w.through) from feature.watermarks w)
    ) r
    join market.instruments i on i.base = r.symbol
    join feature.sets s on s.kind = 'builtin' and s.definition = 'sentiment'
    join feature.watermarks m on m.set_id = s.set_id and m.symbol = i.symbol
    where r.usable < m.through
    group by m.set_id, m.symbol;
    return null;
end
$$;

create or replace function sentiment._store_terms() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sentiment.terms (version_id, term, weight, class_weights)
    select new.version_id, r.term, r.weight, r.class_weights
    from sentiment._rows_of(new.artifact) r;
    return null;
end
$$;

create or replace trigger store_terms after insert on ml.model_versions
for each row when (new.task = 'text') execute function sentiment._store_terms();
create or replace trigger queue_texts after insert on sentiment.texts
referencing new table as new_rows
for each statement execute function sentiment._queue_texts();
create or replace trigger follow_texts after update on sentiment.texts
referencing new table as new_rows
for each statement execute function sentiment._follow_texts();
create or replace trigger forget_texts after delete on sentiment.texts
referencing old table as old_rows
for each statement execute function sentiment._forget_texts();
create or replace trigger mark_inserted after insert on sentiment.scores
referencing new table as new_rows
for each statement execute function sentiment._mark_inserted();
create or replace trigger mark_updated after update on sentiment.scores
referencing new table as new_rows
for each statement execute function sentiment._mark_inserted();
create or replace trigger mark_deleted after delete on sentiment.scores
referencing old table as old_rows
for each statement execute function sentiment._mark_deleted();
