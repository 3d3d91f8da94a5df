-- Whether the best of what was tried is skill. What was tried is counted, not asked.
create or replace function backtest._judge(matrix bytea [], tried integer, seed bigint, draws integer)
returns table (
    place integer, statistic double precision, p_value double precision,
    deflated double precision, overfitting double precision
)
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.backtest import service
    return service.judge_all(matrix, tried, seed, draws)
$python$;
comment on function backtest._judge(bytea [], integer, bigint, integer) is
'Reality check, deflated Sharpe ratio of the best, and chance of overfitting, of returns by trial.';

create or replace function backtest.verdict(
    family text, "from" timestamptz default null, "to" timestamptz default null,
    alpha double precision default 0.05, as_of timestamptz default null
)
returns table (
    family text, trials bigint, trial_id bigint, strategy text, sharpe double precision,
    p_value double precision, is_real boolean, deflated_sharpe double precision,
    overfitting double precision, bars bigint, reason text
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 1
as $$
    select v.* from backtest._verdict($1, $2, $3, $4, $5) v
$$;
comment on function backtest.verdict(text, timestamptz, timestamptz, double precision, timestamptz) is
'Whether the best strategy of a family is real, by all that was ever tried in it over the same time (by default that of the newest trial): is_real where the p-value of the reality check (White 2000, studentised as Hansen 2005, circular blocks, benchmark: holding cash) is below alpha. Beside it the deflated Sharpe ratio (Bailey and Lopez de Prado 2014) for the number of different trials, and the chance of overfitting (CSCV with 16 parts, Bailey et al. 2017). A trial that was run twice counts once; trials of other bars or times are not compared, and reason says how many. Errors: AP960 as_of, AP972 nothing was tried, AP973 alpha.';

create or replace function backtest._verdict(
    asked_family text, asked_from timestamptz, asked_to timestamptz, asked_alpha double precision,
    asked_as_of timestamptz
)
returns table (
    family text, trials bigint, trial_id bigint, strategy text, sharpe double precision,
    p_value double precision, is_real boolean, deflated_sharpe double precision,
    overfitting double precision, bars bigint, reason text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 1
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($5);
    v_newest record;
    v_all record;
    v_other bigint;
begin
    if $4 is null or not ($4 > 0 and $4 < 1) then
        raise exception 'alpha is %', coalesce($4::text, 'null')
        using errcode = 'AP973', hint = 'It is a level between 0 and 1, as 0.05.';
    end if;
    select t.from_ts, t.to_ts, t.first_bar, cardinality(t.returns) as bars into v_newest
    from backtest.trials t
    where t.family = $1 and t.ran_at <= v_as_of
        and ($2 is null or t.from_ts = $2) and ($3 is null or t.to_ts = $3)
    order by t.trial_id desc
    limit 1;
    if not found then
        raise exception 'nothing was tried in family %', coalesce(quote_literal($1), 'null')
        using errcode = 'AP972', hint = 'Run one: select * from backtest.run(strategy, "from", "to"); families: select distinct family from backtest.trials.';
    end if;
    select
        array_agg(x.trial_id order by x.trial_id) as ids,
        array_agg(x.strategy order by x.trial_id) as names,
        array_agg(array_send(x.returns) order by x.trial_id) as returns, count(*) as n
    into v_all
    from (
        select distinct on (t.settings_sha256) t.trial_id, t.strategy, t.returns
        from backtest.trials t
        where t.family = $1 and t.ran_at <= v_as_of and t.from_ts = v_newest.from_ts
            and t.to_ts = v_newest.to_ts and t.first_bar = v_newest.first_bar
            and cardinality(t.returns) = v_newest.bars
        order by t.settings_sha256, t.trial_id desc
    ) x;
    select count(distinct t.settings_sha256) - v_all.n into v_other
    from backtest.trials t
    where t.family = $1 and t.ran_at <= v_as_of;
    return query
        select
            $1, v_all.n + v_other, v_all.ids[j.place], v_all.names[j.place],
            (select m.value from backtest.metrics m where m.trial_id = v_all.ids[j.place] and m.metric = 'sharpe'),
            j.p_value, coalesce(j.p_value < $4, false), j.deflated, j.overfitting,
            v_newest.bars::bigint,
            nullif(concat_ws(
                '; ',
                case when v_newest.bars < 100 then 'few bars: nothing can be told of less than 100' end,
                case when j.p_value is null then 'no trial traded, or too few bars' end,
                case when v_other > 0 then format(
                    '%s trials of other times or bars are counted in the deflation, but not compared', v_other
                ) end
            ), '')
        from backtest._judge(v_all.returns, (v_all.n + v_other)::integer, 1, 1000) j;
end
$$;
comment on function backtest._verdict(text, timestamptz, timestamptz, double precision, timestamptz) is
'See backtest.verdict, which calls it.';

create or replace function backtest.deflated_sharpe(
    returns double precision [], variance double precision, trials integer
)
returns double precision
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select backtest._deflated(
        array_send(array(select r.x from unnest($1) with ordinality r (x, n) where r.x is not null order by r.n)),
        $2, $3
    )
$$;
comment on function backtest.deflated_sharpe(double precision [], double precision, integer) is
'Chance that the true Sharpe ratio of returns by bar is above what the best of so many trials has by luck, whose Sharpe ratios by bar have this variance. Null where returns do not vary. Source: Bailey and Lopez de Prado (2014), Journal of Portfolio Management 40(5).';

create or replace function backtest._deflated(
    returns bytea, variance double precision, trials integer
)
returns double precision
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.backtest import service
    return service.deflate(returns, variance, trials)
$python$;
comment on function backtest._deflated(bytea, double precision, integer) is
'See backtest.deflated_sharpe.';
