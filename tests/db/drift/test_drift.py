"""Drift: SciPy's figures from raw values, references, the store of distributions, checks."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import distance

from tests.db import drift_world as world

Conn = psycopg.Connection[Any]
Floats = NDArray[np.float64]
RNG = np.random.default_rng(5)

SAMPLES: dict[str, tuple[list[float | None], list[float | None]]] = {
    "random": (RNG.normal(size=700).tolist(), RNG.normal(0.2, 1.1, size=900).tolist()),
    "tied": (
        RNG.integers(0, 5, 300).astype(float).tolist(),
        RNG.integers(1, 6, 200).astype(float).tolist(),
    ),
    "tiny": ([1.0], [2.0, 3.0]),
    "constant": ([4.0] * 20, [4.0] * 30),
    "two constants": ([4.0] * 20, [5.0] * 30),
    "nulls": ([1.0, None, 3.0, float("nan"), 2.0] * 9, [None, 2.0, 4.0, 1.5] * 11),
    "infinite": ([1.0, float("inf"), 2.0, float("-inf")] * 5, [3.0, float("inf"), 1.0] * 6),
}


def known(values: list[float | None]) -> Floats:
    return np.array([x for x in values if x is not None and not np.isnan(x)])


def one(db: Conn, query: str, *args: Any) -> Any:
    row = db.execute(query, args).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row


def binned(a: Floats, b: Floats, bins: int) -> tuple[Floats, Floats]:
    """Counts in bins of equal share of b, each (before, edge], by hand."""
    values = np.sort(np.unique(b[np.isfinite(b)]))
    if len(values) == 1:
        cuts = [np.nextafter(values[0], -np.inf), values[0]]
    elif len(values) <= bins:
        cuts = values[:-1].tolist()
    else:
        ordered = np.sort(b)
        at = [int(np.ceil(len(b) * i / bins)) - 1 for i in range(1, bins)]
        cuts = sorted(set(ordered[at].tolist()))
    ends = [-np.inf, *cuts, np.inf]

    def count(x: Floats) -> Floats:
        inside = [
            ((x > low) & (x <= high)).sum() + (x == -np.inf).sum() * (low == -np.inf)
            for low, high in itertools.pairwise(ends)
        ]
        return np.array(inside, dtype=float)

    return count(a), count(b)


@pytest.mark.parametrize("name", SAMPLES)
def test_raw_forms_equal_scipy(db_module: Conn, name: str) -> None:
    a, b = SAMPLES[name]
    x, y = known(a), known(b)
    found = one(
        db_module, "select statistic, p_value from drift.ks(%s::float8[], %s::float8[])", a, b
    )
    right = stats.ks_2samp(x, y)
    assert found == pytest.approx((right.statistic, right.pvalue), abs=1e-9)
    (found,) = one(db_module, "select drift.wasserstein(%s::float8[], %s::float8[])", a, b)
    with np.errstate(invalid="ignore"):
        area = stats.wasserstein_distance(x, y)
    assert found == (pytest.approx(area, abs=1e-9) if np.isfinite(area) else None)
    for bins in (10, 50):
        p, q = binned(x, y, bins)
        (found,) = one(db_module, "select drift.js(%s::float8[], %s::float8[], %s)", a, b, bins)
        assert found == pytest.approx(distance.jensenshannon(p, q, base=2), abs=1e-9)
        u = (p + 0.5) / (p + 0.5).sum()
        v = (q + 0.5) / (q + 0.5).sum()
        (found,) = one(db_module, "select drift.psi(%s::float8[], %s::float8[], %s)", a, b, bins)
        assert found == pytest.approx(stats.entropy(u, v) + stats.entropy(v, u), abs=1e-9)


def test_chi2_equals_scipy(db_module: Conn) -> None:
    a, b = RNG.choice(list("abcd"), 200).tolist(), RNG.choice(list("bcde"), 300).tolist()
    table = [[x.count(c) for c in "abcde"] for x in (a, b)]
    right = stats.chi2_contingency(table, correction=False)
    found = one(db_module, "select * from drift.chi2(%s::text[], %s::text[])", a, [*b, None])
    assert found == pytest.approx((right.statistic, right.pvalue, right.dof), abs=1e-9)
    assert one(db_module, "select * from drift.chi2(array['a'], array['a', 'a'])") == (0, 1, 0)
    assert one(db_module, "select (drift.chi2(null, null)).p_value") == (None,)


def test_many_tests_at_once(db_module: Conn) -> None:
    p = [0.001, 0.8, None, 0.01, 0.02]
    (found,) = one(db_module, "select drift.by(%s::float8[])", p)
    right = stats.false_discovery_control([0.001, 0.8, 0.01, 0.02], method="by")
    assert [x for x in found if x is not None] == pytest.approx(list(right), abs=1e-12)
    assert found[2] is None
    (found,) = one(db_module, "select drift.e_bh(array[100, 1, 'NaN', 30, 5]::float8[])")
    # k* with e >= n / (k q): at q = 1/15 the two largest of four
    assert found == pytest.approx([0.04, 1, None, 1 / 15, 4 / 15], abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        "drift.ks('{}', '{1}')", "drift.ks(null, '{1}')", "drift.ks('{null}', '{NaN}')",
        "drift.ks('{{1,2},{3,4}}', '{1,2}')", "drift.wasserstein('{}', '{}')",
        "drift.psi(null, null)", "drift.js('{1}', null)", "drift.by('{}')", "drift.by(null)",
        "drift.e_bh(null)",
    ],
)  # fmt: skip
def test_odd_input_is_answered(db_module: Conn, call: str) -> None:
    db_module.execute(f"select {call}")


@pytest.mark.parametrize("call", ["drift.psi('{1}', '{1}', 1)", "drift.js('{1}', '{1}', null)"])
def test_odd_bins_are_refused(db_module: Conn, call: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db_module.execute(f"select {call}")
    assert caught.value.sqlstate == "AP634" and caught.value.diag.message_hint


class World:
    """Two weeks of four features of AAA, a version trained on the first, drift in f1 in the last day."""

    def __init__(self, db: Conn) -> None:
        self.db = db
        rng = np.random.default_rng(3)
        self.set_id = world.install(db)
        rows = 14 * 1440
        x = np.column_stack([world.ar(rng, rows, phi) for phi in (0.5, 0.9, 0.0, 0.7)])
        x[:, 2] = rng.integers(0, 3, rows)  # a category
        x[rng.random(rows) < 0.05, 3] = np.nan
        p = 1 / (1 + np.exp(-1.5 * np.nan_to_num(x[:, 0]) - 1.0 * x[:, 1]))
        y = (rng.random(rows) < p).astype(float)
        self.x, self.y = x, y
        self.split = world.START + timedelta(days=7)
        world.store(db, self.set_id, "AAA", world.START, x[: 7 * 1440], y[: 7 * 1440])
        self.version = world.register(
            db, world.booster(x[: 7 * 1440], y[: 7 * 1440]), "AAA", world.START, self.split
        )
        db.execute("call ml.promote(%s, 'a toy', true)", (self.version,))
        x[13 * 1440 :, 1] += 1.2
        self.end = world.store(db, self.set_id, "AAA", self.split, x[7 * 1440 :], y[7 * 1440 :])
        db.execute("call drift.take_references()")

    def window(self, start: Any, stop: Any) -> Floats:
        a, b = ((t - world.START) // world.MINUTE for t in (start, stop))
        return self.x[max(0, a) : max(0, b)]

    def check(self, as_of: Any, window: str = "1 day") -> dict[str, Any]:
        cursor = self.db.execute(
            "select * from drift.check('toy', 'AAA', %s::interval, %s)", (window, as_of)
        )
        assert cursor.description is not None
        names = [c.name for c in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return {row["feature"]: row for row in rows}


@pytest.fixture(scope="module")
def toy(db_module: Conn) -> World:
    return World(db_module)


def test_the_reference_is_what_was_trained_on(toy: World) -> None:
    rows = toy.db.execute(
        "select feature, edges, counts, nulls, quantiles, mean, deviation, is_category, inflation,"
        " shap_share from drift.reference_features where kind = 'feature' order by ordinal"
    ).fetchall()
    assert [row[0] for row in rows] == ["f0", "f1", "f2", "f3"]
    trained = toy.x[: 7 * 1440]
    for i, (
        _,
        edges,
        counts,
        nulls,
        quantiles,
        mean,
        deviation,
        category,
        inflation,
        share,
    ) in enumerate(rows):
        column = trained[:, i][~np.isnan(trained[:, i])]
        right = np.histogram(column, [-np.inf, *np.nextafter(edges, np.inf), np.inf])[0]
        assert counts == right.tolist()
        assert nulls == np.isnan(trained[:, i]).sum()
        assert quantiles == pytest.approx(
            np.quantile(column, [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1])
        )
        assert (mean, deviation) == pytest.approx((column.mean(), column.std()))
        assert category == (i == 2)
        assert 0 <= share <= 1
        assert inflation[-1] >= 1
    assert max(rows[1][8][1::2]) > 5 > max(rows[2][8][1::2])  # phi 0.9, and independent rows
    assert sum(row[9] for row in rows) == pytest.approx(1)
    assert rows[0][9] > rows[2][9]


def test_any_window_is_a_merge(toy: World) -> None:
    """Counted from vectors, merged from hours, or from hours, days and vectors: the same answer."""
    moments = [
        (toy.end, "1 day"),
        (toy.end - timedelta(minutes=17), "3 days"),
        (toy.end - timedelta(hours=5, minutes=1), "90 minutes"),
        (toy.end, "13 days 7 hours 3 minutes"),
    ]
    toy.db.execute("delete from drift.histograms; delete from drift.coverage")
    raw = [toy.check(*m) for m in moments]
    toy.db.execute("call drift.refresh_histograms()")
    hours = one(toy.db, "select count(*) from drift.histograms where width = '1 hour'")[0]
    assert hours >= 14 * 24 - 1
    merged = [toy.check(*m) for m in moments]
    # Packed, a window ends within a block.
    toy.db.execute("delete from drift.histograms; delete from drift.coverage")
    toy.db.execute("call feature.pack('toy', array['AAA'])")
    assert one(toy.db, "select count(*) > 10 from feature.vector_blocks") == (True,)
    assert [toy.check(*m) for m in moments] == raw
    toy.db.execute("call drift.refresh_histograms()")
    assert [toy.check(*m) for m in moments] == raw
    toy.db.execute("delete from feature.vector_blocks")
    for (as_of, window), a, b in zip(moments, raw, merged, strict=True):
        assert set(a) == set(b)
        for name in a:
            for key, value in a[name].items():
                if isinstance(value, float):
                    assert b[name][key] == pytest.approx(value, abs=1e-12), (window, name, key)
                else:
                    assert b[name][key] == value, (window, name, key)
        assert as_of is not None
    # as SciPy has it of the binned values
    seen = toy.window(toy.end - timedelta(days=1), toy.end)
    for i, name in enumerate(["f0", "f1", "f3"]):
        column = (0, 1, 3)[i]
        (edges, counts) = one(
            toy.db,
            "select edges, counts from drift.reference_features where feature = %s",
            name,
        )
        values = seen[:, column][~np.isnan(seen[:, column])]
        bins = np.searchsorted(edges, values)
        before = np.repeat(np.arange(len(counts)), counts)
        assert merged[0][name]["ks"] == pytest.approx(
            stats.ks_2samp(bins, before, method="asymp").statistic, abs=1e-9
        )
        share = np.bincount(bins, minlength=len(counts))
        assert merged[0][name]["js"] == pytest.approx(
            distance.jensenshannon(share, counts, base=2), abs=1e-9
        )
        assert merged[0][name]["n"] == len(values)


def test_what_changes_is_counted_again(toy: World) -> None:
    toy.db.execute("call drift.refresh_histograms()")
    before = toy.check(toy.end, "1 day")
    at = toy.end - timedelta(hours=6)
    toy.db.execute("begin")
    toy.db.execute(
        "update feature.vectors set values = array[9, 9, 9, 9] where set_id = %s and symbol = 'AAA'"
        " and ts >= %s and ts < %s",
        (toy.set_id, at, at + timedelta(hours=2)),
    )
    changed = toy.check(toy.end, "1 day")
    assert changed["f0"]["ks"] > before["f0"]["ks"] + 0.03
    toy.db.execute("call drift.refresh_histograms()")
    assert one(toy.db, "select count(*) from drift.histogram_marks") == (0,)
    assert toy.check(toy.end, "1 day") == changed
    toy.db.execute("rollback")


def test_the_gate_on_drift_of_features(toy: World) -> None:
    """Its figure is the largest KS of a feature between the last held-out fold and the reference."""
    gate = "select value, passed from ml.gate_report(%s) where gate = 'feature_drift'"
    with toy.db.transaction(force_rollback=True):
        toy.db.execute("update ml.gates set enabled = true where gate = 'feature_drift'")
        assert one(toy.db, gate, toy.version) == (None, False)  # nothing was held out
        ts = [toy.end - timedelta(minutes=1440 - i) for i in range(0, 1440, 10)]
        first = [toy.split + timedelta(minutes=i) for i in range(144)]
        toy.db.execute(
            "insert into ml.version_predictions (version_id, symbols, ts, symbol, fold, raw,"
            " prediction, target, base_rate) select %s, '{AAA}', t, array_fill(1, array[288]),"
            " array_fill(1, array[144]) || array_fill(2, array[144]), z, z, z, z from (select"
            " array_fill(0.5::float8, array[288]) as z, array(select (extract(epoch from x) * 1e6)"
            "::bigint from unnest(%s::timestamptz[]) as x order by x) as t) q",
            (toy.version, first + ts),
        )
        last = toy.check(ts[-1] + timedelta(seconds=1), f"{1430 * 60 + 1} seconds")
        told = max(row["ks"] for row in last.values() if row["kind"] == "feature")
        assert one(toy.db, gate, toy.version) == (pytest.approx(told, abs=1e-12), False)
        assert told > 0.15


def test_the_drifted_feature_is_named_first(toy: World) -> None:
    found = toy.check(toy.end)
    first = next(iter(found.values()))
    assert first["feature"] == "f1" and first["drifted"]
    assert first["severity"] == "critical" and first["blame"] > 0.9
    assert not found["f0"]["drifted"] and not found["f2"]["drifted"] and not found["f3"]["drifted"]
    quiet = toy.check(toy.end - timedelta(days=2))
    assert not any(row["drifted"] for row in quiet.values())


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("drift.check('none')", "AP302"),
        ("drift.check('toy', 'NONE')", "AP101"),
        ("drift.check('toy', 'BBB')", "AP505"),
        ("drift.check('toy', 'AAA', '-1 day')", "AP637"),
        ("drift.check('toy', 'AAA', '1 day', 'infinity')", "AP637"),
        ("drift.check('toy', 'AAA', version => -1)", "AP404"),
        ("drift.take_reference(-1)", "AP404"),
        ("drift.adopt_reference(1, '2026-01-02', '2026-01-01')", "AP635"),
    ],
)  # fmt: skip
def test_refused_with_code_and_hint(toy: World, call: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        toy.db.execute(f"select * from {call}")
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint
