-- Champion against challenger: a betting e-process on paired losses, valid whenever one looks.

create or replace function ml._validation(version_id bigint)
returns jsonb
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case
        when v.metrics ? 'brier' or v.metrics ? 'rmse' then v.metrics
        else (
            select e.metrics from ml.evaluations e
            where e.version_id = v.version_id and not e.in_sample
            order by e.evaluation_id desc limit 1
        )
    end
    from ml.model_versions v
    where v.version_id = $1
$$;
comment on function ml._validation(bigint) is
'What the database measured of a version: out of fold, else its newest evaluation on unseen rows.';

create or replace function ml._loss_ceiling(version_id bigint)
returns double precision
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case
        when v.task = 'classification' then 1.0
        else 16 * greatest((m.found ->> 'rmse')::float8 ^ 2, 1e-300)
    end
    from ml.model_versions v
    cross join lateral (select ml._validation(v.version_id) as found) m
    where v.version_id = $1
$$;
comment on function ml._loss_ceiling(bigint) is
'The squared error that counts as 1: of classes 1 (Brier''s score), of values 16 times the mean squared
error on held-out rows; a larger one counts as 1 too.';

create or replace function ml._pairs(
    challenger bigint, champion bigint, since timestamptz, until timestamptz, symbol text
)
returns table (ts timestamptz, difference double precision)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        c.ts,
        avg(
            least(1, (h.prediction - h.target) ^ 2 / b.ceiling)
            - least(1, (c.prediction - c.target) ^ 2 / b.ceiling)
        )
    from (select ml._loss_ceiling($2) as ceiling, ml._spacing($1) as spacing) b
    join ml.shadow_predictions c on c.version_id = $1 and c.target is not null
        and c.ts >= coalesce($3, '-infinity') and c.ts < coalesce($4, 'infinity')
        and public.time_bucket(b.spacing, c.ts) = c.ts
    join ml.shadow_predictions h on h.version_id = $2 and h.symbol = c.symbol and h.ts = c.ts
        and h.target = c.target
    where $5 is null or c.symbol = $5
    group by c.ts
    order by c.ts
$$;
comment on function ml._pairs(bigint, bigint, timestamptz, timestamptz, text) is
'Loss of the champion less loss of the challenger, each 0 to 1, at grid times whose outcomes do not
overlap; over the symbols of a pooled line the mean.';

create or replace function ml._evidence(
    differences bytea, alpha double precision,
    out pairs integer, out mean double precision, out lower double precision,
    out upper double precision, out e_better double precision, out e_worse double precision
)
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import betting
    return betting.evidence(differences, alpha)
$python$;
comment on function ml._evidence(bytea, double precision) is
'The e-process on differences between -1 and 1; see ml.compare.';

create or replace function ml.compare(
    challenger bigint, against bigint default null, symbol text default null,
    since timestamptz default null, until timestamptz default null,
    alpha double precision default null
)
returns table (
    challenger_id bigint, champion_id bigint, pairs integer, mean_difference double precision,
    lower double precision, upper double precision, e_better double precision,
    e_worse double precision, verdict text, reason text
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_challenger record;
    v_champion bigint := against;
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
    v_alpha double precision;
    v_found record;
begin
    -- (who compares need not be able to read artifacts)
    select v.version_id, v.model, v.symbol, v.regime, v.label into v_challenger
    from ml.model_versions v where v.version_id = challenger;
    if not found or against is not null
        and not exists (select from ml.model_versions v where v.version_id = against) then
        raise exception 'unknown model version %', coalesce(
            case when v_challenger.version_id is null then challenger else against end::text, 'null'
        )
        using errcode = 'AP404', hint = 'select version_id, model, symbol from ml.registry';
    end if;
    v_alpha := coalesce(alpha, (ml._policy(v_challenger.model)).alpha, 0.025);
    if not (v_alpha > 0 and v_alpha < 1) then
        raise exception 'alpha is %, it must be between 0 and 1', v_alpha
        using errcode = 'AP640', hint = 'For instance 0.025.';
    end if;
    if v_champion is null then
        select a.version_id into v_champion
        from ml.aliases a
        where a.model = v_challenger.model and a.symbol is not distinct from v_challenger.symbol
            and a.regime is not distinct from v_challenger.regime and a.alias = 'champion';
    end if;
    if v_champion is null then
        raise exception 'there is no champion to compare version % with', challenger
        using errcode = 'AP641', hint = 'Name one: ml.compare(challenger, against => version)';
    end if;
    if (select v.label from ml.model_versions v where v.version_id = v_champion)
        <> v_challenger.label then
        raise exception 'versions % and % predict different labels', challenger, v_champion
        using errcode = 'AP645', hint = 'Compare versions of one label.';
    end if;
    select e.* into v_found
    from ml._evidence((
        select array_send(array_agg(p.difference order by p.ts))
        from ml._pairs(challenger, v_champion, since, until, v_symbol) p
    ), v_alpha) e;
    return query
        select
            challenger, v_champion, v_found.pairs, v_found.mean, v_found.lower, v_found.upper,
            v_found.e_better, v_found.e_worse, j.verdict,
            case j.verdict
                when 'undecided' then format(
                    '%s paired outcomes do not decide it: e-value %s, %s are needed',
                    v_found.pairs, round(greatest(v_found.e_better, v_found.e_worse)::numeric, 2),
                    round((1 / v_alpha)::numeric, 1)
                )
                when 'equal' then 'it is the champion'
                else format(
                    '%s paired outcomes show it to be %s: loss difference %s, between %s and %s',
                    v_found.pairs, j.verdict, round(v_found.mean::numeric, 5),
                    round(v_found.lower::numeric, 5), round(v_found.upper::numeric, 5)
                )
            end
        from (
            select case
                when challenger = v_champion then 'equal'
                when v_found.e_better >= 1 / v_alpha and v_found.e_worse >= 1 / v_alpha then
                    case when v_found.mean > 0 then 'better' else 'worse' end
                when v_found.e_better >= 1 / v_alpha then 'better'
                when v_found.e_worse >= 1 / v_alpha then 'worse'
                else 'undecided'
            end as verdict
        ) j;
end
$$;
comment on function ml.compare(bigint, bigint, text, timestamptz, timestamptz, double precision) is
'A challenger against the champion of its line (or another version) on what both said of the same rows
(ml.shadow_predictions), at grid times whose outcomes do not overlap. mean_difference: loss of the
champion less that of the challenger (Brier''s score; of values the squared error over its ceiling),
above 0 where the challenger is better; [lower, upper]: its confidence interval at 1 - alpha, valid
at all times together. e_better, e_worse: the largest value so far of a betting e-process against
"not better", and against "not worse". verdict: better or worse where it has reached 1 / alpha, else
undecided. It may be asked at any time, as often as anyone likes: an equal challenger is ever called
better with a chance of at most alpha (default: the model''s ml.retraining_policies.alpha, 0.025).
Source: Waudby-Smith and Ramdas (2024), JRSS B 86; Shafer et al. (2011) for the largest value so far.
Errors: AP101, AP102 symbol, AP404 unknown version, AP640 alpha, AP641 no champion, AP645 another label.';

create or replace function ml._policy(model text)
returns ml.retraining_policies
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select p.*
    from ml.retraining_policies p
    where p.model = $1 or p.model is null
    order by p.model nulls last
    limit 1
$$;
comment on function ml._policy(text) is 'The retraining policy that holds for a model.';
