-- How recorded predictions did, added up by day as their outcomes come.
create or replace function ml.ensemble_performance(
    days_back integer default 30, as_of timestamptz default null
)
returns table (
    model text, method text, is_ensemble boolean, n bigint, log_loss double precision,
    base_rate_log_loss double precision, brier double precision, accuracy double precision,
    event_rate double precision, mean_probability double precision
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_day date := timezone('UTC', coalesce(as_of, now()))::date;
begin
    return query
        select
            q.model, q.method, exists (select from ml.ensembles e where e.ensemble = q.model),
            q.n, q.log_loss / q.n,
            case when q.rate between 1e-9 and 1 - 1e-9
                then -(q.rate * ln(q.rate) + (1 - q.rate) * ln(1 - q.rate)) else 0 end,
            q.brier / q.n, q.hits::double precision / q.n, q.rate, q.said / q.n
        from (
            select
                s.model, nullif(s.method, '') as method, sum(s.n)::bigint as n,
                sum(s.log_loss) as log_loss, sum(s.brier) as brier, sum(s.hits)::bigint as hits,
                sum(s.events) / nullif(sum(s.n), 0) as rate, sum(s.said) as said
            from ml.scores s
            join (
                select m.model from ml.models m
                join ml.labels l on l.label = m.label and l.task = 'classification'
                union all
                select e.ensemble from ml.ensembles e
            ) c on c.model = s.model
            where s.day > v_day - least(greatest(coalesce(days_back, 30), 0), 36500) and s.day <= v_day
            group by s.model, s.method
            having sum(s.n) > 0
        ) q
        order by q.log_loss / q.n, q.model;
end
$$;
comment on function ml.ensemble_performance(integer, timestamptz) is
'How recorded predictions of classes did whose outcome is known, of ensembles (by method) and models, over the last days before as_of (default: now), best first: log loss in nats beside that of always saying the event rate, Brier score, share on the right side of one half.';

create or replace function ml.best_models(
    regime text default null, top_k integer default 3, days_back integer default 30,
    as_of timestamptz default null
)
returns table (
    rank bigint, model text, label text, n bigint, log_loss double precision,
    brier double precision, accuracy double precision
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_day date := timezone('UTC', coalesce(as_of, now()))::date;
    v_states text [] := case when $1 is not null then regime.resolve($1) end;
begin
    return query
        select r.rank, r.model, r.label, r.n, r.log_loss / r.n, r.brier / r.n, r.hits / r.n
        from (
            select
                row_number() over (
                    partition by m.label order by sum(s.log_loss) / sum(s.n), s.model
                ) as rank,
                s.model, m.label, sum(s.n)::bigint as n, sum(s.log_loss) as log_loss,
                sum(s.brier) as brier, sum(s.hits)::double precision as hits
            from ml.scores s
            join ml.models m on m.model = s.model
            join ml.labels l on l.label = m.label and l.task = 'classification'
            where s.day > v_day - least(greatest(coalesce($3, 30), 0), 36500) and s.day <= v_day
                and (v_states is null or s.regime = any (v_states))
            group by s.model, m.label
            having sum(s.n) > 0
        ) r
        where r.rank <= coalesce($2, 3)
        order by r.label, r.rank;
end
$$;
comment on function ml.best_models(text, integer, integer, timestamptz) is
'The models with the lowest log loss of each label, over recorded predictions of the last days before as_of (default: now) whose outcome is known, made in a regime (a state, or a name of regime.mappings; null: any). Errors: AP605 unknown regime and its like, of regime.resolve.';

create or replace view ml.regime_performance as
select
    s.model,
    s.symbol,
    nullif(s.regime, '') as regime,
    nullif(s.method, '') as method,
    sum(s.n)::bigint as n,
    sum(s.log_loss) / sum(s.n) as log_loss,
    sum(s.brier) / sum(s.n) as brier,
    sum(s.hits)::double precision / sum(s.n) as accuracy,
    sum(s.events) / sum(s.n) as event_rate,
    min(s.day) as first_day,
    max(s.day) as last_day
from ml.scores as s
group by s.model, s.symbol, s.regime, s.method
having sum(s.n) > 0;
comment on view ml.regime_performance is
'How recorded predictions with a known outcome did, by model or ensemble, symbol, regime of the time and method.';
comment on column ml.regime_performance.model is 'The model or ensemble.';
comment on column ml.regime_performance.symbol is 'The canonical symbol.';
comment on column ml.regime_performance.regime is 'The regime as known at the time; null: not known.';
comment on column ml.regime_performance.method is 'The ensemble''s method; null: a model.';
comment on column ml.regime_performance.n is 'Predictions with an outcome.';
comment on column ml.regime_performance.log_loss is 'Mean log loss in nats; of values: mean squared error.';
comment on column ml.regime_performance.brier is 'Mean squared error of the prediction.';
comment on column ml.regime_performance.accuracy is 'Share on the right side of one half.';
comment on column ml.regime_performance.event_rate is 'Mean outcome.';
comment on column ml.regime_performance.first_day is 'First day, UTC.';
comment on column ml.regime_performance.last_day is 'Last day, UTC.';
