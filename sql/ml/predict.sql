-- Predicting reads and never writes: choose the versions in SQL, score them in one call.
-- The symbol's regime: where it is kept (regime.refresh), or a champion of its own regime may have to
-- answer; computing it for everybody would take longer than predicting.
create or replace function ml._regime(symbol text, as_of timestamptz) returns text
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from regime.watermarks w where w.symbol = $1)
        and not exists (
            select from ml.aliases a where a.symbol = $1 and a.regime is not null
        ) then
        return null;
    end if;
    return (select c.regime from regime.classify(symbol, as_of) c);
exception when others then
    if sqlstate like 'AP%' then
        return null;
    end if;
    raise;
end
$$;

-- The newest market row behind a vector: current rows and those that were corrected or deleted
-- since, as known then. Within the stretch first: a lower bound lets all but the last chunks be
-- left out, which is most of the time this takes on a long history.
create or replace function ml._data_until(
    symbol text, grid interval, ts timestamptz, within interval
)
returns timestamptz
language plpgsql stable parallel safe
-- Planned for the values at hand, or each chunk would be looked at.
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
set timezone = 'UTC' -- a day of timeframe or grid is 24 hours
as $$
declare
    v_trades timestamptz;
    v_candles timestamptz;
    v_closed timestamptz := ts - grid;
    v_from timestamptz;
begin
    foreach v_from in array array[ts - within, timestamptz '-infinity'] loop
        select c.ts + c.timeframe into v_candles
        from market.candles c
        where c.symbol = _data_until.symbol and c.timeframe = grid
            and c.known_at <= _data_until.ts and c.ts <= v_closed
            and c.ts > case when v_from = '-infinity' then v_from else v_from - grid end
        order by c.ts desc limit 1;
        -- No trade before ts is newer than a bar that closed at ts.
        exit when v_candles = ts;
        select t.ts into v_trades
        from market.trades t
        where t.symbol = _data_until.symbol and t.known_at <= _data_until.ts
            and t.ts < _data_until.ts and t.ts > v_from
        order by t.ts desc limit 1;
        v_trades := greatest(v_trades, ml._superseded_until(symbol, grid, ts, v_from));
        exit when coalesce(v_trades, v_candles) is not null;
        v_trades := ml._other_data_until(symbol, grid, ts, v_from);
        exit when v_trades is not null;
    end loop;
    return greatest(v_trades, v_candles);
end
$$;

-- The same of rows that were corrected or deleted since.
create or replace function ml._superseded_until(
    symbol text, grid interval, ts timestamptz, after timestamptz
)
returns timestamptz
language plpgsql stable parallel safe
-- One plan for all values, by index: these are plain tables, most often empty.
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off set timezone = 'UTC'
as $$
begin
    return greatest(
        (
            select h.ts + h.timeframe
            from market.candles_history h
            where h.symbol = $1 and h.timeframe = $2 and h.known_at <= $3 and h.superseded_at > $3
                and h.ts <= $3 - $2
                and h.ts > case when $4 = '-infinity' then $4 else $4 - $2 end
            order by h.ts desc limit 1
        ),
        (
            select h.ts
            from market.trades_history h
            where h.symbol = $1 and h.known_at <= $3 and h.superseded_at > $3
                and h.ts < $3 and h.ts > $4
            order by h.ts desc limit 1
        )
    );
end
$$;

-- The same of what has neither bars of the grid nor trades there: shorter bars, trades that were
-- dropped and are kept as minutes, books, and the slower feeds.
create or replace function ml._other_data_until(
    symbol text, grid interval, ts timestamptz, after timestamptz
)
returns timestamptz
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
set timezone = 'UTC'
as $$
declare
    v_before timestamptz := case
        when after = '-infinity' then after else public.time_bucket(interval '1 minute', after)
    end;
    v_found timestamptz;
begin
    select max(u.ts) into v_found
    from (
        (
            select c.ts + c.timeframe as ts
            from market.candles c
            where c.symbol = $1 and c.timeframe = interval '1 minute' and $2 > interval '1 minute'
                and c.known_at <= $3 and c.ts <= $3 - interval '1 minute' and c.ts >= v_before
            order by c.ts desc limit 1
        )
        union all
        (
            select h.ts + h.timeframe
            from market.candles_history h
            where h.symbol = $1 and h.timeframe = interval '1 minute' and $2 > interval '1 minute'
                and h.known_at <= $3 and h.superseded_at > $3
                and h.ts <= $3 - interval '1 minute' and h.ts >= v_before
            order by h.ts desc limit 1
        )
        union all
        (
            select a.last_ts
            from market._trades_1m a
            where a.symbol = $1 and a.bucket < $3 and a.bucket >= v_before
                and a.usable_at <= $3
            order by a.bucket desc limit 1
        )
    ) u;
    if v_found is not null then
        return v_found;
    end if;
    return (
        select max(u.ts)
        from (
            (
                select b.ts from market.order_book_snapshots b
                where b.symbol = $1 and b.known_at <= $3 and b.ts < $3 and b.ts > $4
                order by b.ts desc limit 1
            )
            union all
            (
                select b.ts from market.order_book_snapshots_history b
                where b.symbol = $1 and b.known_at <= $3 and b.superseded_at > $3
                    and b.ts < $3 and b.ts > $4
                order by b.ts desc limit 1
            )
            union all
            (
                select a.last_ts
                from market._book_1m a
                where a.symbol = $1 and a.bucket < $3 and a.bucket >= v_before
                    and a.usable_at <= $3
                order by a.bucket desc limit 1
            )
            union all
            (
                select e.ts from market.liquidation_events e
                where e.symbol = $1 and e.known_at <= $3 and e.ts < $3 and e.ts > $4
                order by e.ts desc limit 1
            )
            union all
            (
                select e.ts from market.liquidation_events_history e
                where e.symbol = $1 and e.known_at <= $3 and e.superseded_at > $3
                    and e.ts < $3 and e.ts > $4
                order by e.ts desc limit 1
            )
            union all
            (
                select r.ts from market.funding_rates r
                where r.symbol = $1 and r.known_at <= $3 and r.ts <= $3 and r.ts > $4
                order by r.ts desc limit 1
            )
            union all
            (
                select o.ts from market.open_interest o
                where o.symbol = $1 and o.known_at <= $3 and o.ts <= $3 and o.ts > $4
                order by o.ts desc limit 1
            )
        ) u
    );
end
$$;

-- The rows of a sequence one after the other, oldest first, ending at ts; null where one is not
-- stored, or not valid.
create or replace function ml._stored_sequence(
    set_id integer, symbol text, ts timestamptz, grid interval, length integer
)
returns double precision []
language sql stable parallel safe set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
    select case when count(distinct q.ts) = $5 then array_agg(q.x order by q.ts, q.i) end
    from (
        select v.ts, e.x, e.i
        from feature.valid_vectors v
        cross join lateral unnest(v.values) with ordinality as e (x, i)
        where v.set_id = $1 and v.symbol = $2 and v.ts > $3 - $4 * $5 and v.ts <= $3
    ) q
$$;

-- As _stored_sequence, computing what is not stored; null across a gap.
create or replace function ml._sequence(
    set_id integer, symbol text, ts timestamptz, grid interval, length integer
)
returns double precision []
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_set feature.sets;
    v_found double precision [] := ml._stored_sequence(set_id, symbol, ts, grid, length);
    v_rows integer;
begin
    if v_found is null then
        select s.* into strict v_set from feature.sets s where s.set_id = _sequence.set_id;
        if feature._retired(v_set) then
            return null;
        end if;
        select array_agg(e.x order by h.ts, e.i), count(distinct h.ts) into v_found, v_rows
        from feature._history(
            v_set.name, v_set.version, symbol, ts - grid * (length - 1), ts + grid
        ) h
        cross join lateral unnest(h.vector) with ordinality as e (x, i);
        if v_rows is distinct from length then
            v_found := null;
        end if;
    end if;
    return v_found;
end
$$;

-- What several versions say of a symbol at a time, in no order, each of the vector or sequence of
-- the set it was trained on at the last grid time: each set is read once, those that have to be
-- computed together. Whatever keeps one version from answering is its problem, not the others'.
create or replace function ml._score_at(version_ids bigint [], symbol text, as_of timestamptz)
returns setof ml.scored
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set constraint_exclusion = off
rows 1
as $$
declare
    v_all ml.scored [];
    v_lengths integer [] := array[]::integer [];
    v_widths integer [] := array[]::integer [];
    v_sizes integer [] := array[]::integer [];
    v_vectors double precision [] := array[]::double precision [];
    v_sets integer [] := array[]::integer [];
    v_set_widths integer [] := array[]::integer [];
    v_retired boolean [] := array[]::boolean [];
    v_grids interval [];
    v_computed double precision [];
    v_features double precision [];
    v_scores record;
    v_set feature.sets;
    v_at integer;
begin
    -- The order of the versions: those of one set together, the longest sequence first.
    select
        array_agg(
            row(
                q.version_id, null, null, null, null, null, null, null, null, null, null,
                q.set_id, q.feature_as_of, q.symbol, q.regime, q.version, q.expires_at, q.trained_to
            )::ml.scored order by q.set_id, q.length desc nulls last, q.version_id
        ),
        array_agg(q.length order by q.set_id, q.length desc nulls last, q.version_id),
        array_agg(q.width order by q.set_id, q.length desc nulls last, q.version_id),
        array_agg(q.retired order by q.set_id, q.length desc nulls last, q.version_id),
        array_agg(q.grid order by q.set_id, q.length desc nulls last, q.version_id)
    into v_all, v_lengths, v_widths, v_retired, v_grids
    from (
        select
            v.version_id, v.symbol, v.regime, v.version, least(v.as_of, v.train_to + v.horizon) + v.expires_after as expires_at,
            least(v.as_of, v.train_to + v.horizon) as trained_to,
            (v.spec #>> '{inputs,length}')::integer as length, s.set_id, s.grid,
            cardinality(s.features) as width, feature._retired(s) as retired,
            public.time_bucket(s.grid, _score_at.as_of) as feature_as_of
        from ml.model_versions v
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where v.version_id = any (_score_at.version_ids)
    ) q;
    if v_all is null then
        return;
    end if;
    -- Several sets to compute: together.
    select array_agg(d.set_id order by d.set_id), array_agg(d.width order by d.set_id)
    into v_sets, v_set_widths
    from (
        select distinct (v_all[i]).set_id as set_id, v_widths[i] as width
        from generate_subscripts(v_all, 1) i
        where v_lengths[i] is null and not v_retired[i]
    ) d;
    if cardinality(v_sets) > 1 then
        begin
            v_computed := (
                select feature._compute_many(
                    array_agg(s.set_id order by s.set_id),
                    array_agg(feature._source(s) order by s.set_id),
                    _score_at.symbol,
                    array_agg(ops._micros(public.time_bucket(s.grid, as_of)) order by s.set_id)
                )
                from feature.sets s
                where s.set_id = any (v_sets)
            );
        exception when others then
            v_computed := null; -- one by one, to see whose fault it is
        end;
    end if;
    for i in 1 .. cardinality(v_all) loop
        v_features := null;
        begin
            if v_lengths[i] is not null then
                if i > 1 and (v_all[i - 1]).set_id = (v_all[i]).set_id
                    and v_lengths[i - 1] is not null and (v_all[i - 1]).features is not null then
                    v_features := (v_all[i - 1]).features;
                    v_features := v_features[
                        cardinality(v_features) - v_lengths[i] * v_widths[i] + 1 :];
                else
                    v_features := ml._sequence(
                        (v_all[i]).set_id, symbol, (v_all[i]).feature_as_of, v_grids[i], v_lengths[i]
                    );
                end if;
            elsif v_retired[i] then
                v_features := feature._stored((v_all[i]).set_id, symbol, (v_all[i]).feature_as_of);
            elsif i > 1 and (v_all[i - 1]).set_id = (v_all[i]).set_id
                and v_lengths[i - 1] is null then
                v_features := (v_all[i - 1]).features;
            elsif v_computed is not null then
                v_at := array_position(v_sets, (v_all[i]).set_id);
                v_at := (
                    select coalesce(sum(w.width), 0) from unnest(v_set_widths[: v_at - 1]) w (width)
                );
                v_features := v_computed[v_at + 1 : v_at + v_widths[i]];
            else
                select s.* into strict v_set from feature.sets s where s.set_id = (v_all[i]).set_id;
                v_features := feature.vector(
                    v_set.name, symbol, (v_all[i]).feature_as_of, v_set.version
                );
            end if;
            if v_features is null then
                v_all[i].problem := case
                    when v_retired[i] then (
                        select format(
                            'version %s of feature set %s is no longer computed', s.version, s.name
                        )
                        from feature.sets s where s.set_id = (v_all[i]).set_id
                    )
                    when v_lengths[i] is not null
                        then format('a gap in the last %s vectors', v_lengths[i])
                    else 'its vector is not known'
                end;
            end if;
        exception when others then
            -- Asked for alone, its errors are the caller's.
            if cardinality(v_all) = 1 then
                raise;
            end if;
            v_all[i].problem := ml._plain(sqlerrm);
        end;
        v_all[i].features := v_features;
        v_sizes[i] := coalesce(cardinality(v_features), 0);
        if cardinality(v_all) = 1 then
            v_vectors := v_features;
        elsif v_features is not null then
            v_vectors := v_vectors || v_features;
        end if;
    end loop;
    for v_scores in
        select s.*, g.i
        from (
            select
                array_agg((v_all[i]).version_id order by i) as ids,
                array_agg(v_sizes[i] order by i) as lengths
            from generate_subscripts(v_all, 1) i
            where (v_all[i]).problem is null
        ) q
        cross join lateral ml.score_versions(q.ids, v_vectors, q.lengths) s
        join generate_subscripts(v_all, 1) g (i) on (v_all[g.i]).version_id = s.version_id
        where q.ids is not null
    loop
        v_all[v_scores.i].raw := v_scores.raw;
        v_all[v_scores.i].prediction := v_scores.prediction;
        v_all[v_scores.i].confidence := v_scores.confidence;
        v_all[v_scores.i].lower := v_scores.lower;
        v_all[v_scores.i].upper := v_scores.upper;
        v_all[v_scores.i].distance := v_scores.distance;
        v_all[v_scores.i].missing_share := v_scores.missing_share;
        v_all[v_scores.i].missing := v_scores.missing;
        v_all[v_scores.i].problem := v_scores.problem;
    end loop;
    return query select s.* from unnest(v_all) s;
end
$$;

-- A message as its author wrote it, without what PL/Python puts before it.
create or replace function ml._plain(message text) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return regexp_replace(
    message,
    '^(error fetching next item from iterator\s*)?((AP[0-9]{3}|plpy|spiexceptions)(\.[A-Za-z]+)?: )+', ''
);

-- What models say of a symbol at a time, one row for each, all scored in one call. version: the one
-- to ask, whatever it was trained on; of one model only.
create or replace function ml._answers(
    models text [], symbol text, as_of timestamptz, version bigint
)
returns setof ml.served
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set constraint_exclusion = off
set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'
rows 1
as $$
declare
    v_canonical constant text := market.resolve(symbol);
    v_ask constant timestamptz := coalesce(as_of, now());
    v_most constant interval := ops.setting_interval('ml.max_staleness', interval '1 hour');
    v_limit constant double precision :=
        ops.setting_text('ml.max_missing_share', '0.5')::double precision;
    v_names text [];
    v_labels text [];
    v_tasks text [];
    v_horizons interval [];
    v_grids interval [];
    v_sets integer [];
    v_chain bigint [] := array[]::bigint [];
    v_chain_model integer [] := array[]::integer [];
    v_how text [] := array[]::text [];
    v_refused text [] := array[]::text [];
    v_found record;
    v_grid interval;
    v_regime text;
    v_until timestamptz;
    v_scored ml.scored [];
    v_score ml.scored;
    v_out ml.served;
    v_a ml.answer;
    v_policies text [];
    v_policy text;
    v_why text;
    v_gone boolean;
begin
    select
        array_agg(m.model order by u.i), array_agg(m.label order by u.i),
        array_agg(l.task order by u.i), array_agg(l.horizon order by u.i),
        array_agg(s.grid order by u.i), array_agg(s.set_id order by u.i)
    into v_names, v_labels, v_tasks, v_horizons, v_grids, v_sets
    from unnest(models) with ordinality as u (model, i)
    join ml.models m on m.model = u.model
    join ml.labels l on l.label = m.label
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version;
    if v_names is distinct from models then
        raise exception 'unknown model %', coalesce((
            select quote_literal(u.model) from unnest(models) as u (model)
            where u.model <> all (coalesce(v_names, '{}')) limit 1
        ), 'null')
        using errcode = 'AP302', hint = 'List them with: select model, label from ml.models';
    end if;
    -- Times of which nobody has data are not counted with.
    if v_ask not between timestamptz '1800-01-01 00:00:00+00' and timestamptz '2500-01-01 00:00:00+00' then
        raise exception 'no data for % at %', v_canonical, v_ask
        using errcode = 'AP506', detail = case
            when v_ask < timestamptz '1800-01-01 00:00:00+00' then 'No row was known then.'
            else 'That is further ahead than the newest row may be old.'
        end,
        hint = case
            when v_ask < timestamptz '1800-01-01 00:00:00+00'
                then 'Load data for the symbol first: alphaplus load'
            else 'Ask as of a time that has data.'
        end;
    end if;
    for i in 1 .. cardinality(v_names) loop
        if v_grids[i] is distinct from v_grid then
            v_grid := v_grids[i];
            v_until := greatest(v_until, ml._data_until(
                v_canonical, v_grid, public.time_bucket(v_grid, v_ask), v_most + v_grid
            ));
        end if;
    end loop;
    v_grid := (select max(g.grid) from unnest(v_grids) g (grid));
    if v_until is null or v_ask - v_until > v_most + v_grid then
        raise exception 'no data for % at %', v_canonical, v_ask
        using errcode = 'AP506',
        detail = case
            when v_until is null then 'No row was known then.'
            else format('The newest row known then is of %s.', v_until)
        end,
        hint = case
            when v_until is null then ml._data_hint(v_canonical)
            else format(
                'Ask as of a time that has data: as_of => %L; or raise the setting ml.max_staleness.',
                v_until
            )
        end;
    end if;
    v_regime := ml._regime(v_canonical, public.time_bucket(v_grids[1], v_ask));
    for i in 1 .. cardinality(v_names) loop
        if version is not null then
            perform from ml.model_versions v
            where v.version_id = _answers.version and v.model = v_names[i]
                and (v.symbol is null or v.symbol = v_canonical);
            if not found then
                raise exception 'version % is no version of model % for %', version, v_names[i], v_canonical
                using errcode = 'AP511',
                hint = format(
                    'List them with: select version_id, symbol, trained_to from ml.registry where model = %L',
                    v_names[i]
                );
            end if;
            v_chain := v_chain || version;
            v_chain_model := v_chain_model || i;
            v_how := v_how || 'asked for'::text;
            continue;
        end if;
        v_found := ml._candidates(v_names[i], v_canonical, v_regime, as_of);
        v_refused[i] := v_found.refused;
        if cardinality(v_found.version_ids) > 0 then
            v_chain := v_chain || v_found.version_ids;
            v_how := v_how || v_found.chosen;
            v_chain_model := v_chain_model
                || array_fill(i, array[cardinality(v_found.version_ids)]);
        end if;
    end loop;
    -- The first of each model, in one call.
    if cardinality(v_chain) > 0 then
        v_scored := array(
            select s
            from ml._score_at(
                array(
                    select v_chain[c] from generate_subscripts(v_chain, 1) c
                    where c = array_position(v_chain_model, v_chain_model[c])
                ),
                v_canonical, v_ask
            ) s
        );
    end if;
    for i in 1 .. cardinality(v_names) loop
        v_a := null;
        v_out := null;
        v_a.symbol := v_canonical;
        v_a.as_of := v_ask;
        v_a.model := v_names[i];
        v_a.horizon := v_horizons[i];
        v_a.regime := v_regime;
        v_a.staleness := v_ask - v_until;
        v_a.staleness_s := date_part('epoch', v_ask - v_until);
        v_a.expired := false;
        v_a.in_sample := false;
        v_a.is_fallback := true;
        -- From the narrowest partition's version to the pooled one, until one may answer.
        for c in 1 .. cardinality(v_chain) loop
            continue when v_chain_model[c] <> i;
            v_score := null;
            select s.* into v_score from unnest(v_scored) s where s.version_id = v_chain[c];
            if not found then
                select s.* into v_score from ml._score_at(array[v_chain[c]], v_canonical, v_ask) s;
            end if;
            v_why := null;
            v_policy := 'flag';
            v_gone := false;
            v_out.vector_set := v_score.set_id;
            v_a.feature_as_of := v_score.feature_as_of;
            v_a.out_of_support := null;
            if v_score.problem is not null then
                v_why := case
                    when v_score.features is null then v_score.problem
                    else format('version %s: %s', v_chain[c], v_score.problem)
                end;
                v_policy := 'fallback';
            else
                v_a.expired := coalesce(v_ask > v_score.expires_at, false);
                v_gone := v_score.prediction is null or v_score.missing_share > v_limit;
                v_a.out_of_support := case when v_gone then true else v_score.distance > 1 end;
                if v_a.expired or v_a.out_of_support then
                    v_why := case
                        when v_a.expired
                            then format('version %s expired at %s', v_chain[c], v_score.expires_at)
                        when v_score.prediction is null then 'no feature is known'
                        when v_gone then format(
                            '%s features are not known, %s %% of those usually known',
                            v_score.missing, round(100 * v_score.missing_share)
                        )
                        else format(
                            'the vector is %s times the training threshold away',
                            round(v_score.distance::numeric, 2)
                        )
                    end;
                    -- Where several hold, the strictest.
                    v_policies := array[
                        case when v_a.expired then ops.setting_text('ml.expired_policy', 'flag') end,
                        case when v_score.distance > 1
                            then ops.setting_text('ml.out_of_support_policy', 'flag') end,
                        case when v_gone then ops.setting_text('ml.missing_policy', 'null') end,
                        case when v_score.prediction is null then 'null' end
                    ];
                    v_policy := case
                        when 'fallback' = any (v_policies) then 'fallback'
                        when 'null' = any (v_policies) then 'null'
                        else 'flag'
                    end;
                    v_a.reason := coalesce(v_a.reason, v_why);
                end if;
            end if;
            v_a.missing_share := v_score.missing_share;
            if v_policy <> 'fallback' then
                v_a.version_id := v_chain[c];
                v_a.version_number := v_score.version_number;
                v_a.chosen := v_how[c];
                v_a.trained_to := v_score.trained_to;
                v_a.in_sample := v_ask < v_score.trained_to;
                v_a.is_fallback := v_a.expired
                    or array_position(v_chain_model, i) < c;
                v_a.partition_used := case
                    when v_score.regime is not null then 'symbol and regime'
                    when v_score.symbol is not null then 'symbol'
                    else 'pooled'
                end;
                v_out.features := v_score.features;
                if v_score.features is not null and v_policy = 'flag' then
                    v_a.prediction := v_score.prediction;
                    v_a.confidence := v_score.confidence;
                    v_a.lower := v_score.lower;
                    v_a.upper := v_score.upper;
                end if;
                exit;
            end if;
            v_a.reason := coalesce(v_a.reason, v_why);
        end loop;
        if v_a.version_id is null then
            v_a.feature_as_of := public.time_bucket(v_grids[i], v_ask);
            v_out.vector_set := v_sets[i];
            v_a.partition_used := 'base rate';
            v_a.chosen := 'base rate';
            v_a.missing_share := null;
            v_a.reason := coalesce(
                v_a.reason,
                v_refused[i] || '; no version''s training had ended by then',
                'no promoted version'
            );
            v_a.prediction := ml._base_rate(
                v_labels[i], v_canonical, v_grids[i], v_a.feature_as_of
            );
            if v_a.prediction is null then
                v_a.reason := v_a.reason || '; no outcome known yet to take a base rate from';
            end if;
        end if;
        if v_tasks[i] = 'classification' then
            v_a.probability := v_a.prediction;
        end if;
        v_out.answer := v_a;
        v_out.task := v_tasks[i];
        v_out.label := v_labels[i];
        return next v_out;
    end loop;
end
$$;

-- What to do where nothing of a symbol was known: load it, or ask later.
create or replace function ml._data_hint(symbol text) returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY'
as $$
declare
    v_first timestamptz;
begin
    select min(u.ts) into v_first
    from (
        (select t.ts from market.trades t where t.symbol = $1 order by t.ts limit 1)
        union all
        (select c.ts from market.candles c where c.symbol = $1 order by c.ts limit 1)
        union all
        (select b.ts from market.order_book_snapshots b where b.symbol = $1 order by b.ts limit 1)
    ) u;
    return case
        when v_first is null then 'Load data for the symbol first: alphaplus load'
        else format('Its rows begin at %s: ask as of a later time.', v_first)
    end;
end
$$;

-- An answer whose vector lies over a hole of the live record: what then happens is set.
create or replace function ml._over_gaps(served ml.served) returns ml.served
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, MDY'
as $$
declare
    v_a ml.answer := served.answer;
    v_policy text := ops.setting_text('ml.gap_policy', 'flag');
    v_why text;
begin
    select
        'incomplete: ' || string_agg(
            format('%s are missing from %s to %s', g.channel, g.from_ts, coalesce(g.to_ts::text, 'now')),
            '; ' order by g.from_ts
        )
    into v_why
    from feature.sets s
    cross join lateral (
        select x.* from market.gaps_over(
            v_a.symbol, v_a.feature_as_of - greatest(s.lookback, s.grid), v_a.feature_as_of, v_a.as_of
        ) x limit 3
    ) g
    where s.set_id = served.vector_set;
    if v_why is null then
        return served;
    end if;
    if v_policy = 'refuse' then
        raise exception 'the record of % is %', v_a.symbol, v_why
        using errcode = 'AP930',
            hint = 'See market.gaps; the setting ml.gap_policy (flag, null, refuse) says what then happens.';
    end if;
    v_a.reason := v_why || coalesce('; ' || v_a.reason, '');
    if v_policy = 'null' then
        v_a.prediction := null;
        v_a.probability := null;
        v_a.confidence := null;
        v_a.lower := null;
        v_a.upper := null;
    end if;
    served.answer := v_a;
    return served;
end
$$;

-- ml._answers with its errors in plain words, or, on_error null, as a null with a reason.
create or replace function ml._serve(
    models text [], symbol text, as_of timestamptz, version bigint default null,
    on_error text default 'error'
)
returns setof ml.served
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
declare
    v_state text;
    v_message text;
    v_detail text;
    v_hint text;
    v_out ml.served;
    v_a ml.answer;
    v_model text;
begin
    if on_error is null or on_error not in ('error', 'null') then
        raise exception 'on_error is %, it must be error or null', coalesce(quote_literal(on_error), 'null')
        using errcode = 'AP512',
        hint = 'error: raise it. null: a row of nulls whose reason says what is wrong.';
    end if;
    begin
        if exists (select from market.gaps) then
            return query
                select (ml._over_gaps(a)).* from ml._answers(models, symbol, as_of, version) a;
        else
            return query select a.* from ml._answers(models, symbol, as_of, version) a;
        end if;
        return;
    exception when others then
        get stacked diagnostics
            v_state = returned_sqlstate, v_message = message_text,
            v_detail = pg_exception_detail, v_hint = pg_exception_hint;
    end;
    v_message := ml._plain(v_message);
    if on_error = 'error' or v_state not like 'AP%' then
        raise exception using
            errcode = v_state, message = v_message, detail = coalesce(v_detail, ''),
            hint = coalesce(v_hint, '');
    end if;
    foreach v_model in array models loop
        v_a := null;
        v_a.symbol := symbol;
        v_a.as_of := coalesce(as_of, now());
        v_a.model := v_model;
        v_a.is_fallback := true;
        v_a.reason := v_message || coalesce('; ' || nullif(v_hint, ''), '');
        v_out.answer := v_a;
        return next v_out;
    end loop;
end
$$;

create or replace function ml.predict(
    model text, symbol text, as_of timestamptz default null, version bigint default null,
    on_error text default 'error'
)
returns setof ml.answer
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; names are qualified.
    select (s.answer).* from ml._serve(array[$1], ml._symbol_given($2), $3, $4, $5) s
$$;
comment on function ml.predict(text, text, timestamptz, bigint, text) is
'What a model says of a symbol as of a time (default: now), whatever its kind. prediction: calibrated probability, or value in the label''s unit; [lower, upper]: an interval around it at the version''s level, from held-out rows with like predictions; confidence: 1 - width of that interval (spec of the version). Who answers (chosen): without as_of the champion of the symbol and regime, else of the symbol, else the pooled one. With as_of nobody from the future: the champion of that time (champion then), else the champion of now or the newest version whose data and training had ended by then (trained by then), else the label''s base rate, with a reason. version: that one, whatever it was trained on (asked for). trained_to: end of the data that the version was trained on; in_sample: as_of lies before it. partition_used: symbol and regime, symbol, pooled, or base rate. expired, out_of_support: do not trust it; what then happens is set by ml.expired_policy and ml.out_of_support_policy: flag (default), null or fallback (the next partition''s version, at last the base rate). Features that are unknown though usually known in training (missing_share) widen the interval by their share; above ml.max_missing_share ml.missing_policy decides (default: null, with the reason), and where no feature is known the prediction is null. staleness: as_of less the newest market row known then. on_error => ''null'': in place of an error a row of nulls whose reason is its message. Errors: AP101 unknown symbol, AP302 unknown model, AP506 no data, AP511 not a version of the model for the symbol, AP512 on_error, AP513 an array where a symbol is meant.';

create or replace function ml.try_predict(
    model text, symbol text, as_of timestamptz default null, version bigint default null
)
returns setof ml.answer
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; names are qualified.
    select p.* from ml.predict($1, $2, $3, $4, 'null') p
$$;
comment on function ml.try_predict(text, text, timestamptz, bigint) is
'ml.predict with on_error => ''null'': for queries over many symbols and times, of which one without data or champion is not to end them all.';

-- Drivers that do not know an array's type get here with its text.
create or replace function ml._symbol_given(symbol text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if symbol ~ '^\s*\{.*\}\s*$' then
        raise exception 'an array where a symbol is meant'
        using errcode = 'AP513',
        hint = 'To score a vector: ml.predict_features(model, features), or cast it: $2::float8[].';
    end if;
    return symbol;
end
$$;

create or replace function ml.predict_features(model text, features double precision [])
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.score_served(coalesce(ml.champion($1, null), ml._no_champion($1, null)), $2)
$$;
comment on function ml.predict_features(text, double precision []) is
'The calibrated probability, or the value, that a model''s pooled champion gives a vector of one''s own, in the order of its feature set (null or NaN: not known; null where nothing is known). The array may come without its type. For a symbol''s own champion: ml.predict_vector. Errors: AP302 unknown model, AP504 another number of values, AP505 no promoted version.';

create or replace function ml.predict(model text, features double precision [])
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.predict_features($1, $2)
$$;
comment on function ml.predict(text, double precision []) is
'ml.predict_features, for arrays that come with their type: one without is taken for a symbol. Errors: as there.';

create or replace function ml.predict_vector(
    model text, symbol text, features double precision []
)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.score_served(coalesce(ml.champion($1, s), ml._no_champion($1, s)), $3)
    from market.resolve($2) as s
$$;
comment on function ml.predict_vector(text, text, double precision []) is
'ml.predict_features by the champion that serves the symbol (its own, else the pooled one). Errors: AP101 unknown symbol, AP302 unknown model, AP504 another number of values, AP505 no promoted version.';

insert into ops.settings (name, value, description)
values
('ml.max_missing_share', '0.5', 'Above this share of unknown features, among those usually known in training, ml.missing_policy decides.'),
('ml.missing_policy', '"null"', 'What a prediction with too many unknown features becomes: flag, null or fallback.')
on conflict (name) do nothing;
