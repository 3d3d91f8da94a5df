-- Thresholds, and which classifier serves which symbol.
insert into regime.threshold_names (name, default_value, least, most, unit, description)
values
('softness', 0.1, 0.01, 5, 'ratio', 'How gradually a rule takes hold around its threshold; small: almost yes or no.'),
('high_volatility_percentile', 0.71, 0.5, 0.999, 'probability', 'Percentile of volatility (mean of a day, against its own slow mean and spread) from which it is high.'),
('low_volatility_percentile', 0.28, 0.001, 0.5, 'probability', 'Percentile of volatility below which it is low.'),
('slow_trend_share', 1, 0, 1, 'ratio', 'Weight of the trend of 72 bars beside that of 24 in the strength of trend.'),
('bull_trend', 0.06, 0, 1, 'ratio', 'Strength of trend (mean return / mean absolute return) from which it is a bull trend.'),
('bear_trend', 0.06, 0, 1, 'ratio', 'Strength of the falling trend from which it is a bear trend.'),
('crash_drawdown', 3.4, 0, 50, 'slow volatility of 24 bars', 'Drawdown from the highest close of 72 bars from which it can be a crash.'),
('crash_fall', 0.46, -10, 50, 'slow volatility of 6 bars', 'Fall over about six bars from which it can be a crash.'),
('crash_volume', 0.3, -10, 10, 'ln ratio', 'Volume against its mean of a week from which it can be a crash.'),
('evidence', 0.5, 0.001, 5, 'ratio', 'Weight of one bar''s evidence: neighbouring bars share most of what they see.'),
('floor', 0.005, 0.000001, 0.15, 'probability', 'Least probability that a single bar gives a state.'),
('dwell', 46, 2, 100000, 'bars', 'Mean time in a state that the filter assumes.'),
('crash_dwell', 35, 2, 100000, 'bars', 'Mean time in a crash that the filter assumes.'),
('margin', 0.27, 0, 0.99, 'probability', 'By how much another state''s probability must lead before the regime changes.'),
('verdict_penalty', 7.6, 0, 10000, 'nats', 'Cost of a change of regime in hindsight, against the log evidence of the bars.'),
('verdict_limit', 336, 1, 720, 'bars', 'After so many bars the verdict is taken even if later bars could still change it.'),
('min_dwell', 6, 1, 720, 'bars', 'A regime becomes an episode when it has lasted so many bars.')
on conflict (name) do update
set default_value = excluded.default_value, least = excluded.least, most = excluded.most,
    unit = excluded.unit, description = excluded.description;

insert into regime.classifiers (symbol, timeframe, method)
values (null, interval '1 hour', 'rules')
on conflict do nothing;

create or replace function regime.rule_thresholds(rule_set text default 'default')
returns jsonb
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select jsonb_object_agg(n.name, coalesce(t.value, n.default_value))
        from regime.threshold_names n
        left join regime.thresholds t
            on t.name = n.name and t.rule_set = rule_thresholds.rule_set
    );
end
$$;
comment on function regime.rule_thresholds(text) is
'All thresholds of a rule set, by name: its own rows of regime.thresholds, else the defaults.';

create or replace function regime._checked_thresholds(thresholds jsonb)
returns jsonb
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_bad text;
begin
    if jsonb_typeof(thresholds) is distinct from 'object' then
        raise exception 'thresholds are %, not an object', coalesce(jsonb_typeof(thresholds), 'null')
        using errcode = 'AP604', hint = 'For instance ''{"bull_trend": 0.15}''.';
    end if;
    select string_agg(format('%s: %s', t.key, t.value), ', ') into v_bad
    from jsonb_each(thresholds) t
    left join regime.threshold_names n on n.name = t.key
    where case
        when n.name is null or jsonb_typeof(t.value) <> 'number' then true
        else not t.value::text::numeric between n.least::numeric and n.most::numeric
    end;
    if v_bad is not null then
        raise exception 'unknown threshold, or a value out of its range: %', v_bad
        using errcode = 'AP604', hint = 'select name, least, most, unit, description from regime.threshold_names';
    end if;
    return thresholds;
end
$$;
comment on function regime._checked_thresholds(jsonb) is
'Thresholds by name, if all of them are known and within range. Errors: AP604.';

create or replace function regime.set_threshold(
    name text, value double precision, rule_set text default 'default'
)
returns text
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
begin
    if rule_set is null or rule_set !~ '^[a-z][a-z0-9_]{0,62}$' then
        raise exception 'not a name for a rule set: %', coalesce(quote_literal(rule_set), 'null')
        using errcode = 'AP605', hint = 'Small letters, digits and underscores, a letter first.';
    end if;
    if name is null or value is null or value <> value or abs(value) = 'infinity' then
        raise exception 'threshold % cannot be %', coalesce(name, 'null'), coalesce(value::text, 'null')
        using errcode = 'AP604', hint = 'select name, least, most, unit, description from regime.threshold_names';
    end if;
    perform regime._checked_thresholds(jsonb_build_object(name, value));
    insert into regime.thresholds as t (rule_set, name, value)
    values (set_threshold.rule_set, set_threshold.name, set_threshold.value)
    on conflict on constraint thresholds_pkey do update
    set value = excluded.value, updated_at = clock_timestamp(), updated_by = session_user;
    return regime._rules_version(rule_set);
end
$$;
comment on function regime.set_threshold(text, double precision, text) is
'Sets a threshold of a rule set and returns the new version of its rules. regime.refresh computes
history anew under it; until then regime.classify computes from the bars. Try it first with
regime.replay. Errors: AP604 unknown threshold or a value out of its range, AP605 not a name for a
rule set.';

create or replace function regime._rules_version(rule_set text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return 'rules/' || rule_set || '/' || left(md5(regime.rule_thresholds(rule_set)::text), 8);
end
$$;

create or replace function regime.use(
    method text, symbol text default null, timeframe interval default interval '1 hour',
    rule_set text default 'default', model text default null
)
returns text
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
begin
    perform regime._width(timeframe);
    if method is null or method not in ('rules', 'learned') then
        raise exception 'unknown method %', coalesce(quote_literal(method), 'null')
        using errcode = 'AP606', hint = 'rules, or learned with the name of a model.';
    end if;
    if rule_set is null or rule_set <> 'default' and not exists (
        select from regime.thresholds t where t.rule_set = "use".rule_set
    ) then
        raise exception 'unknown rule set %', coalesce(quote_literal(rule_set), 'null')
        using errcode = 'AP605', hint = 'Make one with regime.set_threshold(name, value, rule_set).';
    end if;
    if method = 'learned' and not exists (
        select from ml.models m
        join ml.labels l on l.label = m.label
        where m.model = "use".model and l.task = 'regime'
            and (l.params ->> 'bar_seconds')::double precision
            = date_part('epoch', "use".timeframe)
    ) then
        raise exception 'no regime model of bars of %: %', timeframe, coalesce(quote_literal(model), 'null')
        using errcode = 'AP606', hint = 'select m.model from ml.models m join ml.labels l using (label) where l.task = ''regime''';
    end if;
    insert into regime.classifiers as c (symbol, timeframe, method, rule_set, model)
    values (v_symbol, "use".timeframe, "use".method, "use".rule_set, "use".model)
    on conflict on constraint classifiers_key do update
    set method = excluded.method, rule_set = excluded.rule_set, model = excluded.model,
        updated_at = clock_timestamp(), updated_by = session_user;
    return (regime._classifier(v_symbol, timeframe)).version;
end
$$;
comment on function regime.use(text, text, interval, text, text) is
'Chooses the classifier of a symbol (null: of all without one of their own) at a timeframe: rules, or
learned with a model whose champion classifies (the rules answer while it has none). Returns the
version that is in force now. Errors: AP101, AP102 symbol, AP600 timeframe, AP605 unknown rule set,
AP606 unknown method or model.';

create or replace function regime._classifier(
    symbol text, timeframe interval, out version text, out spec jsonb, out rule_set text,
    out known_from timestamptz
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_choice regime.classifiers;
    v_version bigint;
begin
    select c.* into v_choice
    from regime.classifiers c
    where (c.symbol = _classifier.symbol or c.symbol is null) and c.timeframe = _classifier.timeframe
    order by c.symbol nulls last
    limit 1;
    rule_set := coalesce(v_choice.rule_set, 'default');
    if v_choice.method = 'learned' then
        v_version := ml.champion(v_choice.model, symbol);
    end if;
    if v_version is not null then
        version := 'learned/' || v_version;
        spec := jsonb_build_object('version_id', v_version);
        known_from := (select v.as_of from ml.model_versions v where v.version_id = v_version);
        return;
    end if;
    spec := regime.rule_thresholds(rule_set);
    version := 'rules/' || rule_set || '/' || left(md5(spec::text), 8);
    spec := jsonb_build_object('thresholds', spec);
end
$$;
comment on function regime._classifier(text, interval) is
'The classifier in force for a symbol: its version, how to run it (thresholds or version_id), the rule
set of its verdict, and as of when it was trained (null: it was not).';
