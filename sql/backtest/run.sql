-- Strategies, and trying them. Every try is a row of backtest.trials.
create or replace function backtest._checked(strategy backtest.strategies) returns backtest.strategies
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_s backtest.strategies := strategy;
    v_problem text;
    v_symbols text [];
begin
    v_problem := case
        when coalesce(v_s.strategy, '') = '' then 'it needs a name'
        when not exists (select from ml.models m where m.model = v_s.model)
            then format('unknown model %L', v_s.model)
        when not exists (select from backtest.costs c where c.costs = v_s.costs)
            then format('unknown costs %L (see backtest.costs)', v_s.costs)
        when coalesce(cardinality(v_s.symbols), 0) = 0 then 'it needs a symbol'
        when v_s.enter_long is null and v_s.enter_short is null
            then 'it never enters: give enter_long or enter_short'
        when v_s.enter_long is not null and v_s.exit_long is null and v_s.hold is null
            or v_s.enter_short is not null and v_s.exit_short is null and v_s.hold is null
            then 'it never leaves: give hold, or an exit for each side'
        when v_s.exit_long > v_s.enter_long then 'exit_long is above enter_long'
        when v_s.exit_short < v_s.enter_short then 'exit_short is below enter_short'
        when v_s.enter_short >= v_s.enter_long then 'enter_short is not below enter_long'
        when 'NaN' in (v_s.enter_long, v_s.exit_long, v_s.enter_short, v_s.exit_short)
            or v_s.enter_long = 'infinity' or v_s.enter_short = '-infinity'
            then 'a threshold is no number'
        when v_s.sizing is null or v_s.sizing not in ('fixed', 'confidence', 'volatility')
            then 'sizing is fixed, confidence or volatility'
        when v_s.fill is null or v_s.fill not in ('trade', 'book', 'bar')
            then 'fill is trade, book or bar'
        when v_s.size is null or not (v_s.size > 0 and v_s.size <= 100) then 'size is above 0, at most 100'
        when v_s.capital is null or not (v_s.capital > 0 and v_s.capital < 1e15)
            then 'capital is above 0, below 1e15'
        when v_s.target_volatility is null
            or not (v_s.target_volatility > 0 and v_s.target_volatility <= 10)
            then 'target_volatility is above 0, at most 10'
        when v_s.hold <= interval '0' or v_s.hold > interval '10 years' then 'hold is above 0, at most ten years'
        when v_s.latency is null or v_s.latency < interval '0' or v_s.latency > interval '30 days'
            then 'latency is 0 to 30 days'
        when v_s.max_wait is null or v_s.max_wait <= interval '0' or v_s.max_wait > interval '30 days'
            then 'max_wait is above 0, at most 30 days'
        when v_s.bar is null or v_s.bar < interval '1 minute' or v_s.bar > interval '30 days'
            then 'bar is one minute to 30 days'
    end;
    if v_problem is not null then
        raise exception 'strategy %: %', coalesce(quote_literal(v_s.strategy), 'null'), v_problem
        using errcode = 'AP966', hint = 'See the columns of backtest.strategies for what each setting means.';
    end if;
    select array_agg(distinct market.resolve(s.name)) into v_symbols from unnest(v_s.symbols) s (name);
    v_s.symbols := v_symbols;
    v_s.family := coalesce(nullif(v_s.family, ''), v_s.model);
    return v_s;
end
$$;
comment on function backtest._checked(backtest.strategies) is
'A strategy that can be run, its symbols resolved. Errors: AP101, AP102 symbol, AP966 a setting.';

create or replace function backtest.create_strategy(
    strategy text, model text, symbols text [], settings jsonb default '{}'
)
returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
declare
    v_s backtest.strategies;
    v_known constant text [] := array[
        'family', 'enter_long', 'exit_long', 'enter_short', 'exit_short', 'hold', 'sizing', 'size',
        'target_volatility', 'capital', 'fill', 'latency', 'max_wait', 'bar', 'costs', 'description'
    ];
begin
    v_s.strategy := create_strategy.strategy;
    v_s.model := create_strategy.model;
    v_s.symbols := create_strategy.symbols;
    v_s.family := create_strategy.model;
    v_s.sizing := 'fixed';
    v_s.size := 1;
    v_s.target_volatility := 0.02;
    v_s.capital := 100000;
    v_s.fill := 'trade';
    v_s.latency := interval '1 second';
    v_s.max_wait := interval '5 minutes';
    v_s.bar := interval '1 hour';
    v_s.costs := 'taker';
    v_s.description := '';
    v_s.created_at := clock_timestamp();
    v_s.created_by := session_user;
    v_s := backtest._checked(backtest._with(v_s, settings, v_known));
    if exists (select from backtest.strategies x where x.strategy = v_s.strategy) then
        raise exception 'strategy % is there already', quote_literal(v_s.strategy)
        using errcode = 'AP967', hint = 'Take another name: what was tried under this one stays comparable.';
    end if;
    insert into backtest.strategies select (v_s).*;
    return v_s.strategy;
end
$$;
comment on function backtest.create_strategy(text, text, text [], jsonb) is
'Declares how predictions of a model are traded. settings: an object of columns of backtest.strategies, as {"enter_long": 0.6, "exit_long": 0.5, "hold": "1 hour", "costs": "taker"}; defaults: all of the capital, fills at the next trade a second later, costs taker, hourly equity. Returns the name. Errors: AP101, AP102 symbol, AP966 a setting, AP967 the name is taken.';

create or replace function backtest._with(
    strategy backtest.strategies, settings jsonb, known text []
)
returns backtest.strategies
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_unknown text;
begin
    if settings is null or jsonb_typeof(settings) <> 'object' then
        raise exception 'settings are %, they must be an object', coalesce(settings::text, 'null')
        using errcode = 'AP966', hint = 'As in {"enter_long": 0.6, "hold": "1 hour"}.';
    end if;
    select string_agg(k.name, ', ' order by k.name) into v_unknown
    from jsonb_object_keys(settings) k (name)
    where k.name <> all (known);
    if v_unknown is not null then
        raise exception 'unknown settings: %', v_unknown
        using errcode = 'AP966', hint = 'Known: ' || array_to_string(known, ', ') || '.';
    end if;
    begin
        return jsonb_populate_record(strategy, settings);
    exception when data_exception then
        raise exception 'a setting is not readable: %', sqlerrm
        using errcode = 'AP966', hint = 'Numbers as 0.6, lengths of time as "1 hour".';
    end;
end
$$;
comment on function backtest._with(backtest.strategies, jsonb, text []) is
'A strategy with some settings changed. Errors: AP966.';

create or replace function backtest._simulate(spec text)
returns table (
    predictions bigint, given_up bigint, returns double precision [], first_bar bigint,
    symbol text [], side bigint [], prediction double precision [], decided bigint [],
    entered bigint [], entry_price double precision [], exit_decided bigint [], exited bigint [],
    exit_price double precision [], reason text [], quantity double precision [],
    gross double precision [], fees double precision [], spread double precision [],
    impact double precision [], funding double precision [], net double precision [],
    bar_end bigint [], equity double precision [], drawdown double precision [],
    "position" double precision [], turnover double precision [], metric text [],
    value double precision [], low double precision [], high double precision []
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 20
as $python$
    from alphaplus.server.backtest import service
    return service.run(plpy, GD, spec)
$python$;
comment on function backtest._simulate(text) is
'Trades by each rule of a spec (JSON), see backtest.run_variants; a row for each, columns of trades, bars and metrics as arrays, times in microseconds since 1970.';

create or replace function backtest.run_variants(
    strategy text, variants jsonb, "from" timestamptz, "to" timestamptz,
    source text default 'auto', as_of timestamptz default null, seed bigint default 1
)
returns table (
    trial_id bigint, variant jsonb, net_return double precision, sharpe double precision,
    sharpe_low double precision, sharpe_high double precision, max_drawdown double precision,
    trades bigint, hit_rate double precision, exposure double precision,
    turnover_per_day double precision, buy_and_hold_return double precision,
    random_entry_p double precision, trials_in_family bigint
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($6);
    v_s backtest.strategies;
    v_v backtest.strategies;
    v_costs backtest.costs;
    v_variant jsonb;
    v_rules jsonb := '[]';
    v_settings jsonb [] := '{}';
    v_variants jsonb [] := '{}';
    v_known constant text [] := array[
        'enter_long', 'exit_long', 'enter_short', 'exit_short', 'hold', 'sizing', 'size',
        'target_volatility', 'capital', 'latency', 'max_wait'
    ];
    v_row record;
    v_n integer := 0;
    v_id bigint;
    v_ids bigint [] := '{}';
begin
    select s.* into v_s from backtest.strategies s where s.strategy = $1;
    if not found then
        raise exception 'unknown strategy %', coalesce(quote_literal($1), 'null')
        using errcode = 'AP965', hint = 'Make one with backtest.create_strategy, or list them: select strategy from backtest.strategies.';
    end if;
    if $3 is null or $4 is null or not isfinite($3) or not isfinite($4) or $3 >= $4 then
        raise exception 'from % to % is no stretch of time', coalesce($3::text, 'null'), coalesce($4::text, 'null')
        using errcode = 'AP968', hint = 'from comes before to, both finite.';
    end if;
    if ($4 - $3) / extract(epoch from v_s.bar) > interval '1 second' * 2000000 then
        raise exception 'too many bars: % in %', v_s.bar, $4 - $3
        using errcode = 'AP969', hint = 'At most two million; take a longer bar or a shorter time.';
    end if;
    if source is null or source not in ('auto', 'recorded', 'shadow', 'walk-forward') then
        raise exception 'source is %', coalesce(quote_literal(source), 'null')
        using errcode = 'AP970', hint = 'It is auto, recorded, shadow or walk-forward.';
    end if;
    if jsonb_typeof(variants) is distinct from 'array' or jsonb_array_length(variants) not between 1 and 1000 then
        raise exception 'variants are no array of 1 to 1000 objects'
        using errcode = 'AP971', hint = 'As in [{"enter_long": 0.6}, {"enter_long": 0.7}].';
    end if;
    select c.* into strict v_costs from backtest.costs c where c.costs = v_s.costs;
    for v_variant in select e.value from jsonb_array_elements(variants) e (value) loop
        v_v := backtest._checked(backtest._with(v_s, v_variant, v_known));
        v_variants := v_variants || v_variant;
        v_settings := v_settings || (
            to_jsonb(v_v) - array['created_at', 'created_by', 'description']
            || jsonb_build_object('costs', to_jsonb(v_costs) - 'description')
        );
        v_rules := v_rules || (
            to_jsonb(v_v) || to_jsonb(v_costs) || jsonb_build_object(
                'hold_us', ops._micros(v_v.hold), 'latency_us', ops._micros(v_v.latency),
                'max_wait_us', ops._micros(v_v.max_wait)
            )
        );
    end loop;
    for v_row in
        select r.* from backtest._simulate(jsonb_build_object(
            'model', v_s.model, 'symbols', to_jsonb(v_s.symbols), 'source', source,
            'fill', v_s.fill, 'from', ops._micros($3), 'to', ops._micros($4),
            'as_of', ops._micros(v_as_of), 'bar', ops._micros(v_s.bar), 'seed', coalesce(seed, 1),
            'funding', v_costs.funding, 'rules', v_rules
        )::text) r
    loop
        v_n := v_n + 1;
        insert into backtest.trials (
            strategy, family, settings, settings_sha256, source, from_ts, to_ts, as_of, seed,
            predictions, trades, given_up, returns, first_bar
        )
        values (
            v_s.strategy, v_s.family, v_settings[v_n],
            sha256(convert_to(concat_ws('|', v_settings[v_n] - 'strategy', source, ops._micros($3), ops._micros($4)), 'UTF8')),
            source, $3, $4, v_as_of, coalesce(seed, 1), v_row.predictions, cardinality(v_row.side),
            v_row.given_up, v_row.returns, ops._at(v_row.first_bar)
        )
        returning trials.trial_id into v_id;
        v_ids := v_ids || v_id;
        insert into backtest.trades
        select
            v_id, row_number() over (order by u.place), u.symbol, u.side, u.prediction,
            ops._at(u.decided), ops._at(u.entered), u.entry_price, ops._at(u.exit_decided),
            ops._at(u.exited), u.exit_price, u.reason, u.quantity, u.gross, u.fees, u.spread,
            u.impact, u.funding, u.net
        from unnest(
            v_row.symbol, v_row.side, v_row.prediction, v_row.decided, v_row.entered,
            v_row.entry_price, v_row.exit_decided, v_row.exited, v_row.exit_price, v_row.reason,
            v_row.quantity, v_row.gross, v_row.fees, v_row.spread, v_row.impact, v_row.funding,
            v_row.net
        ) with ordinality as u (
            symbol, side, prediction, decided, entered, entry_price, exit_decided, exited,
            exit_price, reason, quantity, gross, fees, spread, impact, funding, net, place
        );
        insert into backtest.equity
        select v_id, ops._at(u.ts), u.equity, u.drawdown, u.position, u.turnover
        from unnest(v_row.bar_end, v_row.equity, v_row.drawdown, v_row.position, v_row.turnover)
            as u (ts, equity, drawdown, position, turnover);
        insert into backtest.metrics
        select v_id, u.metric, u.value, u.low, u.high
        from unnest(v_row.metric, v_row.value, v_row.low, v_row.high) as u (metric, value, low, high);
    end loop;
    return query
        select
            t.id, v_variants[t.place], m.v ['net_return']::double precision,
            m.v ['sharpe']::double precision, m.low, m.high, m.v ['max_drawdown']::double precision,
            m.v ['trades']::bigint, m.v ['hit_rate']::double precision,
            m.v ['exposure']::double precision, m.v ['turnover_per_day']::double precision,
            m.v ['buy_and_hold_return']::double precision,
            m.v ['random_entry_p']::double precision,
            (select count(distinct x.settings_sha256) from backtest.trials x where x.family = v_s.family)
        from unnest(v_ids) with ordinality as t (id, place)
        cross join lateral (
            select
                jsonb_strip_nulls(jsonb_object_agg(x.metric, x.value)) as v,
                max(x.low) filter (where x.metric = 'sharpe') as low,
                max(x.high) filter (where x.metric = 'sharpe') as high
            from backtest.metrics x
            where x.trial_id = t.id
        ) m
        order by t.place;
end
$$;
comment on function backtest.run_variants(text, jsonb, timestamptz, timestamptz, text, timestamptz, bigint) is
'Back-tests a strategy with each of several changes of its settings (an array of objects) over decisions in [from, to), reading the data once; writes a trial with its trades, equity and metrics for each and returns their figures. A prediction is decided on when it is known; it fills at the first trade, book or bar that happened after decision and latency, by when rows became known; exits are decided when a prediction that became known after the entry says so, or hold is over; what is open at the end is closed at the last row. source: recorded (ml.predictions), shadow (what the champion of each moment said by the clock), walk-forward (out-of-fold predictions of the champion), auto: recorded, before the first of them walk-forward. sharpe is annualised, with its 95 % interval by circular block bootstrap; random_entry_p: share of strategies with as many, as large and as long trades at random times that did as well. Source of the impact: square-root law, Bouchaud, Farmer and Lillo (2009). Errors: AP960 as_of, AP965 unknown strategy, AP966 a setting, AP968 time, AP969 too many bars, AP970 source, AP971 variants.';

create or replace function backtest.run(
    strategy text, "from" timestamptz, "to" timestamptz, source text default 'auto',
    as_of timestamptz default null, seed bigint default 1
)
returns table (
    trial_id bigint, net_return double precision, sharpe double precision,
    sharpe_low double precision, sharpe_high double precision, max_drawdown double precision,
    trades bigint, hit_rate double precision, exposure double precision,
    turnover_per_day double precision, buy_and_hold_return double precision,
    random_entry_p double precision, trials_in_family bigint
)
language sql volatile security definer set search_path = pg_catalog, pg_temp
rows 1
as $$
    select
        r.trial_id, r.net_return, r.sharpe, r.sharpe_low, r.sharpe_high, r.max_drawdown, r.trades,
        r.hit_rate, r.exposure, r.turnover_per_day, r.buy_and_hold_return, r.random_entry_p,
        r.trials_in_family
    from backtest.run_variants($1, '[{}]', $2, $3, $4, $5, $6) r
$$;
comment on function backtest.run(text, timestamptz, timestamptz, text, timestamptz, bigint) is
'Back-tests a strategy over decisions in [from, to): one trial, see backtest.run_variants. Its trades are in backtest.trades, its equity in backtest.equity, all its metrics in backtest.metrics; whether it is real says backtest.verdict. Errors: as backtest.run_variants.';
