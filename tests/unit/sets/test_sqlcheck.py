"""The linter of users' SQL: what it refuses, with position, and what it lets through."""

import pytest
from alphaplus.server.sets.sqlcheck import ahead, columns, reading
from alphaplus.server.sets.sqlcheck.syntax import Catalogue, Relation

CATALOGUE = Catalogue(
    relations={
        "market.candles_1m": Relation(
            ("symbol", "ts", "open", "high", "low", "close", "volume"), "ts"
        ),
        "market.candles": Relation(("symbol", "timeframe", "ts", "close"), "ts", "timeframe"),
        "market.trades": Relation(("symbol", "ts", "price", "size", "side"), "ts"),
        "market.funding_rates": Relation(("symbol", "ts", "rate"), "ts"),
        "market.instruments": Relation(("symbol", "exchange", "base"), None),
    },
    volatile=frozenset({"pg_sleep", "set_config", "nextval", "dblink", "pg_read_file"}),
    functions=frozenset({"pg_sleep", "time_bucket", "age", "regr_slope", "set_config"}),
)
BARS = " from market.candles_1m"

CLEAN = [
    "select symbol, ts, close - lag(close) over (partition by symbol order by ts) as d" + BARS,
    "select symbol, ts, avg(close) over (partition by symbol order by ts"
    " rows between 19 preceding and current row) as sma" + BARS,
    "select symbol, ts, stddev(close) over w as sd from market.candles_1m"
    " window w as (partition by symbol order by ts rows 59 preceding)",
    "select c.symbol, c.ts, f.rate from market.candles_1m c left join lateral (select rate from"
    " market.funding_rates f where f.symbol = c.symbol and f.ts <= c.ts order by f.ts desc limit 1)"
    " f on true",
    "select c.symbol, c.ts, f.rate from market.candles_1m c join market.funding_rates f"
    " on f.symbol = c.symbol and f.ts = c.ts",
    "select c.symbol, c.ts, (select sum(t.size) from market.trades t where t.symbol = c.symbol and"
    " t.ts between c.ts - interval '5 min' and c.ts) as v from market.candles_1m c",
    "select symbol, public.time_bucket('5 min', ts) + interval '5 min' as ts, max(high) as h"
    + BARS
    + " group by 1, 2",
    "with r as (select symbol, ts, ln(close / lag(close) over (partition by symbol order by ts))"
    " as r from market.candles_1m) select symbol, ts, sum(r) over (partition by symbol order by ts"
    " rows 9 preceding) as m from r",
    "select c.symbol, c.ts, i.base from market.candles_1m c join market.instruments i"
    " on i.symbol = c.symbol",
    "with u as (select symbol, ts, close as v from market.candles_1m union all select symbol, ts,"
    " price from market.trades) select symbol, ts, sum(v) over (order by ts) as s from u",
    "select symbol, ts, rank() over (partition by ts order by ts) as r" + BARS,
    "SELECT Symbol, TS, Close AS c FROM Market.Candles_1m",
    "select known_at as ts, price as p from market.trades",
    "select distinct on (symbol, ts) symbol, ts, price as p from market.trades"
    " order by symbol, ts, price",
    "select t.ts, (array_agg(t.price order by t.size desc))[1] as p from market.trades t group by t.ts",
    "select t.ts, exists (select 1 from market.trades u where u.ts < t.ts limit 1)::int as p"
    " from market.trades t",
    "select max(ts) as ts, sum(size) as s from market.trades"
    " group by date_trunc('minute', ts) + '60 seconds'::interval",
    "with b as (select public.time_bucket('1 hour', ts) + interval '60 min' as closed, sum(size) as s"
    " from market.trades group by 1) select closed - interval '1 microsecond' as ts, s from b",
    "select t.ts, b.price as p from market.trades t join market.trades b"
    " on b.ts <= t.ts - interval '1 hour 30 minutes'",
    "select c.ts, q.p from market.candles_1m c cross join lateral (select max(u.price) as p from"
    " market.trades t join market.trades u on u.ts <= t.ts where t.ts <= c.ts) q",
    "select c.ts, (select max(p) from (select ts, price as p from market.trades) q"
    " where q.ts <= c.ts) as p from market.candles_1m c",
    "select c.ts, b.h from market.candles_1m c join (select date_trunc('hour', ts)"
    " + interval '1 hour' as e, max(high) as h from market.candles_1m group by 1) b"
    " on b.e <= c.ts and b.e > c.ts - interval '1 hour'",
    "select ts, length(E'a\\'\\\\ \\n') as f" + BARS,
    "select c.ts, u.f from market.candles_1m c, unnest(array[1, 2]) as u (f)",
    "select ts, extract(hour from (ts at time zone 'UTC')::time) as f" + BARS,
    "select ts, extract(epoch from (ts + interval '1 hour')::date::timestamptz) as f" + BARS,
    "with u as (select ts, max(ts) over (order by ts) as m from market.trades), v as (select * from u)"
    " select ts, extract(hour from (m at time zone 'UTC')::time) + extract(epoch from"
    " coalesce(m, ts)::date) as f from v",
    "select public.time_bucket('5 min', ts) + interval '5 min' - interval '1 microsecond' as ts,"
    " max(price) as h from market.trades group by 1",
    "with b as (select (public.time_bucket('5 min', ts) + interval '5 min') - interval '1 us' as e,"
    " max(price) as h from market.trades group by 1) select e as ts, lag(h) over (order by e) as f"
    " from b",
    "select t.ts, u.price as f from market.trades t join market.trades u using (symbol, ts)",
    "select t.ts, f.rate as f from market.trades t left join market.funding_rates f using (symbol, ts)",
    "select c.ts, d.close / c.close as f from market.candles c join market.candles d"
    " using (symbol, timeframe, ts)",
    "select t.ts, g * t.price as f from market.trades t, generate_series(1, 3) as g",
    "select t.ts, (select sum(u.size * k) from generate_series(1, 3) k join market.trades u"
    " on u.ts <= t.ts - k * interval '1 minute' and u.ts <= t.ts) as f from market.trades t",
    *[
        "select t.ts, c.close / t.price as f from market.trades t join lateral (select c.close from"
        f" {what} where {bound} order by c.ts desc limit 1) c on true"
        for what, bound in (
            ("market.candles c", "c.ts + c.timeframe <= t.ts"),
            ("market.candles c", "t.ts >= c.timeframe + c.ts"),
            ("market.candles c", "c.timeframe = '1 minute' and c.ts + interval '60 s' <= t.ts"),
            ("market.candles c", "c.timeframe = interval '1 h' and c.ts <= t.ts - interval '1 h'"),
            (
                "(select ts, close from market.candles where timeframe = '5 min') c",
                "c.ts + interval '5 min' < t.ts",
            ),
            ("(select *, ts + timeframe as e from market.candles) c", "c.e <= t.ts"),
        )
    ],
    "select c.ts, d.close - c.close as f from market.candles c join market.candles d"
    " on d.timeframe = c.timeframe and d.ts = c.ts - interval '1 hour'",
    "select c.ts, d.close - c.close as f from market.candles c join market.candles d"
    " on d.ts <= c.ts where d.timeframe = '1 minute' and c.timeframe = '5 minutes'",
    "select c.ts, d.close - c.close as f from market.candles c join market.candles d"
    " on d.ts + d.timeframe <= c.ts + c.timeframe",
    "select c.ts + c.timeframe - interval '1 microsecond' as ts, c.close as f from market.candles c",
    "select ts, close as f from market.candles where timeframe = '1 minute'",
    "select c.ts, t.price as f from market.candles c join market.trades t on t.ts <= c.ts",
    "select c.ts, t.price as f from market.candles c join market.trades t"
    " on t.ts < c.ts + c.timeframe",
]

LEAKS = [
    ("select symbol, ts, lead(close) over (partition by symbol order by ts) f" + BARS, "LEAD", 20),
    (
        "select symbol, ts, pg_catalog.lead(close) over (partition by symbol order by ts) f" + BARS,
        "LEAD",
        20,
    ),
    ("select symbol, ts, pg_catalog.ntile(4) over (order by ts) as z" + BARS, "ranks", None),
    ("select symbol, ts, pg_catalog.lag(close, -1) over (order by ts) z" + BARS, "negative", None),
    ("select symbol, ts, close + extract(epoch from pg_catalog.now()) z" + BARS, "when the", None),
    (
        "select distinct on (symbol) symbol, ts, close as z" + BARS + " order by symbol, ts desc",
        "not by time",
        None,
    ),
    (
        "select symbol, ts, avg(close) over (order by ts rows between 2 preceding and 2 following)"
        " f" + BARS,
        "following",
        20,
    ),
    (
        "select symbol, ts, avg(close) over (order by ts rows between unbounded preceding and"
        " unbounded following) f" + BARS,
        "following",
        20,
    ),
    (
        "select symbol, ts, (close - avg(close) over ()) / stddev(close) over () as z" + BARS,
        "whole sample",
        29,
    ),
    ("select symbol, ts, avg(close) over (partition by symbol) as z" + BARS, "whole sample", 20),
    (
        "select symbol, ts, first_value(close) over (partition by symbol order by ts desc) z"
        + BARS,
        "ascending",
        20,
    ),
    (
        "select symbol, ts, first_value(close) over w as z from market.candles_1m"
        " window w as (partition by symbol order by ts desc)",
        "ascending",
        20,
    ),
    ("select symbol, ts, sum(volume) over (order by close) as z" + BARS, "ascending", 20),
    ("select symbol, ts, percent_rank() over (order by ts) as z" + BARS, "ranks", 20),
    ("select symbol, ts, lag(close, -1) over (order by ts) as z" + BARS, "negative", 20),
    (
        "select c.symbol, c.ts, t.price from market.candles_1m c join market.trades t"
        " on t.symbol = c.symbol",
        "as-of bound",
        None,
    ),
    (
        "select c.symbol, c.ts, t.price from market.candles_1m c join market.trades t"
        " on t.symbol = c.symbol and t.ts >= c.ts",
        "as-of bound",
        None,
    ),
    (
        "select c.symbol, c.ts, t.close from market.candles_1m c join market.candles_1m t"
        " on t.symbol = c.symbol and t.ts = c.ts + interval '5 min'",
        "as-of bound",
        None,
    ),
    (
        "select c.symbol, c.ts, t.close from market.candles_1m c join market.candles_1m t"
        " on t.symbol = c.symbol and t.ts - interval '5 min' = c.ts",
        "as-of bound",
        None,
    ),
    (
        "select c.symbol, c.ts, (select max(price) from market.trades t where t.symbol = c.symbol)"
        " m from market.candles_1m c",
        "as-of bound",
        None,
    ),
    (
        "select c.symbol, c.ts, (select max(price) from market.trades) m from market.candles_1m c",
        "as-of bound",
        None,
    ),
    (
        "select c.symbol, c.ts, m.v from market.candles_1m c cross join (select max(close) as v"
        " from market.candles_1m) m",
        "whole sample",
        None,
    ),
    (
        "select symbol, public.time_bucket('5 min', ts) as ts, max(high) h"
        + BARS
        + " group by 1, 2",
        "label",
        None,
    ),
    (
        "select symbol, date_trunc('hour', ts) as ts, max(high) as h" + BARS + " group by 1, 2",
        "label",
        None,
    ),
    (
        "select symbol, max(ts) as ts, max(high) as h" + BARS + " group by symbol",
        "not by time",
        None,
    ),
    ("select symbol, ts, extract(epoch from now() - ts) as age" + BARS, "run", None),
    ("select symbol, ts, close" + BARS + " where ts < 'now'::timestamptz", "clock", None),
    ("select symbol, ts, random() as r" + BARS, "run", None),
    ("select ts, close" + BARS + " where ts < 'now'", "clock", None),
    ("select ts, close" + BARS + " where ts < 'Today 10:00'::timestamptz", "clock", None),
    ("select ts, extract(epoch from age(ts)) as a" + BARS, "day of the run", None),
    ("select ts - interval '5 min' as ts, close" + BARS, "ts may lie before", 8),
    ("select '2024-01-01'::timestamptz as ts, 1 as x", "ts may lie before", 8),
    (
        "with s as (select ts - interval '5 min' as ts, close from market.candles_1m)"
        " select s.ts, s.close from s",
        "ts may lie before",
        None,
    ),
    (
        "select b.ts, t.price as p from market.trades t join market.trades b on b.ts <= t.ts",
        "ts may lie before",
        None,
    ),
    (
        "select t.ts, b.price as p from market.trades t join market.trades b"
        " on b.ts <= t.ts - interval '-1 hour'",
        "as-of bound",
        None,
    ),
    (
        "select t.ts, b.price as p from market.trades t join market.trades b"
        " on b.ts + interval '-1 hour' <= t.ts",
        "as-of bound",
        None,
    ),
    (
        "select public.time_bucket('5 min', ts) + interval '1 min' as ts, max(high) h"
        + BARS
        + " group by 1",
        "ts may lie before",
        None,
    ),
    ("select symbol, ts, close" + BARS + " order by ts desc limit 10", "LIMIT", None),
    *[
        (f"select c.ts, {what} as f from market.candles_1m c {join}", words, None)
        for what, join, words in (
            ("(select max(t.price) from market.trades t where t.ts <= ts)", "", "as-of bound"),
            ("(select max(c.price) from market.trades c where c.ts <= c.ts)", "", "as-of bound"),
            ("(select max(c.price) from market.trades c)", "", "as-of bound"),
            ("(select max(p) from (select price as p from market.trades) q)", "", "no time"),
            (
                "c.close",
                "where c.close in (select price from market.trades union"
                " select price from market.trades)",
                "as-of bound",
            ),
            (
                "l.p",
                "cross join lateral (select max(t.price) as p from market.trades t"
                " left join market.funding_rates f on t.ts <= c.ts) l",
                "as-of bound",
            ),
            (
                "t.price",
                "cross join market.trades t cross join market.trades u"
                " where t.ts <= u.ts and u.ts <= t.ts",
                "as-of bound",
            ),
            (
                "t.price",
                "join market.trades t on t.ts between symmetric c.ts and c.ts - interval '1 hour'",
                "as-of bound",
            ),
            (
                "max(c.close) over (partition by t.ts)",
                "join market.trades t on t.ts <= c.ts",
                "whole sample",
            ),
            (
                "max(c.close) over (order by t.ts)",
                "join market.trades t on t.ts <= c.ts",
                "ascending",
            ),
            (
                "t.price",
                "join market.trades t (x, ts) on t.ts <= c.ts",
                "column names",
            ),
            (
                "t.price",
                "left join (select ts, price from market.trades order by ts desc limit 1) t"
                " on t.ts <= c.ts",
                "LIMIT",
            ),
        )
    ],
    (
        "with m as (select price from market.trades) select c.ts, m.price as f"
        " from market.candles_1m c cross join m",
        "no time",
        19,
    ),
    (
        "with m (ts, p) as (select ts - interval '1 hour', price from market.trades)"
        " select m.ts, m.p from m",
        "column names",
        6,
    ),
    (
        "select ts, close as f from market.candles_1m"
        " union all select ts - interval '1 hour', close from market.candles_1m",
        "ts may lie before",
        None,
    ),
    (
        "with u as (select ts, close as f from market.candles_1m"
        " union all select ts - interval '1 hour', close from market.candles_1m)"
        " select u.ts, u.f from u",
        "ts may lie before",
        None,
    ),
    (
        "select ts, close as f from market.candles_1m union all"
        " select ts, close from market.candles_1m order by ts desc limit 1",
        "LIMIT",
        None,
    ),
    (
        "select public.time_bucket('1 hour', ts - interval '1 day') + interval '1 hour' as ts,"
        " max(close) as f from market.candles_1m group by 1",
        "ts may lie before",
        None,
    ),
    ("select ts, ('n' || 'ow')::timestamptz > ts as f" + BARS, "put together", 13),
    ("select ts, reverse('won')::timestamptz > ts as f" + BARS, "put together", 12),
    ("select ts, timestamptz(concat('no', 'w')) > ts as f" + BARS, "put together", 12),
    ("select ts, 'no'\n'w'::timestamptz > ts as f" + BARS, "put together", 12),
    ("select ts, $$now$$::timestamptz > ts as f" + BARS, "clock", 12),
    ("select ts, E'\\x6eow'::timestamptz > ts as f" + BARS, "escapes", 12),
    ("select ts, E'n\\ow'::timestamptz > ts as f" + BARS, "escapes", 12),
    ("select ts, E'\\\\\\156ow'::timestamptz > ts as f" + BARS, "escapes", 12),
    ("select ts + interval '1 hour ago' as ts, close" + BARS, "goes back", 22),
    ("select ts, hashtext(gen_random_uuid()::text) as f" + BARS, "run", 21),
    ("select ts, length(session_user) as f" + BARS, "who asks", None),
    ("select ts, (current_role = 'a')::int as f" + BARS, "who asks", 13),
    *[
        (
            "with w as (select 'n' || 'ow' as x, ts, price, 'a' as y from market.trades),"
            f" v as (select * from w) select v.ts, {made} as f from v",
            "put together",
            None,
        )
        for made in (
            "v.x::timestamptz > v.ts",
            "x::timestamp > ts at time zone 'UTC'",
            "max(x) over (order by ts)::timestamptz > ts",
            "coalesce(x, y)::date > ts",
            "(select x)::timestamptz > ts",
            "('{' || x || '}')::timestamptz[] is null",
            "lower(('[' || x || ',)')::tstzrange) > ts",
            "json_value(x::jsonb, '$' returning timestamptz) > ts",
            "(case when price > 1 then x else y end)::timestamptz > ts",
        )
    ],
    (
        "with w as (select ts, price from market.trades union all select ts, price from"
        " market.trades), v as (select ts, 'x' as p from w union all select ts, 'n' || 'ow' from w)"
        " select ts, v.p::timestamptz > ts as f from v",
        "put together",
        None,
    ),
    *[
        (
            "select t.ts, c.close as f from market.trades t join lateral (select c.close from"
            f" {what} where {bound} order by c.ts desc limit 1) c on true",
            words,
            None,
        )
        for what, bound, words in (
            ("market.candles c", "c.ts <= t.ts", "only at their close"),
            ("market.candles c", "c.ts = t.ts", "only at their close"),
            (
                "market.candles c",
                "c.timeframe = '1 hour' and c.ts + interval '1 minute' <= t.ts",
                "only at their close",
            ),
            ("market.candles c", "c.ts + interval '1 minute' <= t.ts", "only at their close"),
            (
                "(select ts, close from market.candles where timeframe = '1 h') c",
                "c.ts + interval '5 min' < t.ts",
                "only at their close",
            ),
            ("market.candles c", "c.ts + c.timeframe >= t.ts", "as-of bound"),
        )
    ],
    (
        "select t.ts, u.price as f from market.trades t join market.trades u using (symbol)",
        "as-of",
        None,
    ),
    (
        "select t.ts, u.price as f from market.trades t right join market.trades u using (symbol, ts)",
        "as-of",
        None,
    ),
    (
        "select t.ts, c.close as f from market.trades t join market.candles c using (symbol, ts)",
        "only at their close",
        None,
    ),
    (
        "select c.ts, d.close as f from market.candles c join market.candles d using (symbol, ts)",
        "only at their close",
        None,
    ),
    (
        "select c.ts, d.close as f from market.candles c join market.candles d on d.ts <= c.ts",
        "only at their close",
        None,
    ),
    (
        "select c.ts, d.close as f from market.candles c join market.candles d on d.ts <= c.ts"
        " where d.timeframe = '1 hour' and c.timeframe = '1 minute'",
        "only at their close",
        None,
    ),
    ("select ts, lag(close, 1.5) over (order by ts) as f" + BARS, "negative", 12),
    ("select ts, lag(close, 'x') over (order by ts) as f" + BARS, "negative", 12),
    ("select ts, " + "(" * 300 + "close" + ")" * 300 + " as f" + BARS, "nested", None),
]

# A row may bear its own time and, beside it, the end of the hour that it lies in.
HOURS = (
    "with b as (select ts, date_trunc('hour', ts) + interval '1 hour' as e, price"
    " from market.trades) select b.ts, {} as f from b{}"
)
LEAKS += [
    (HOURS.format("max(b.price) over (partition by b.e)", ""), "whole sample", None),
    (HOURS.format("max(b.price) over (order by b.e)", ""), "ascending", None),
    (HOURS.format("u.price", " join market.trades u on u.ts <= b.e"), "as-of bound", None),
    (
        HOURS.replace("price from", "price, ts as o from").format(
            "o", " join market.trades u on u.ts <= b.ts join market.trades v on v.ts <= b.e"
        ),
        "as-of bound",
        None,
    ),
    (
        "select distinct on (date_trunc('hour', ts) + interval '1 hour') ts, price as f"
        " from market.trades order by date_trunc('hour', ts) + interval '1 hour', price desc",
        "not by time",
        None,
    ),
    (
        "with b as (select ts - interval '1 hour' as known_at, price as p from market.trades)"
        " select b.known_at as ts, b.p from b",
        "ts may lie before",
        None,
    ),
    (
        "select u.known_at as ts, t.price as p from market.trades t"
        " join market.trades u on u.ts <= t.ts",
        "ts may lie before",
        8,
    ),
    (
        "select c.ts + c.timeframe as ts, t.price as f from market.candles c join market.trades t"
        " on t.ts <= c.ts + interval '1 hour' where c.timeframe = '1 minute'",
        "as-of bound",
        None,
    ),
    (
        "with b as (select ts, ts + interval '1 day' as e from market.candles"
        " where timeframe = '1 minute') select b.ts, t.price as f from b join market.trades t"
        " on t.ts <= b.e",
        "as-of bound",
        None,
    ),
    (
        "select date_trunc('day', ts, 'Europe/Berlin') + interval '1 day' as ts, max(price) as f"
        " from market.trades group by 1",
        "ts may lie before",
        8,
    ),
    (
        "select public.time_bucket('1 day', ts, 'Europe/Berlin') + interval '1 day' as ts,"
        " max(price) as f from market.trades group by 1",
        "ts may lie before",
        None,
    ),
    ("select date_trunc('hour', ts) as ts, price as f from market.trades", "ts may lie before", 8),
    ("select ts, max(close) over (order by ts) as f from market.candles", "several lengths", 12),
    ("select ts, max(close) as f from market.candles group by ts", "several lengths", None),
    (
        "with u as (select ts, close as v from market.candles where timeframe = '1 hour' union all"
        " select ts, price from market.trades) select ts, max(v) over (order by ts) as f from u",
        "several lengths",
        None,
    ),
    ("select ts,\n 1 + extract(epoch from localtimestamp) as f" + BARS, "run", 25),
    ("select ts, extract(epoch from pg_catalog.now()) as f" + BARS, "run", 31),
]
CLEAN += [
    "select ts, max(close) over (order by ts) as f from market.candles where timeframe = '1 minute'",
    "select ts, max(close) over (partition by timeframe order by ts) as f from market.candles",
    "with b as (select ts + timeframe as e, close from market.candles)"
    " select e as ts, max(close) over (order by e) as f from b",
    "select ts, timeframe, max(close) as f from market.candles group by ts, timeframe",
    "with b as (select known_at, ts, price from market.trades)"
    " select b.known_at as ts, max(b.price) over (order by b.ts) as f from b",
    "with b as (select ts, ts + timeframe as e, close from market.candles) select b.e as ts,"
    " u.price as f from b join market.trades u on u.ts <= b.e",
    HOURS.format("max(b.price) over (partition by b.e order by b.ts)", ""),
    "with b as (select date_trunc('hour', ts) + interval '1 hour' as e, max(price) as p"
    " from market.trades group by 1) select e as ts, lag(p) over (order by e) as f from b",
    "with c0 as (select ts, close from market.candles_1m)"
    + "".join(f", c{i} as (select ts, close from c{i - 1})" for i in range(1, 40))
    + " select ts, close as f from c39",
]

WRITES = [
    ("select ts, unnest((select array_agg(x) from ops.settings)) as f from market.trades", "place"),
    ("delete from market.trades", "DELETE"),
    ("select 1; drop table market.trades", "2 statements"),
    ("with d as (delete from market.trades returning *) select * from d", "DELETE"),
    ("select * into market.copy from market.trades", "INTO"),
    ("select * from market.trades for update", "lock"),
    ("select pg_sleep(10) from market.trades", "volatile"),
    ("select set_config('a', 'b', false)", "volatile"),
    ("select * from pg_catalog.pg_authid", "not known"),
    ("select * from trades", "not known"),
    ("select * from (select * from secret.t) x", "not known"),
    ('select U&"\\0070g_sleep"(10) from market.trades', "Unicode"),
    ("select price operator(pg_temp.~+~) 1 from market.trades", "OPERATOR"),
    ("select (price::pg_temp.d)::float8 from market.trades", "pg_temp.d"),
    ("select 'ml.models'::regclass::int from market.trades", "type"),
    ("select pg_temp.abs(price) from market.trades", "pg_temp"),
    ("select nosuch(price) from market.trades", "not known"),
    ("selec 1", ""),
    (
        "select t.ts, (select u.price from market.trades u where u.ts <= t.ts limit 1) as p"
        " from market.trades t",
        "LIMIT without ORDER BY",
    ),
    ("select distinct on (ts) ts, price as p from market.trades", "DISTINCT ON without"),
    ("select ts, (array_agg(price))[1] as p from market.trades group by ts", "array_agg without"),
    ("", "0 statements"),
]


@pytest.mark.parametrize("query", CLEAN)
def test_clean_queries_pass(query: str) -> None:
    assert ahead.look_ahead(query, CATALOGUE) == []
    assert reading.read_only(query, CATALOGUE) == []


# What of it is still refused: what asks for rows after the newest, for the clock, or for chance. The
# rest cannot happen: a SELECT reads the rows of one moment, whatever joins and groups it holds.
REFUSED = (
    "LEAD", "following", "when the", "nested", "RECURSIVE", "TABLESAMPLE", "clock", "put together", "escapes",
    "goes back", "run", "runs", "who asks", "when the query runs", "day of the run", "Unicode",
    "changes with each run",
)  # fmt: skip


@pytest.mark.parametrize("query", [case[0] for case in LEAKS if case[1] not in REFUSED])
def test_what_the_moment_keeps_out_is_let_through(query: str) -> None:
    assert ahead.look_ahead(query, CATALOGUE) == []


@pytest.mark.parametrize(
    ("query", "words", "column"), [case for case in LEAKS if case[1] in REFUSED]
)
def test_look_ahead_is_refused_with_its_position(
    query: str, words: str, column: int | None
) -> None:
    problems = ahead.look_ahead(query, CATALOGUE)
    assert any(words in problem.reason for problem in problems), problems
    if column is not None:
        assert problems[0].column == column
    assert all(problem.hint for problem in problems)


@pytest.mark.parametrize(("query", "words"), WRITES)
def test_what_is_not_one_select_over_known_relations_is_refused(query: str, words: str) -> None:
    problems = reading.read_only(query, CATALOGUE)
    assert any(words in problem.reason for problem in problems), problems


def test_position_counts_lines() -> None:
    query = "select symbol, ts,\n    lead(close) over (order by ts) as f\nfrom market.candles_1m"
    (problem,) = ahead.look_ahead(query, CATALOGUE)
    assert (problem.line, problem.column) == (2, 5)


def test_lineage_reaches_the_raw_columns() -> None:
    query = (
        "with r as (select symbol, ts, close / lag(close) over (order by ts) as r, volume"
        " from market.candles_1m) select symbol, ts, r * volume as x, r from r"
    )
    found = columns.lineage(query, CATALOGUE)
    assert found["x"] == [f"market.candles_1m.{name}" for name in ("close", "ts", "volume")]
    assert found["symbol"] == ["market.candles_1m.symbol"]


def test_lineage_follows_views() -> None:
    views = {"market.candles_1m": "select symbol, ts, price as close from market.trades"}
    found = columns.lineage("select symbol, ts, close from market.candles_1m", CATALOGUE, views)
    assert found["close"] == ["market.trades.price"]


@pytest.mark.parametrize("value", ["f.rate", "max(f.rate)"])
def test_lineage_goes_into_a_lateral(value: str) -> None:
    query = (
        "with u as (select ts, close from market.candles_1m) select u.ts, u.close + l.z as x from u"
        f" left join lateral (select {value} as z from market.funding_rates f where f.ts <= u.ts"
        " limit 1) as l on true"
    )
    found = columns.lineage(query, CATALOGUE)
    assert found["x"] == ["market.candles_1m.close", "market.funding_rates.rate"]
