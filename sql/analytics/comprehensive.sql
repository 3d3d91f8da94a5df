-- Everything known of a symbol at a time, in one row.
create or replace function analytics._risks(symbol text, as_of timestamptz)
returns jsonb
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_horizon interval;
    v_p record;
    v_risks jsonb := '[]'::jsonb;
begin
    for v_horizon in
        select distinct l.horizon
        from ml.models m join ml.labels l on l.label = m.label
        where l.kind = 'liquidation'
        order by 1
    loop
        select * into v_p from ml.predict_liquidation($1, v_horizon, $2, on_error => 'null');
        v_risks := v_risks || jsonb_build_object(
            'horizon', to_char(v_horizon, 'HH24:MI:SS'), 'seconds', extract(epoch from v_horizon),
            'probability', v_p.probability, 'confidence', v_p.confidence,
            'risk_level', v_p.risk_level, 'expected_volume', v_p.expected_volume,
            'version_id', v_p.version_id, 'is_fallback', v_p.is_fallback, 'reason', v_p.reason
        );
    end loop;
    return v_risks;
end
$$;
comment on function analytics._risks(text, timestamptz) is
'The liquidation risk at every horizon that has a model, as a JSON array by horizon.';

create or replace function analytics._comprehensive_analysis(
    asked_symbol text, asked_as_of timestamptz
)
returns table (
    symbol text, as_of timestamptz, ts timestamptz, price double precision,
    change_1h double precision, change_24h double precision, trend text,
    regime text, regime_confidence double precision, regime_since timestamptz,
    liquidity_score double precision, volatility_score double precision,
    volume_24h double precision, volume_ratio double precision, buy_share double precision,
    breakout text, volume_divergence text, patterns jsonb, liquidation_probability double precision,
    liquidation_risk text, liquidation_risks jsonb, ensemble_probability double precision,
    ensemble_confidence double precision, ensemble_method text, ensemble_risk text,
    sentiment_score double precision, texts bigint, drift boolean, drift_severity text,
    staleness interval, stale text [], notes text []
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
rows 1
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := market.resolve($1);
    v_stale constant interval := ops.setting_interval('ops.stale_after', interval '15 minutes');
    v_last record;
    v_volume record;
    v_regime record;
    v_ensemble record;
    v_drift record;
    v_state text;
    v_message text;
begin
    symbol := v_symbol;
    as_of := v_as_of;
    stale := '{}';
    notes := '{}';
    patterns := '[]';
    select b.timeframe, b.ts, b.close, b.known_at into v_last
    from analytics._last_bar(v_symbol, v_as_of) b;
    if v_last.ts is null then
        notes := array[format('nothing of %s is known at %s', v_symbol, v_as_of)];
        return next;
        return;
    end if;
    ts := v_last.ts + v_last.timeframe;
    price := v_last.close;
    staleness := v_as_of - ts;
    select v.* into v_volume from analytics.volume_analysis(v_symbol, v_as_of, interval '24 hours') v;
    change_24h := v_volume.price_change;
    volume_24h := v_volume.volume;
    volume_ratio := v_volume.volume_ratio;
    buy_share := v_volume.buy_share;
    breakout := v_volume.breakout;
    volume_divergence := v_volume.volume_divergence;
    sentiment_score := v_volume.sentiment_score;
    texts := v_volume.texts;
    select (array_agg(b.close order by b.ts desc))[1] / nullif((array_agg(b.open order by b.ts))[1], 0) - 1
    into change_1h
    from analytics._bars(v_symbol, v_last.timeframe, ts - greatest(interval '1 hour', v_last.timeframe), v_as_of) b;
    -- Each part by itself: where one cannot be told the others can, and notes say why.
    begin
        select c.regime, c.confidence, c.since into v_regime from regime.classify(v_symbol, v_as_of) c;
        regime := v_regime.regime;
        regime_confidence := v_regime.confidence;
        regime_since := v_regime.since;
    exception when others then
        get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        if v_state not like 'AP%' then raise; end if;
        notes := notes || ('regime: ' || v_message);
    end;
    trend := case
        when regime = 'bull_trending' then 'up'
        when regime in ('bear_trending', 'crash') then 'down'
        when regime is not null then 'sideways'
        when change_24h > 0.01 then 'up'
        when change_24h < -0.01 then 'down'
        when change_24h is not null then 'sideways'
    end;
    begin
        liquidity_score := feature.liquidity_score(v_symbol, v_as_of);
        volatility_score := feature.volatility_score(v_symbol, v_as_of);
    exception when others then
        get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        if v_state not like 'AP%' then raise; end if;
        notes := notes || ('scores: ' || v_message);
    end;
    begin
        select coalesce(jsonb_agg(jsonb_build_object(
            'pattern', e.pattern, 'title', e.title, 'direction', e.direction,
            'strength', e.strength, 'probability_up', e.probability_up,
            'confidence', e.pattern_confidence, 'agrees', e.agrees,
            'is_fallback', e.is_fallback
        ) order by e.strength desc, e.pattern), '[]') into patterns
        from ml.enhance_pattern(v_symbol, null, v_as_of) e;
    exception when others then
        get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        if v_state not like 'AP%' then raise; end if;
        notes := notes || ('patterns: ' || v_message);
    end;
    begin
        liquidation_risks := analytics._risks(v_symbol, v_as_of);
        select
            max((r.value ->> 'probability')::double precision) filter (where (r.value ->> 'seconds')::numeric = 900),
            max(r.value ->> 'risk_level') filter (where (r.value ->> 'seconds')::numeric = 900)
        into liquidation_probability, liquidation_risk
        from jsonb_array_elements(liquidation_risks) r (value);
    exception when others then
        get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        if v_state not like 'AP%' then raise; end if;
        notes := notes || ('liquidation risk: ' || v_message);
    end;
    select e.probability, e.confidence, e.method, e.risk_level, e.reason into v_ensemble
    from ml.predict_ensemble(v_symbol, interval '15 minutes', v_as_of, on_error => 'null') e;
    ensemble_probability := v_ensemble.probability;
    ensemble_confidence := v_ensemble.confidence;
    ensemble_method := v_ensemble.method;
    ensemble_risk := v_ensemble.risk_level;
    if v_ensemble.probability is null and v_ensemble.reason is not null then
        notes := notes || ('ensemble: ' || v_ensemble.reason);
    end if;
    select
        coalesce(bool_or(x.severity is not null), false) as drifted,
        (array['low', 'medium', 'high', 'critical'])[max(
            array_position(array['low', 'medium', 'high', 'critical'], x.severity)
        )] as severity
    into v_drift
    from (
        select distinct on (c.version_id) c.severity
        from drift.checks c
        join analytics._lines(v_as_of) l on l.version_id = c.version_id
            and (l.symbol = v_symbol or l.symbol is null)
        where c.at <= v_as_of
        order by c.version_id, c.at desc, c.check_id desc
    ) x;
    drift := v_drift.drifted;
    drift_severity := v_drift.severity;
    stale := array_remove(array[
        case when v_as_of - v_last.known_at > v_stale then 'price' end,
        case when not exists (
            select from market.order_book_snapshots b
            where b.symbol = v_symbol and b.ts > v_as_of - v_stale and b.ts <= v_as_of and b.known_at <= v_as_of
        ) then 'order book' end,
        case when regime is null then 'regime' end,
        case when exists (
            select from analytics._lines(v_as_of) l
            join ml.model_versions v on v.version_id = l.version_id
            where (l.symbol = v_symbol or l.symbol is null) and v.as_of + v.expires_after <= v_as_of
        ) then 'models' end,
        case when coalesce(texts, 0) = 0 then 'sentiment' end
    ], null);
    return next;
end
$$;
comment on function analytics._comprehensive_analysis(text, timestamptz) is
'See analytics.comprehensive_analysis, which calls it: there a parameter may have the name of a column.';

create or replace function analytics._newest_analysis(asked_symbol text)
returns table (
    symbol text, as_of timestamptz, ts timestamptz, price double precision,
    change_1h double precision, change_24h double precision, trend text,
    regime text, regime_confidence double precision, regime_since timestamptz,
    liquidity_score double precision, volatility_score double precision,
    volume_24h double precision, volume_ratio double precision, buy_share double precision,
    breakout text, volume_divergence text, patterns jsonb, liquidation_probability double precision,
    liquidation_risk text, liquidation_risks jsonb, ensemble_probability double precision,
    ensemble_confidence double precision, ensemble_method text, ensemble_risk text,
    sentiment_score double precision, texts bigint, drift boolean, drift_severity text,
    staleness interval, stale text [], notes text [], age interval
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
rows 1
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve($1);
    v_age constant interval := ops.setting_interval('analytics.snapshot_max_age', interval '11 minutes');
begin
    return query
        select a.*, now() - s.as_of
        from analytics.snapshots s
        cross join lateral jsonb_to_record(s.answer) as a (
                symbol text, as_of timestamptz, ts timestamptz, price double precision,
                change_1h double precision, change_24h double precision, trend text,
                regime text, regime_confidence double precision, regime_since timestamptz,
                liquidity_score double precision, volatility_score double precision,
                volume_24h double precision, volume_ratio double precision, buy_share double precision,
                breakout text, volume_divergence text, patterns jsonb, liquidation_probability double precision,
                liquidation_risk text, liquidation_risks jsonb, ensemble_probability double precision,
                ensemble_confidence double precision, ensemble_method text, ensemble_risk text,
                sentiment_score double precision, texts bigint, drift boolean, drift_severity text,
                staleness interval, stale text [], notes text []
        )
        where s.symbol = v_symbol and s.as_of > now() - v_age and s.as_of <= now();
    if not found then
        return query select a.*, interval '0' from analytics._comprehensive_analysis($1, now()) a;
    end if;
end
$$;
comment on function analytics._newest_analysis(text) is
'The kept answer for a symbol where it is not too old, else one computed now.';

create or replace function analytics._kept_or_live(asked_symbol text, asked_as_of timestamptz)
returns table (
    symbol text, as_of timestamptz, ts timestamptz, price double precision,
    change_1h double precision, change_24h double precision, trend text,
    regime text, regime_confidence double precision, regime_since timestamptz,
    liquidity_score double precision, volatility_score double precision,
    volume_24h double precision, volume_ratio double precision, buy_share double precision,
    breakout text, volume_divergence text, patterns jsonb, liquidation_probability double precision,
    liquidation_risk text, liquidation_risks jsonb, ensemble_probability double precision,
    ensemble_confidence double precision, ensemble_method text, ensemble_risk text,
    sentiment_score double precision, texts bigint, drift boolean, drift_severity text,
    staleness interval, stale text [], notes text [], age interval
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
begin
    if $2 is null then
        return query select a.* from analytics._newest_analysis($1) a;
    else
        return query select a.*, interval '0' from analytics._comprehensive_analysis($1, $2) a;
    end if;
end
$$;
comment on function analytics._kept_or_live(text, timestamptz) is
'See analytics.comprehensive_analysis, which calls it.';

create or replace function analytics.comprehensive_analysis(
    symbol text, as_of timestamptz default null
)
returns table (
    symbol text, as_of timestamptz, ts timestamptz, price double precision,
    change_1h double precision, change_24h double precision, trend text,
    regime text, regime_confidence double precision, regime_since timestamptz,
    liquidity_score double precision, volatility_score double precision,
    volume_24h double precision, volume_ratio double precision, buy_share double precision,
    breakout text, volume_divergence text, patterns jsonb, liquidation_probability double precision,
    liquidation_risk text, liquidation_risks jsonb, ensemble_probability double precision,
    ensemble_confidence double precision, ensemble_method text, ensemble_risk text,
    sentiment_score double precision, texts bigint, drift boolean, drift_severity text,
    staleness interval, stale text [], notes text [], age interval
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
    select x.* from analytics._kept_or_live($1, $2) x
$$;
comment on function analytics.comprehensive_analysis(text, timestamptz) is
'All that is known of a symbol: price and trend, regime, liquidity and volatility scores (0 to 1), volume, patterns with the direction model''s probability, liquidation risk at every horizon, the ensemble, sentiment, whether a served model''s data drifted, and what is stale. With as_of it is computed as of that time. Without, it is the answer that the clock kept last (age says how old it is; call analytics.refresh_snapshots()), computed anew where that is older than the setting analytics.snapshot_max_age. What cannot be told is null, and notes say why; nothing known at all is a row with a note. trend: by the regime, else by the day''s change beyond one per cent. Errors: AP101, AP102 symbol, AP960 as_of.';

create or replace function analytics._refresh_snapshot(symbol text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
declare
    v_at constant timestamptz := clock_timestamp();
begin
    insert into analytics.snapshots as s (symbol, as_of, took, answer)
    select a.symbol, v_at, clock_timestamp() - v_at, to_jsonb(a)
    from analytics._comprehensive_analysis($1, v_at) a
    on conflict on constraint snapshots_pkey do update
    set as_of = excluded.as_of, took = clock_timestamp() - v_at, answer = excluded.answer;
    return null;
exception when others then
    return sqlerrm;
end
$$;
comment on function analytics._refresh_snapshot(text) is
'Keeps the analysis of a symbol as of now; gives what went wrong, null where nothing did.';

-- Commits after each symbol, so it cannot pin search_path; every name is qualified.
create or replace procedure analytics.refresh_snapshots()
language plpgsql
as $$
declare
    v_symbol text;
    v_wrong text;
    v_problems text [] := array[]::text [];
begin
    for v_symbol in select i.symbol::text from market.instruments i order by i.symbol loop
        -- One at a time; who comes second leaves the work to the first.
        exit when not ops._try_lock('analytics.refresh_snapshots');
        v_wrong := analytics._refresh_snapshot(v_symbol);
        if v_wrong is not null then
            v_problems := v_problems || pg_catalog.format('%s: %s', v_symbol, v_wrong);
        end if;
        commit;
    end loop;
    if v_problems <> '{}' then
        raise exception 'some symbols have no new snapshot: %', pg_catalog.array_to_string(v_problems, '; ')
        using errcode = 'AP977', hint = 'The others have. See: select * from analytics.comprehensive_analysis(symbol, now()).';
    end if;
end
$$;
comment on procedure analytics.refresh_snapshots() is
'For the clock: computes analytics.comprehensive_analysis of each symbol as of now and keeps it, so that screens read it at once. Commits after each symbol. Errors: AP977 some symbols failed.';

create or replace view analytics.comprehensive_analysis as
select a.*
from market.instruments as i
cross join lateral analytics.comprehensive_analysis(i.symbol) as a;
comment on view analytics.comprehensive_analysis is
'All that is known of every symbol now, a row each, as the clock kept it last (age); analytics.comprehensive_analysis(symbol, as_of) gives one at any time.';
comment on column analytics.comprehensive_analysis.symbol is 'The canonical symbol.';
comment on column analytics.comprehensive_analysis.as_of is 'The time of the answer.';
comment on column analytics.comprehensive_analysis.ts is 'Close of the last bar known then.';
comment on column analytics.comprehensive_analysis.price is 'Last price, in quote currency.';
comment on column analytics.comprehensive_analysis.change_1h is 'Relative change of price over the last hour that it has, 0.01 = one per cent.';
comment on column analytics.comprehensive_analysis.change_24h is 'Relative change over the last 24 hours that it has.';
comment on column analytics.comprehensive_analysis.trend is 'up, down or sideways.';
comment on column analytics.comprehensive_analysis.regime is 'Market regime of the hour (regime.states).';
comment on column analytics.comprehensive_analysis.regime_confidence is 'Its probability, 0 to 1.';
comment on column analytics.comprehensive_analysis.regime_since is 'Since when it lasts.';
comment on column analytics.comprehensive_analysis.liquidity_score is '0 (nothing in the book) to 1, see feature.liquidity_score.';
comment on column analytics.comprehensive_analysis.volatility_score is '0 (calmest minute of the day) to 1, see feature.volatility_score.';
comment on column analytics.comprehensive_analysis.volume_24h is 'Volume in base units over the last 24 hours that it has.';
comment on column analytics.comprehensive_analysis.volume_ratio is 'Volume of the last bar over the mean bar of the day.';
comment on column analytics.comprehensive_analysis.buy_share is 'Share of volume whose aggressor bought, 0 to 1.';
comment on column analytics.comprehensive_analysis.breakout is 'up, down or none: a bar of unusual volume that left the day''s range.';
comment on column analytics.comprehensive_analysis.volume_divergence is 'bullish, bearish or none: price and net buying disagree.';
comment on column analytics.comprehensive_analysis.patterns is 'Candlestick patterns of the last bar with the direction model''s probability, as a JSON array.';
comment on column analytics.comprehensive_analysis.liquidation_probability is 'Chance of large forced liquidations within 15 minutes.';
comment on column analytics.comprehensive_analysis.liquidation_risk is 'low, medium, high or critical.';
comment on column analytics.comprehensive_analysis.liquidation_risks is 'The same at every horizon that has a model, as a JSON array.';
comment on column analytics.comprehensive_analysis.ensemble_probability is 'The ensemble''s probability at 15 minutes.';
comment on column analytics.comprehensive_analysis.ensemble_confidence is 'Its confidence, 0 to 1.';
comment on column analytics.comprehensive_analysis.ensemble_method is 'The method that mixed it.';
comment on column analytics.comprehensive_analysis.ensemble_risk is 'Its risk level.';
comment on column analytics.comprehensive_analysis.sentiment_score is 'Mean sentiment of the day''s texts, -1 to 1.';
comment on column analytics.comprehensive_analysis.texts is 'How many texts there were.';
comment on column analytics.comprehensive_analysis.drift is 'Whether the last check of a model that serves the symbol found drift.';
comment on column analytics.comprehensive_analysis.drift_severity is 'The worst of them.';
comment on column analytics.comprehensive_analysis.staleness is 'as_of less ts.';
comment on column analytics.comprehensive_analysis.stale is 'What is older than ops.stale_after or not there: price, order book, regime, models, sentiment.';
comment on column analytics.comprehensive_analysis.notes is 'Why something is null.';
comment on column analytics.comprehensive_analysis.age is 'How old the answer is; zero: computed for this question.';
