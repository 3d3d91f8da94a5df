-- Regimes of every bar, as known then and in hindsight: what is stored, and what would be.
-- Belongs to alphaplus_copy (privileges.sql), the one role that may COPY from a file: which here is
-- memory of this very backend and nothing else.
create or replace function regime._copy_blocks(handle integer) returns void
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.regime import storage
    storage.copy_from_memory(plpy, handle)
$python$;
comment on function regime._copy_blocks(integer) is
'Copies blocks from this backend''s memory into regime.blocks. Errors: AP612 it is no such memory.';

create or replace function regime._forget(
    symbols text [], version text, width bigint, since bigint
)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    delete from regime.blocks b
    where b.symbol = any ($1) and b.version = $2
        and b.timeframe = $3 * interval '1 microsecond' and b.block_start >= regime._at($4)
$$;
comment on function regime._forget(text [], text, bigint, bigint) is
'Deletes the blocks of symbols and a version from a time on, which are then stored anew.';

create or replace function regime._store(
    symbols text [], width bigint, versions text [], spec jsonb, thresholds jsonb, first bigint,
    stop bigint
)
returns bigint
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.regime import service
    return service.store(plpy, GD, symbols, width, versions, spec, thresholds, first, stop)
$python$;
comment on function regime._store(text [], bigint, text [], jsonb, jsonb, bigint, bigint) is
'Computes and stores the blocks of symbols from the one of a time on; see regime.refresh. versions: of
the classifier and of the verdict.';

create or replace function regime._replay(
    symbol text, width bigint, spec jsonb, thresholds jsonb, first bigint, stop bigint, as_of bigint
)
returns table (
    bar bigint, known bigint, state integer, since bigint, probabilities double precision [],
    verdict integer, verdict_known bigint
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $python$
    from alphaplus.server.regime import service
    return service.replay(plpy, GD, symbol, width, spec, thresholds, first, stop, as_of)
$python$;
comment on function regime._replay(text, bigint, jsonb, jsonb, bigint, bigint, bigint) is
'Regimes of the bars that closed in a stretch, computed; see regime.replay.';

create or replace function regime._rule_set_of(symbol text, timeframe interval) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((
        select c.rule_set
        from regime.classifiers c
        where (c.symbol = $1 or c.symbol is null) and c.timeframe = $2
        order by c.symbol nulls last
        limit 1
    ), 'default');
end
$$;
comment on function regime._rule_set_of(text, interval) is
'The rule set of a symbol''s classifier at a timeframe.';

create or replace function regime.replay(
    symbol text, "from" timestamptz, "to" timestamptz, thresholds jsonb default '{}',
    timeframe interval default interval '1 hour', rule_set text default 'default',
    as_of timestamptz default null
)
returns table (
    ts timestamptz, regime text, confidence double precision, probabilities jsonb,
    since timestamptz, known_at timestamptz, verdict text, verdict_known_at timestamptz
)
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of a timeframe is 24 hours
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve(replay.symbol);
    v_width constant bigint := regime._width(replay.timeframe);
    v_first constant bigint := regime._us(regime._finite(replay."from"));
    v_stop constant bigint := regime._us(regime._finite(replay."to"));
    v_thresholds constant jsonb := regime.rule_thresholds(replay.rule_set)
        || regime._checked_thresholds(coalesce(replay.thresholds, '{}'));
begin
    return query
        select
            regime._at(r.bar), s.state, r.probabilities[r.state], regime._as_json(r.probabilities),
            regime._at(r.since), regime._at(r.known), v.state, regime._at(r.verdict_known)
        from regime._replay(
            v_symbol, v_width, jsonb_build_object('thresholds', v_thresholds), v_thresholds,
            v_first, v_stop,
            case when replay.as_of is null then 9223372036854775807
                else regime._us(regime._finite(replay.as_of)) end
        ) r
        join regime.states s on s.position = r.state
        left join regime.states v on v.position = r.verdict;
end
$$;
comment on function regime.replay(
    text, timestamptz, timestamptz, jsonb, interval, text, timestamptz
) is
'The regimes of the bars that closed in [from, to) by the rules, as regime.history would have them
under a rule set and changed thresholds ({"bull_trend": 0.15}; regime.threshold_names); nothing is
stored. as_of: only bars known by then (null: all). Errors: AP101, AP102 symbol, AP600 timeframe,
AP604 thresholds, AP608 no such time.';

create or replace function regime.verdicts(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz,
    timeframe interval default interval '1 hour'
)
returns table (ts timestamptz, verdict text, known_at timestamptz)
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of a timeframe is 24 hours
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve(verdicts.symbol);
    v_width constant bigint := regime._width(verdicts.timeframe);
    v_thresholds jsonb;
begin
    select regime.rule_thresholds(c.rule_set) into v_thresholds
    from regime._classifier(v_symbol, verdicts.timeframe) c;
    return query
        select regime._at(r.bar), s.state, regime._at(r.verdict_known)
        from regime._replay(
            v_symbol, v_width, jsonb_build_object('thresholds', v_thresholds), v_thresholds,
            regime._us(regime._finite(verdicts."from")), regime._us(regime._finite(verdicts."to")),
            regime._us(regime._finite(verdicts.as_of))
        ) r
        join regime.states s on s.position = r.verdict
        where r.verdict_known <= regime._us(verdicts.as_of);
end
$$;
comment on function regime.verdicts(text, timestamptz, timestamptz, timestamptz, interval) is
'The verdicts that were known by as_of, of the bars that closed in [from, to), computed from the bars
known by then: what training rows are chosen by. Errors: AP101, AP102 symbol, AP600 timeframe, AP608
no such time.';
