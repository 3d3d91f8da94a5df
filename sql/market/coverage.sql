-- What is there, and what is missing from it.

create or replace view market.coverage as
with bars as (
    select
        c.symbol, c.timeframe, c.ts, c.known_at,
        lead(c.ts) over (partition by c.symbol, c.timeframe order by c.ts) as next_ts
    from market.candles c
),

holes as (
    select g.symbol, g.channel, count(*) as gaps
    from market.gaps g
    where g.repaired_at is null
    group by g.symbol, g.channel
),

skipped as (
    select q.symbol, count(*) as gaps from market.sequence_gaps q group by q.symbol
)

select
    b.symbol,
    'candles' as kind,
    b.timeframe,
    min(b.ts) as "from",
    max(timezone('UTC', timezone('UTC', b.ts) + b.timeframe)) as "to",
    count(*) as rows,
    count(*) filter (
        where b.next_ts > timezone('UTC', timezone('UTC', b.ts) + b.timeframe)
    ) as gaps,
    max(b.known_at) as last
from bars b
group by b.symbol, b.timeframe
union all
select t.symbol, 'trades', null, min(t.ts), max(t.ts), count(*), coalesce(h.gaps, 0), max(t.known_at)
from market.trades t
left join holes h on h.symbol = t.symbol and h.channel = 'trades'
group by t.symbol, h.gaps
union all
select
    o.symbol, 'order_book', null, min(o.ts), max(o.ts), count(*),
    coalesce(h.gaps, 0) + coalesce(k.gaps, 0), max(o.known_at)
from market.order_book_snapshots o
left join (
    select d.symbol, sum(d.gaps)::bigint as gaps from holes d
    where d.channel = 'book' group by d.symbol
) h on h.symbol = o.symbol
left join skipped k on k.symbol = o.symbol
group by o.symbol, h.gaps, k.gaps
union all
select
    l.symbol, 'liquidations', null, min(l.ts), max(l.ts), count(*), coalesce(h.gaps, 0), max(l.known_at)
from market.liquidation_events l
left join holes h on h.symbol = l.symbol and h.channel = 'liquidations'
group by l.symbol, h.gaps
union all
select
    f.symbol, 'funding', null, min(f.ts), max(f.ts), count(*), coalesce(h.gaps, 0), max(f.known_at)
from market.funding_rates f
left join holes h on h.symbol = f.symbol and h.channel = 'funding'
group by f.symbol, h.gaps
union all
select
    i.symbol, 'open_interest', null, min(i.ts), max(i.ts), count(*), coalesce(h.gaps, 0), max(i.known_at)
from market.open_interest i
left join holes h on h.symbol = i.symbol and h.channel = 'open_interest'
group by i.symbol, h.gaps;
comment on view market.coverage is
'What is stored: a row per symbol, kind of data and, of bars, length. Every row of the tables is counted: ask for one symbol where they are large.';
comment on column market.coverage.symbol is 'The symbol, as in market.instruments.';
comment on column market.coverage.kind is
'candles, trades, order_book (snapshots), liquidations, funding or open_interest.';
comment on column market.coverage.timeframe is 'Length of the bars; null of what is no bar.';
comment on column market.coverage."from" is 'Time of the first row; of bars, opening time.';
comment on column market.coverage."to" is 'Time of the last row; of bars, when the last one closes.';
comment on column market.coverage.rows is 'Rows stored.';
comment on column market.coverage.gaps is
'Stretches that are missing: of bars, where none follows on the last (a market''s nights and weekends too); else holes found in feeds that are not filled. market.gaps(symbol) lists them.';
comment on column market.coverage.last is 'When the newest row became known.';

create or replace function market.gaps(
    symbol text, "from" timestamptz default null, "to" timestamptz default null,
    timeframe interval default null
)
returns table (
    kind text, bar interval, gap_from timestamptz, gap_to timestamptz, missing bigint,
    how text, found_at timestamptz
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    v_symbol text := market.resolve($1);
begin
    if $4 <= interval '0' then
        raise exception 'bars of % are no bars', $4
        using errcode = 'AP245', hint = 'Give a length above zero, as ''1 hour''; null: every length that is loaded.';
    end if;
    return query
        select g.*
        from (
            select
                'candles' as kind, b.timeframe as bar, b.closes as gap_from, b.next_ts as gap_to,
                case when extract(year from b.timeframe) = 0 and extract(month from b.timeframe) = 0
                    then round(
                        extract(epoch from b.next_ts - b.closes) / extract(epoch from b.timeframe)
                    )::bigint end as missing,
                'no bars' as how, null::timestamptz as found_at
            from (
                select
                    c.timeframe, c.ts + c.timeframe as closes,
                    lead(c.ts) over (partition by c.timeframe order by c.ts) as next_ts
                from market.candles c
                where c.symbol = v_symbol and (c.timeframe = $4 or $4 is null)
            ) b
            where b.next_ts > b.closes
            union all
            select
                h.channel, null, h.from_ts, h.to_ts, h.to_id - h.from_id + 1, h.how, h.found_at
            from market.gaps h
            where h.symbol = v_symbol and h.repaired_at is null and $4 is null
            union all
            select 'order_book', null, q.ts, q.ts, q.received - q.expected, 'sequence', null
            from market.sequence_gaps q
            where q.symbol = v_symbol and $4 is null
        ) g
        where g.gap_from < coalesce($3, 'infinity')
            and coalesce(g.gap_to, 'infinity') >= coalesce($2, '-infinity')
        order by g.gap_from, g.kind, g.bar;
end
$$;
comment on function market.gaps(text, timestamptz, timestamptz, interval) is
'What is missing of a symbol between its first and its last rows, where it touches [from, to) (default: all): kind candles with the length of the bar, and how many bars are missing from gap_from (close of the last bar before) to gap_to (opening of the next): a market''s nights and weekends are among them; else holes of live feeds that are not filled (kind: channel, how: as in market.gaps; gap_to null: still open) and of recorded order books (sequence; missing: updates). timeframe: bars of this length only. Errors: AP101, AP102 symbol, AP245 no bar length.';
