-- Strategies followed live on paper, and their record beside a back-test of the same time.
create or replace function backtest.follow(
    strategy text, source text default 'recorded', since timestamptz default null
)
returns timestamptz
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_since constant timestamptz := analytics._asked($3);
begin
    if not exists (select from backtest.strategies s where s.strategy = $1) then
        raise exception 'unknown strategy %', coalesce(quote_literal($1), 'null')
        using errcode = 'AP965', hint = 'Make one with backtest.create_strategy, or list them: select strategy from backtest.strategies.';
    end if;
    if source is null or source not in ('recorded', 'shadow') then
        raise exception 'source % cannot be followed', coalesce(quote_literal(source), 'null')
        using errcode = 'AP980', hint = 'Live there are recorded and shadow predictions.';
    end if;
    insert into backtest.followed as f (strategy, source, since, through)
    values ($1, $2, v_since, v_since)
    on conflict on constraint followed_pkey do nothing;
    if not found then
        raise exception 'strategy % is followed already', quote_literal($1)
        using errcode = 'AP981', hint = 'Its record goes on. To follow the same rules anew, make a strategy of another name.';
    end if;
    return v_since;
end
$$;
comment on function backtest.follow(text, text, timestamptz) is
'Lets a strategy trade live on paper from since (default: now) on: the clock (backtest.step) decides on each prediction when it is known and writes closed trades to backtest.live_trades. source: recorded (ml.predictions) or shadow. Returns since. Errors: AP960 since, AP965 unknown strategy, AP980 source, AP981 it is followed already.';

create or replace function backtest.unfollow(strategy text) returns timestamptz
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_at timestamptz;
begin
    update backtest.followed f set stopped_at = coalesce(f.stopped_at, clock_timestamp())
    where f.strategy = $1
    returning f.stopped_at into v_at;
    if not found then
        raise exception 'strategy % is not followed', coalesce(quote_literal($1), 'null')
        using errcode = 'AP982', hint = 'Those that are: select strategy from backtest.followed.';
    end if;
    return v_at;
end
$$;
comment on function backtest.unfollow(text) is
'Stops following a strategy; its record stays, and what is open stays open. Errors: AP982 it is not followed.';

create or replace function backtest._step(spec text)
returns table (
    state text, decided bigint [], side bigint [], prediction double precision [],
    entered bigint [], entry_price double precision [], exit_decided bigint [], exited bigint [],
    exit_price double precision [], reason text [], quantity double precision [],
    gross double precision [], fees double precision [], spread double precision [],
    impact double precision [], funding double precision [], net double precision []
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.backtest import live
    return list(live.step(plpy, GD, spec))
$python$;
comment on function backtest._step(text) is
'One instrument of a followed strategy from where it stood (JSON) up to a time; see backtest.step.';

create or replace function backtest._advance(strategy text, as_of timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
#variable_conflict use_column
declare
    v_f backtest.followed;
    v_s backtest.strategies;
    v_costs backtest.costs;
    v_symbol text;
    v_row record;
    v_closed bigint := 0;
begin
    -- One at a time: who comes second goes on from where the first stopped.
    select f.* into v_f from backtest.followed f where f.strategy = $1 for update;
    if $2 <= v_f.through then
        return 0;
    end if;
    select s.* into strict v_s from backtest.strategies s where s.strategy = $1;
    select c.* into strict v_costs from backtest.costs c where c.costs = v_s.costs;
    foreach v_symbol in array v_s.symbols loop
        select r.* into v_row
        from backtest._step(jsonb_build_object(
            'model', v_s.model, 'symbol', v_symbol, 'source', v_f.source, 'fill', v_s.fill,
            'since', ops._micros(v_f.since), 'through', ops._micros(v_f.through),
            'now', ops._micros($2), 'funding', v_costs.funding,
            'state', (
                select p.state from backtest.live_positions p
                where p.strategy = $1 and p.symbol = v_symbol
            ),
            'rule', to_jsonb(v_s) || to_jsonb(v_costs) || jsonb_build_object(
                'hold_us', ops._micros(v_s.hold), 'latency_us', ops._micros(v_s.latency),
                'max_wait_us', ops._micros(v_s.max_wait)
            )
        )::text) r;
        insert into backtest.live_positions as p (strategy, symbol, state)
        values ($1, v_symbol, v_row.state::jsonb)
        on conflict on constraint live_positions_pkey do update set state = excluded.state;
        insert into backtest.live_trades (
            strategy, symbol, decided_at, side, prediction, entered_at, entry_price,
            exit_decided_at, exited_at, exit_price, exit_reason, quantity, gross, fees, spread,
            impact, funding, net
        )
        select
            $1, v_symbol, ops._at(u.decided), u.side, u.prediction, ops._at(u.entered),
            u.entry_price, ops._at(u.exit_decided), ops._at(u.exited), u.exit_price, u.reason,
            u.quantity, u.gross, u.fees, u.spread, u.impact, u.funding, u.net
        from unnest(
            v_row.decided, v_row.side, v_row.prediction, v_row.entered, v_row.entry_price,
            v_row.exit_decided, v_row.exited, v_row.exit_price, v_row.reason, v_row.quantity,
            v_row.gross, v_row.fees, v_row.spread, v_row.impact, v_row.funding, v_row.net
        ) u (
            decided, side, prediction, entered, entry_price, exit_decided, exited, exit_price,
            reason, quantity, gross, fees, spread, impact, funding, net
        );
        v_closed := v_closed + cardinality(v_row.decided);
    end loop;
    update backtest.followed f set through = $2 where f.strategy = $1;
    return v_closed;
end
$$;
comment on function backtest._advance(text, timestamptz) is
'Lets a followed strategy act on all that was known before a time; gives how many trades it closed.';

create or replace procedure backtest.step(as_of timestamptz default null)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_strategy text;
    -- What was known a moment ago may be of a transaction that has not ended yet.
    v_as_of constant timestamptz := case
        when as_of is null then clock_timestamp() - ops.setting_interval('backtest.live_lag', interval '10 seconds')
        else analytics._asked(as_of)
    end;
begin
    for v_strategy in
        select f.strategy from backtest.followed f where f.stopped_at is null order by f.strategy
    loop
        perform backtest._advance(v_strategy, v_as_of);
    end loop;
end
$$;
comment on procedure backtest.step(timestamptz) is
'For the clock: lets followed strategies act on what became known before as_of (default: now less the setting backtest.live_lag). Errors: AP960 as_of.';

create or replace function backtest.live_differences(strategy text)
returns table (
    symbol text, decided_at timestamptz, what text, live text, backtest text
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres' set timezone = 'UTC'
rows 10
as $$
#variable_conflict use_column
declare
    v_f backtest.followed;
    v_s backtest.strategies;
    v_costs backtest.costs;
begin
    select f.* into v_f from backtest.followed f where f.strategy = $1;
    if not found then
        raise exception 'strategy % is not followed', coalesce(quote_literal($1), 'null')
        using errcode = 'AP982', hint = 'Those that are: select strategy from backtest.followed.';
    end if;
    if v_f.through <= v_f.since then
        return;
    end if;
    select s.* into strict v_s from backtest.strategies s where s.strategy = $1;
    select c.* into strict v_costs from backtest.costs c where c.costs = v_s.costs;
    return query
        with ran as (
            select r.*
            from backtest._simulate(jsonb_build_object(
                'model', v_s.model, 'symbols', to_jsonb(v_s.symbols), 'source', v_f.source,
                'fill', v_s.fill, 'from', ops._micros(v_f.since), 'to', ops._micros(v_f.through),
                'as_of', ops._micros(v_f.through), 'bar', ops._micros(v_s.bar), 'seed', 1,
                'funding', v_costs.funding,
                'rules', jsonb_build_array(
                    to_jsonb(v_s) || to_jsonb(v_costs) || jsonb_build_object(
                        'hold_us', ops._micros(v_s.hold), 'latency_us', ops._micros(v_s.latency),
                        'max_wait_us', ops._micros(v_s.max_wait)
                    )
                )
            )::text) r
        ),
        tested as (
            select
                u.symbol, ops._at(u.decided) as decided_at, u.reason,
                jsonb_build_object(
                    'side', u.side, 'prediction', u.prediction, 'entered_at', ops._at(u.entered),
                    'entry_price', u.entry_price, 'quantity', u.quantity
                ) as opened,
                jsonb_build_object(
                    'exit_decided_at', ops._at(u.exit_decided), 'exited_at', ops._at(u.exited),
                    'exit_price', u.exit_price, 'exit_reason', u.reason, 'gross', u.gross,
                    'fees', u.fees, 'spread', u.spread, 'impact', u.impact, 'funding', u.funding,
                    'net', u.net
                ) as closed
            from ran r
            cross join lateral unnest(
                r.symbol, r.side, r.prediction, r.decided, r.entered, r.entry_price,
                r.exit_decided, r.exited, r.exit_price, r.reason, r.quantity, r.gross, r.fees,
                r.spread, r.impact, r.funding, r.net
            ) u (
                symbol, side, prediction, decided, entered, entry_price, exit_decided, exited,
                exit_price, reason, quantity, gross, fees, spread, impact, funding, net
            )
        ),
        lived as (
            select
                t.symbol, t.decided_at,
                jsonb_build_object(
                    'side', t.side, 'prediction', t.prediction, 'entered_at', t.entered_at,
                    'entry_price', t.entry_price, 'quantity', t.quantity
                ) as opened,
                jsonb_build_object(
                    'exit_decided_at', t.exit_decided_at, 'exited_at', t.exited_at,
                    'exit_price', t.exit_price, 'exit_reason', t.exit_reason, 'gross', t.gross,
                    'fees', t.fees, 'spread', t.spread, 'impact', t.impact, 'funding', t.funding,
                    'net', t.net
                ) as closed
            from backtest.live_trades t
            where t.strategy = $1
            union all
            -- What is open: as far as it is known.
            select
                p.symbol, ops._at((p.state ->> 'decided')::bigint),
                jsonb_build_object(
                    'side', (p.state ->> 'side')::numeric::integer,
                    'prediction', (p.state ->> 'prediction')::double precision,
                    'entered_at', ops._at((p.state #>> '{entry,0}')::bigint),
                    'entry_price', (
                        (p.state #>> '{entry,2}')::double precision
                        + (p.state #>> '{entry,3}')::double precision
                    ) / 2
                ), null
            from backtest.live_positions p
            where p.strategy = $1 and p.state -> 'entry' <> 'null'
        ),
        both_sides as (
            select
                coalesce(l.symbol, b.symbol) as symbol,
                coalesce(l.decided_at, b.decided_at) as decided_at,
                case when l.symbol is not null then l.opened || coalesce(l.closed, '{"open": "yes"}') end as lived,
                case
                    when b.symbol is null then null
                    when b.reason = 'end' then case when l.closed is null
                        then b.opened - 'quantity' else b.opened end || '{"open": "yes"}'
                    else b.opened || b.closed
                end as tested
            from lived l
            full join tested b on b.symbol = l.symbol and b.decided_at = l.decided_at
        )
        select d.symbol, d.decided_at, k.name, d.lived ->> k.name, d.tested ->> k.name
        from both_sides d
        cross join lateral jsonb_object_keys(
            coalesce(d.lived, '{}') || coalesce(d.tested, '{}')
        ) k (name)
        where case
            when jsonb_typeof(d.lived -> k.name) = 'number' and jsonb_typeof(d.tested -> k.name) = 'number'
                then abs((d.lived ->> k.name)::double precision - (d.tested ->> k.name)::double precision)
                    > 1e-9 * greatest(1, abs((d.tested ->> k.name)::double precision))
            else (d.lived -> k.name) is distinct from (d.tested -> k.name)
        end
        order by d.decided_at, d.symbol, k.name;
end
$$;
comment on function backtest.live_differences(text) is
'Where the live record of a followed strategy and a back-test of the same time, with what is known now of it, are not the same, trade by trade and figure by figure (relative tolerance 1e-9); no rows: they are the same. The back-test writes no trial. It differs where rows came that claim to have been known before (a backfill), where predictions were deleted, and where funding was corrected after a trade was closed. Errors: AP982 it is not followed.';
