-- The regime at a time: from what is stored where that holds, else computed from the bars.
create or replace function regime._moment(
    symbol text, width bigint, as_of bigint, spec jsonb, block_start bigint,
    carry double precision []
)
returns table (state integer, probabilities double precision [], since bigint, bar bigint)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $python$
    if "regime" not in SD:
        from alphaplus.server.regime import service
        SD["regime"] = service.moment
    return SD["regime"](plpy, GD, symbol, width, as_of, spec, block_start, carry)
$python$;
comment on function regime._moment(text, bigint, bigint, jsonb, bigint, double precision []) is
'The regime as known at a time, computed: going on from a block''s carry where that holds. Times in
microseconds since 1970; state 0: too few bars; no row: no bar, or the last is too old.';

create or replace function regime._as_json(probabilities double precision []) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return jsonb_build_object(
        'bull_trending', probabilities[1], 'bear_trending', probabilities[2],
        'sideways', probabilities[3], 'high_volatility', probabilities[4],
        'low_volatility', probabilities[5], 'crash', probabilities[6]
    );
end
$$;
comment on function regime._as_json(double precision []) is
'Six probabilities by the names of their states.';

create or replace function regime._stored(
    symbol text, timeframe interval, width bigint, version text, as_of timestamptz,
    out state smallint, out probabilities double precision [], out since timestamptz,
    out bar timestamptz, out block_start timestamptz, out carry double precision [],
    out is_answer boolean
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_block record;
    v_i integer;
begin
    is_answer := false;
    select
        b.block_start, b.through, b.bar_count, b.known_at, b.changes, b.ts, b.since,
        b.states, b.bull_trending, b.bear_trending, b.sideways, b.high_volatility,
        b.low_volatility, b.crash, b.carry
    into v_block
    from regime.blocks b
    where b.symbol = _stored.symbol and b.timeframe = _stored.timeframe
        and b.version = _stored.version and b.block_start <= _stored.as_of - _stored.timeframe
    order by b.block_start desc
    limit 1;
    if not found or as_of - timeframe >= v_block.block_start + 720 * timeframe or exists (
        select from regime.pending p
        where p.symbol = _stored.symbol and p.ts_from <= _stored.as_of
            and p.ts_to >= v_block.block_start - 720 * _stored.timeframe
    ) then
        return;
    end if;
    v_i := v_block.bar_count;
    if v_block.known_at[v_i] > as_of then
        select max(u.i) into v_i
        from unnest(v_block.known_at) with ordinality u (known_at, i)
        where u.known_at <= _stored.as_of;
    end if;
    if as_of >= v_block.through + timeframe then
        -- A newer bar may have come: go on from here.
        if v_i = v_block.bar_count then
            block_start := v_block.block_start;
            carry := v_block.carry;
        end if;
        return;
    end if;
    if v_i is null or as_of - v_block.ts[v_i] > 5 * timeframe or exists (
        select from unnest(v_block.changes) c (at)
        where c.at > v_block.known_at[v_i] and c.at <= _stored.as_of
    ) then
        return;
    end if;
    is_answer := true;
    state := v_block.states[v_i];
    since := v_block.since[v_i];
    bar := v_block.ts[v_i];
    probabilities := array[
        v_block.bull_trending[v_i], v_block.bear_trending[v_i], v_block.sideways[v_i],
        v_block.high_volatility[v_i], v_block.low_volatility[v_i], v_block.crash[v_i]
    ];
end
$$;
comment on function regime._stored(text, interval, bigint, text, timestamptz) is
'The regime at a time from the stored block, if that holds (is_answer); else the carry from which
later bars go on, where there is one.';

create or replace function regime.classify(
    symbol text, as_of timestamptz default null, timeframe interval default interval '1 hour'
)
returns table (
    regime text, confidence double precision, probabilities jsonb, since timestamptz, version text,
    bar timestamptz, in_sample boolean
)
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of a timeframe is 24 hours
rows 1
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve(classify.symbol);
    v_as_of constant timestamptz := regime._finite(coalesce(classify.as_of, now()));
    v_width constant bigint := regime._width(classify.timeframe);
    v_by record;
    v_now record;
    v_made record;
begin
    select c.version, c.spec, c.known_from into v_by
    from regime._classifier(v_symbol, classify.timeframe) c;
    select s.* into v_now
    from regime._stored(v_symbol, classify.timeframe, v_width, v_by.version, v_as_of) s;
    if not v_now.is_answer then
        select
            m.state, m.probabilities, regime._at(m.since) as since, regime._at(m.bar) as bar
        into v_made
        from regime._moment(
            v_symbol, v_width, regime._us(v_as_of), v_by.spec, regime._us(v_now.block_start),
            v_now.carry
        ) m;
        v_now.state := v_made.state;
        v_now.probabilities := v_made.probabilities;
        v_now.since := v_made.since;
        v_now.bar := v_made.bar;
    end if;
    if v_now.bar is null then
        raise exception 'no bars of % for % at %', classify.timeframe, v_symbol, v_as_of
        using errcode = 'AP602',
            detail = 'No bar that closed within the last five was known then.',
            hint = 'Load data for the symbol (alphaplus load), or ask as of a time that has data: as_of => …';
    end if;
    if v_now.state = 0 then
        raise exception 'too few bars of % for % at %', classify.timeframe, v_symbol, v_as_of
        using errcode = 'AP603', detail = 'A regime needs 24 bars at least.',
            hint = 'Load more history, or ask at a shorter timeframe.';
    end if;
    regime := (
        select s.state from regime.states s where s.position = v_now.state
    );
    confidence := v_now.probabilities[v_now.state];
    probabilities := regime._as_json(v_now.probabilities);
    since := v_now.since;
    version := v_by.version;
    bar := v_now.bar;
    in_sample := coalesce(v_as_of < v_by.known_from, false);
    return next;
end
$$;
comment on function regime.classify(text, timestamptz, interval) is
'The market regime of a symbol as known at a time (default: now), from bars of a timeframe (1 or 5 or
15 minutes, 1 or 4 hours, 1 day): regime, one of regime.states; confidence, its probability;
probabilities, one per state by name, summing to 1; since, the close of the bar at which this regime
began; version of the classifier (rules/<rule set>/<hash> or learned/<version_id>); bar, the close of
the last bar used; in_sample: the classifier was trained on what came after as_of. The regime changes
only when another state leads by the threshold margin, so it may not be the likeliest state for a
bar or two. Bars that became known after as_of never change the answer. Errors: AP101, AP102 symbol,
AP600 timeframe, AP602 no bars, AP603 too few bars, AP608 no such time. Source: explicit-duration
hidden Markov filtering, Rabiner (1989), Proceedings of the IEEE 77(2).';
