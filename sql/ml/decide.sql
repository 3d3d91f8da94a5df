-- What the database decides by itself: challengers, promotions, rollbacks; each with its evidence.

create or replace function ml._decided(
    version_id bigint, against_id bigint, decision text, reason text, evidence jsonb
)
returns void
language sql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
    insert into ml.decisions (model, symbol, regime, version_id, against_id, decision, reason, evidence)
    select v.model, v.symbol, v.regime, v.version_id, $2, $3, $4, coalesce($5, '{}')
    from ml.model_versions v
    where v.version_id = $1
$$;
comment on function ml._decided(bigint, bigint, text, text, jsonb) is 'Writes a decision down.';

-- New versions: those whose gates they do not pass are refused, the others play the part that the
-- policy gives them.
create or replace function ml._decide_new(version_id bigint)
returns text
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_policy ml.retraining_policies := ml._policy(v_version.model);
    v_champion bigint;
    v_failed text;
    v_verdicts jsonb;
begin
    perform ml._lock_key(v_version.model, v_version.symbol, v_version.regime);
    select a.version_id into v_champion
    from ml.aliases a
    where a.model = v_version.model and a.symbol is not distinct from v_version.symbol
        and a.regime is not distinct from v_version.regime and a.alias = 'champion';
    if v_champion = version_id then
        perform ml._decided(version_id, null, 'promote', 'promoted when it was trained: all gates passed', null);
        return 'promote';
    end if;
    select
        string_agg(g.detail, '; ' order by g.gate) filter (where not g.passed), jsonb_agg(to_jsonb(g))
    into v_failed, v_verdicts
    from ml._gate_verdicts(version_id) g;
    if v_failed is not null then
        perform ml._decided(version_id, v_champion, 'refuse', 'gates not passed: ' || v_failed, v_verdicts);
        return 'refuse';
    end if;
    if v_policy.promotion = 'gates' or v_policy.promotion = 'compare' and v_champion is null then
        perform ml._set_alias(version_id, 'champion', 'promote', 'all gates passed', 'ml.decide');
        perform ml._decided(version_id, v_champion, 'promote',
            case when v_champion is null then 'all gates passed, and there was no champion' else 'all gates passed' end,
            v_verdicts);
        return 'promote';
    end if;
    if v_policy.promotion = 'compare' then
        perform ml._set_alias(version_id, 'challenger', 'challenge', 'all gates passed', 'ml.decide');
        return 'challenge';
    end if;
    return null;
end
$$;
comment on function ml._decide_new(bigint) is
'What becomes of a version that a job made: refused with the gates it does not pass, promoted, or made
the challenger; null: left to people, as the policy says.';

create or replace procedure ml.decide()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_work record;
    v_compared record;
    v_policy ml.retraining_policies;
    v_failed text;
begin
    for v_work in
        select v.version_id
        from ml.model_versions v
        join ml.training_jobs j on j.job_id = v.job_id
        where v.archived_at is null
            and v.created_at > clock_timestamp() - interval '7 days'
            and not exists (select from ml.decisions d where d.version_id = v.version_id)
            and not exists (select from ml.alias_history h where h.version_id = v.version_id and h.alias <> 'champion')
        order by v.version_id
    loop
        perform ml._decide_new(v_work.version_id);
    end loop;

    for v_work in
        select c.version_id, c.model, h.version_id as champion_id
        from ml.aliases c
        join ml.aliases h on h.model = c.model and h.symbol is not distinct from c.symbol
            and h.regime is not distinct from c.regime and h.alias = 'champion'
        where c.alias = 'challenger'
        order by c.model, c.version_id
    loop
        v_policy := ml._policy(v_work.model);
        continue when v_policy.promotion is distinct from 'compare';
        select * into v_compared
        from ml.compare(v_work.version_id, against => v_work.champion_id, alpha => v_policy.alpha) x;
        continue when v_compared.pairs < v_policy.min_pairs or v_compared.verdict = 'undecided';
        -- What it is against the champion live rows have shown; the other gates still hold, as far
        -- as there are figures for them (a version from elsewhere may have none).
        select string_agg(g.detail, '; ' order by g.gate) into v_failed
        from ml._gate_verdicts(v_work.version_id) g
        where not g.passed and g.against <> 'champion' and g.value is not null;
        if v_compared.verdict = 'better' and v_failed is null then
            perform ml._set_alias(v_work.version_id, 'champion', 'promote', v_compared.reason, 'ml.decide');
            perform ml._decided(
                v_work.version_id, v_work.champion_id, 'promote', v_compared.reason, to_jsonb(v_compared)
            );
        else
            perform ml._decided(
                v_work.version_id, v_work.champion_id, 'refuse',
                coalesce('gates not passed: ' || v_failed, v_compared.reason), to_jsonb(v_compared)
            );
            perform ml._clear_challenger(v_work.version_id, v_compared.reason);
        end if;
    end loop;

    -- Who was promoted is watched against the one before.
    for v_work in
        select a.version_id, a.model, p.previous_version_id as before_id, v.as_of
        from ml.aliases a
        join ml.model_versions v on v.version_id = a.version_id
        join lateral (
            select h.previous_version_id
            from ml.alias_history h
            where h.model = a.model and h.symbol is not distinct from a.symbol
                and h.regime is not distinct from a.regime and h.alias = 'champion'
                and h.version_id = a.version_id
            order by h.history_id desc
            limit 1
        ) p on p.previous_version_id is not null
        join ml.shadowed s on s.version_id = p.previous_version_id
        where a.alias = 'champion'
    loop
        v_policy := ml._policy(v_work.model);
        continue when not coalesce(v_policy.rollback, false);
        select * into v_compared
        from ml.compare(
            v_work.version_id, against => v_work.before_id, since => v_work.as_of, alpha => v_policy.alpha
        ) x;
        continue when v_compared.pairs < v_policy.min_pairs or v_compared.verdict <> 'worse';
        perform ml._set_alias(v_work.before_id, 'champion', 'rollback', v_compared.reason, 'ml.decide');
        perform ml._decided(
            v_work.version_id, v_work.before_id, 'rollback', v_compared.reason, to_jsonb(v_compared)
        );
        perform ops.raise_alert(
            'lifecycle', 'high', format('rollback:%s:%s', v_work.model, v_work.version_id),
            format('version %s of %s was taken back to %s: %s', v_work.version_id, v_work.model,
                v_work.before_id, v_compared.reason),
            to_jsonb(v_compared), model => v_work.model
        );
    end loop;

    -- A job that failed for good is told.
    for v_work in
        select j.job_id, j.model, j.symbol, j.attempts, j.error
        from ml.training_jobs j
        where j.status = 'failed' and j.finished_at > clock_timestamp() - interval '1 day'
            and not exists (
                select from ops.alerts a where a.dedup_key = 'training job:' || j.job_id
            )
    loop
        perform ops.raise_alert(
            'training', 'high', 'training job:' || v_work.job_id,
            format('training of %s for %s failed after %s attempts: %s', v_work.model,
                coalesce(v_work.symbol, 'all symbols'), v_work.attempts, left(v_work.error, 500)),
            jsonb_build_object('job_id', v_work.job_id), symbol => v_work.symbol, model => v_work.model
        );
    end loop;
end
$$;
comment on procedure ml.decide() is
'For the clock: new versions are refused with the gates they do not pass (ml.decisions), or become
challenger, or champion where there is none or the model''s policy (ml.retraining_policies) is gates;
challengers that ml.compare shows to be better are promoted, worse ones are no longer challengers;
champions shown to be worse than the one before them are taken back, with an alert. A training job
that failed for good raises an alert.';

create or replace function ml._clear_challenger(version_id bigint, reason text)
returns void
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
begin
    with gone as (
        delete from ml.aliases a
        where a.version_id = _clear_challenger.version_id and a.alias = 'challenger'
        returning a.model, a.symbol, a.regime, a.alias
    )
    insert into ml.alias_history (
        model, symbol, regime, alias, previous_version_id, action, reason, actor
    )
    select g.model, g.symbol, g.regime, g.alias, _clear_challenger.version_id, 'clear',
        _clear_challenger.reason, 'ml.decide'
    from gone g;
end
$$;
comment on function ml._clear_challenger(bigint, text) is 'Takes the alias challenger from a version.';

create or replace view ml.retraining_benefit as
select
    d.decision_id,
    d.model,
    d.symbol,
    d.regime,
    d.version_id,
    d.against_id as before_id,
    v.job_id,
    coalesce(a.cause, 'clock or by hand') as cause,
    d.at as promoted_at,
    c.pairs,
    c.mean_difference as benefit,
    c.lower,
    c.upper,
    case
        when c.lower > 0 then 'helped'
        when c.upper < 0 then 'hurt'
        else 'not known yet'
    end as verdict
from ml.decisions as d
inner join ml.model_versions as v on d.version_id = v.version_id
left join lateral (
    select 'drift' as cause from drift.actions as x
    where x.job_id = v.job_id
    order by x.action_id
    limit 1
) as a on true
cross join lateral ml.compare(d.version_id, against => d.against_id, since => v.as_of) as c
where d.decision = 'promote' and d.against_id is not null;
comment on view ml.retraining_benefit is
'Did it help? For every promotion, the loss that the version before would have had on the rows after the
new one''s training, less the loss of the new one, from shadow predictions (0 to 1; above 0: it helped),
with its confidence interval, and whether drift or the clock asked for it.';

create or replace view ml.policy_benefit as
select
    b.model,
    b.cause,
    count(*) as retrainings,
    sum(b.pairs) as pairs,
    sum(b.benefit * b.pairs) / nullif(sum(b.pairs), 0) as mean_benefit,
    count(*) filter (where b.verdict = 'helped') as helped,
    count(*) filter (where b.verdict = 'hurt') as hurt
from ml.retraining_benefit as b
group by b.model, b.cause;
comment on view ml.policy_benefit is
'What retraining was good for, by model and by what asked for it: the grounds on which to choose between
the clock and drift (ml.retraining_policies).';

create or replace procedure ml.set_policy(
    model text, policy text default null, promotion text default null, min_severity text default null,
    cooldown interval default null, rollback boolean default null, alpha double precision default null,
    reason text default null
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_now ml.retraining_policies := ml._policy(model);
begin
    if model is not null and not exists (select from ml.models m where m.model = set_policy.model) then
        raise exception 'unknown model %', quote_literal(model)
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    if coalesce(policy, 'clock') not in ('clock', 'drift', 'both', 'none')
        or coalesce(promotion, 'never') not in ('compare', 'gates', 'never')
        or ops._severity_rank(coalesce(min_severity, 'low')) is null or min_severity = 'info'
        or coalesce(cooldown, interval '0') < interval '0'
        or not (coalesce(alpha, 0.5) > 0 and coalesce(alpha, 0.5) < 1) then
        raise exception 'no such policy'
        using errcode = 'AP642',
            hint = 'policy: clock, drift, both, none; promotion: compare, gates, never; min_severity: low, medium, high, critical; cooldown not negative; alpha between 0 and 1.';
    end if;
    insert into ml.retraining_policies as p (
        model, policy, min_severity, cooldown, promotion, rollback, alpha, reason
    )
    values (
        set_policy.model, coalesce(policy, v_now.policy, 'clock'),
        coalesce(min_severity, v_now.min_severity, 'high'),
        coalesce(cooldown, v_now.cooldown, interval '1 day'),
        coalesce(promotion, v_now.promotion, 'compare'), coalesce(rollback, v_now.rollback, true),
        coalesce(alpha, v_now.alpha, 0.025), coalesce(reason, '')
    )
    on conflict on constraint retraining_policies_key do update
    set policy = excluded.policy, min_severity = excluded.min_severity,
        cooldown = excluded.cooldown, promotion = excluded.promotion, rollback = excluded.rollback,
        alpha = excluded.alpha, reason = excluded.reason, updated_at = clock_timestamp(),
        updated_by = session_user;
end
$$;
comment on procedure ml.set_policy(text, text, text, text, interval, boolean, double precision, text) is
'Sets what has a model (null: all without a policy of their own) trained anew (policy: clock, drift,
both, none), from which severity of drift on and how often at most (cooldown), what promotes a version
(promotion: compare, gates, never) and whether a worse one is taken back; what is left out stays.
Errors: AP302 unknown model, AP642 no such policy.';
