-- Checks: a window of what is seen now against what a version was trained on.

create or replace function drift._options(model text)
returns jsonb
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'alpha', ops.setting('drift.alpha', '0.01'),
        'method', ops.setting('drift.fdr_method', '"by"'),
        'thresholds', coalesce(jsonb_agg(
            jsonb_build_array(
                t.feature, t.statistic,
                array_position(array['low', 'medium', 'high', 'critical'], t.severity), t.threshold
            )
            order by (t.model is not null)::integer + (t.feature is not null)::integer desc,
                t.model is null, t.threshold_id
        ), '[]')
    )
    from drift.thresholds t
    where t.model is null or t.model = $1
$$;
comment on function drift._options(text) is
'Significance, method and thresholds of a model''s checks, most specific thresholds first.';

create or replace function drift._check(
    version_id bigint, symbols text [], "from" bigint, "to" bigint, options jsonb
)
returns table (
    feature text, kind text, ks double precision, psi double precision, js double precision,
    wasserstein double precision, chi2 double precision, null_share double precision,
    reference_null_share double precision, n bigint, row_count bigint,
    n_effective double precision, p_value double precision, p_adjusted double precision,
    drifted boolean, severity text, effect double precision, blame double precision
)
language plpython3u stable parallel restricted
set search_path = pg_catalog, pg_temp
as $python$
    import json
    from alphaplus.server.drift import check
    return list(check.check(plpy, GD, version_id, symbols, args[2], args[3], json.loads(options)))
$python$;
comment on function drift._check(bigint, text [], bigint, bigint, jsonb) is
'See drift.check; times are microseconds since 2000.';

create or replace function drift._checked_version(
    model text, symbol text, version bigint, out version_id bigint, out symbols text []
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
    v_reference drift.version_references;
begin
    if not exists (select from ml.models m where m.model = _checked_version.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    version_id := coalesce(version, ml.champion(model, v_symbol));
    if version_id is null then
        perform ml._no_champion(model, v_symbol);
    end if;
    if not exists (select from ml.model_versions v where v.version_id = _checked_version.version_id) then
        raise exception 'unknown model version %', version_id
        using errcode = 'AP404', hint = 'select version_id, model, symbol from ml.registry';
    end if;
    select * into v_reference
    from drift.version_references r
    where r.version_id = _checked_version.version_id;
    if v_reference.binning_id is null then
        raise exception 'version % of % has no reference yet', version_id, model
        using errcode = 'AP636', detail = coalesce(v_reference.error, 'The clock has not come to it.'),
            hint = format('select drift.take_reference(%s); the clock does so within a minute.', version_id);
    end if;
    if v_symbol is not null and not v_symbol = any (v_reference.symbols) then
        raise exception 'version % was not trained on %', version_id, v_symbol
        using errcode = 'AP636',
            hint = format('Its symbols: %s.', array_to_string(v_reference.symbols, ', '));
    end if;
    symbols := case when v_symbol is null then v_reference.symbols else array[v_symbol] end;
end
$$;
comment on function drift._checked_version(text, text, bigint) is
'Which version a check is about, and of which symbols.';

create or replace function drift.check(
    model text, symbol text default null, "window" interval default null,
    as_of timestamptz default null, version bigint default null
)
returns table (
    feature text, kind text, ks double precision, psi double precision, js double precision,
    wasserstein double precision, chi2 double precision, null_share double precision,
    reference_null_share double precision, n bigint, n_effective double precision,
    p_value double precision, p_adjusted double precision, drifted boolean, severity text,
    effect double precision, blame double precision, version_id bigint
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
    v_window interval := coalesce("window", ops.setting_interval('drift.window', interval '1 day'));
    v_to timestamptz := coalesce(as_of, now());
    v_from timestamptz;
    v_which record := drift._checked_version(model, symbol, version);
begin
    v_from := drift._window_start(v_to, v_window);
    return query
        select
            c.feature, c.kind, c.ks, c.psi, c.js, c.wasserstein, c.chi2, c.null_share,
            c.reference_null_share, c.n, c.n_effective, c.p_value, c.p_adjusted, c.drifted,
            c.severity, c.effect, c.blame, v_which.version_id
        from drift._check(
            v_which.version_id, v_which.symbols, drift._micros(v_from), drift._micros(v_to),
            drift._options(model)
        ) c;
end
$$;
comment on function drift.check(text, text, interval, timestamptz, bigint) is
'How far the features (and scores and labels) of a model''s champion (or of another version) in the
window before as_of lie from its reference, for a symbol (null: all of a pooled version), worst
first. ks, js: of binned shares; psi: in ten bins; wasserstein: in standard deviations of the
reference; chi2: of features of few values, instead of ks, for the p-value. n: rows in which it is
known; n_effective: what they are worth as independent rows, by the long-run variance of the
reference''s bin indicators. p_adjusted: over all features (drift.fdr_method: by, Benjamini and
Yekutieli; e-bh), valid whatever their dependence. drifted: p_adjusted is at most drift.alpha and an
effect reaches a threshold (drift.thresholds), which says the severity. blame: effect times SHAP
share, as a share of what drifted: look at the first row first. Reads merged histograms, and counts
vectors only where these do not reach; writes nothing. Errors: AP101, AP102 symbol, AP302 unknown
model, AP404 unknown version, AP505 no champion, AP636 no reference, AP637 no window.';

create or replace function drift._window_start(as_of timestamptz, "window" interval)
returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if as_of is null or not isfinite(as_of) or "window" is null
        or not ("window" > interval '0') or not isfinite("window")
        or "window" > interval '100 years' then
        raise exception 'no window: % before %', coalesce("window"::text, 'null'), coalesce(as_of::text, 'null')
        using errcode = 'AP637', hint = 'For instance "window" => interval ''1 day'', or 7 days.';
    end if;
    return as_of - make_interval(secs => extract(epoch from "window")::double precision);
end
$$;
comment on function drift._window_start(timestamptz, interval) is
'The start of the window that ends at as_of, or AP637.';
