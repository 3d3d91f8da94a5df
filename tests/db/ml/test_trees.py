"""Models that backends share: the packed trees' scores are LightGBM's own to the last bit, one file
serves all backends, and whatever befalls that file no prediction is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightgbm
import numpy as np
import psycopg
import pytest
from alphaplus.trainer.artifacts import raw_scores
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Server
from tests.db import serving as w
from tests.db.serving import Array, Conn, one

RAW = "select (ml.score_version(%s, %s)).raw"
PREDICTION = "select ml.predict_version(%s, %s)"
ODD = [0.0, -0.0, 1e-36, -1e-36, 1e-35, 5e-324, 1e300, -1e300, np.inf, -np.inf, np.nan]
FILES = "select name, size from pg_ls_tmpdir() where name like 'pgsql_tmp_alphaplus_trees_%'"
OF_VERSION = """
select 'base/pgsql_tmp/' || f.name, f.size
from pg_ls_tmpdir() f
join ml.model_versions v on f.name like '%%.' || encode(v.sha256, 'hex')
where v.version_id = %s
"""
Connect = Callable[[], Conn]


@pytest.fixture(scope="module")
def world(db_module: Conn) -> Conn:
    w.install(db_module)
    return db_module


@pytest.fixture
def connect(world: Conn, server: Server) -> Iterator[Connect]:
    """A new backend of the world, which has loaded nothing."""
    opened: list[Conn] = []

    def new() -> Conn:
        opened.append(psycopg.connect(server.conninfo(world.info.dbname), autocommit=True))
        return opened[-1]

    yield new
    for conn in opened:
        conn.close()


def rows_of(rng: np.random.Generator, n: int) -> Array:
    """Rows with missing, zero, tiny, huge and infinite values."""
    x = rng.normal(size=(n, w.WIDTH))
    odd = rng.random(x.shape) < 0.2
    x[odd] = rng.choice(ODD, int(odd.sum()))
    x[rng.random(x.shape) < 0.1] = 0.0
    return x


def fit(seed: int, trees: int, **params: Any) -> lightgbm.Booster:
    """A model that has had to do with missing values and zeros."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(600, w.WIDTH))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[rng.random(x.shape) < 0.2] = 0.0
    y = np.nan_to_num(x[:, 0]) + np.isnan(x[:, 1]) - (x[:, 2] == 0) + 0.1 * rng.normal(size=600)
    if "objective" not in params:
        y = (y > 0.3).astype(float)
    return w.train(x, y, trees, seed=seed, **{"min_data_in_leaf": 2, **params})


def shared(conn: Conn, version: int) -> bool:
    return bool(
        one(conn, "select c.shared from ml.cache_status() c where c.version_id = %s", version)
    )


def scores(conn: Conn, version: int, x: Array) -> list[float]:
    return [one(conn, RAW, version, row) for row in x.tolist()]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10_000),
    trees=st.integers(1, 40),
    leaves=st.integers(2, 80),
    missing=st.sampled_from([{}, {"use_missing": False}, {"zero_as_missing": True}]),
    kind=st.sampled_from(
        [
            {},
            {"objective": "regression"},
            {"boosting": "dart"},
            {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
            {"min_data_in_leaf": 1000},  # no split at all
        ]
    ),
)
def test_packed_trees_score_as_lightgbm_does(
    world: Conn, connect: Connect, seed: int, trees: int, leaves: int,
    missing: dict[str, Any], kind: dict[str, Any],
) -> None:  # fmt: skip
    booster = fit(seed, trees, num_leaves=leaves, **missing, **kind)
    version = w.register(world, booster)
    asked = rows_of(np.random.default_rng(seed), 24)
    conn = connect()
    raw = np.asarray(booster.predict(asked, raw_score=True))
    if kind.get("boosting") == "rf":
        raw /= booster.num_trees()  # the library's raw score is the sum, its prediction is not
    assert scores(conn, version, asked) == raw.tolist()
    assert shared(conn, version)
    many = one(conn, "select ml.score_many(%s, %s)", version, asked.tolist())
    assert many == [one(conn, PREDICTION, version, row) for row in asked.tolist()]
    conn.close()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("model", ["fixed", "fixed_value"])
def test_a_forest_of_lightgbm_says_the_mean_of_its_trees(
    world: Conn, connect: Connect, model: str, packed: bool
) -> None:
    """``average_output``: a row alone, many, the trainer's scores and the explanation; packed trees
    and the library's own (a categorical split keeps a model out of the packed form)."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(600, w.WIDTH))
    x[:, 2] = rng.integers(0, 8, 600)
    y = x[:, 0] - 1.5 + 3.0 * np.isin(x[:, 2], (1, 4, 6)) + 0.1 * rng.normal(size=600)
    binary = model == "fixed"
    params = {
        "objective": "binary" if binary else "regression", "boosting": "rf", "bagging_freq": 1,
        "bagging_fraction": 0.5, "num_leaves": 8, "min_data_per_group": 1, "cat_smooth": 1,
        "verbosity": -1, "num_threads": 1,
    }  # fmt: skip
    data = lightgbm.Dataset(x, (y > 0).astype(float) if binary else y,
                            categorical_feature=[] if packed else [2])  # fmt: skip
    booster = lightgbm.train(params, data, 7)
    text = booster.model_to_string()
    assert "\naverage_output\n" in text
    assert ("\nnum_cat=1" not in text) == packed
    output = {"kind": "log_odds" if binary else "identity"}
    inputs = {"kind": "row", "features": w.WIDTH}
    version = w.register(world, booster, model, spec={"output": output, "inputs": inputs})
    asked = x[:30]
    right = np.asarray(booster.predict(asked))
    conn = connect()
    each = [one(conn, PREDICTION, version, row) for row in asked.tolist()]
    np.testing.assert_allclose(each, right, rtol=1e-12)
    assert one(conn, "select ml.score_many(%s, %s)", version, asked.tolist()) == each
    assert shared(conn, version) == packed
    raw = scores(conn, version, asked)
    np.testing.assert_allclose(raw, raw_scores("lightgbm", text.encode(), {}, asked), rtol=1e-12)
    for row, score in zip(asked[:3].tolist(), raw, strict=False):
        total = one(conn, "select sum(contribution) from ml.explain_version(%s, %s)", version, row)
        assert total == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("linear", [False, True])
def test_what_is_not_packed_is_the_librarys(world: Conn, connect: Connect, linear: bool) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, w.WIDTH))
    x[:, 0] = rng.integers(0, 8, 600)
    y = np.isin(x[:, 0], (1, 4, 6)) + 0.0
    params = {"verbosity": -1, "min_data_per_group": 1, "cat_smooth": 1, "linear_tree": linear}
    columns: list[int] = [] if linear else [0]
    booster = lightgbm.train(params, lightgbm.Dataset(x, y, categorical_feature=columns), 7)
    assert ("\nnum_cat=1" in booster.model_to_string()) != linear
    version = w.register(world, booster)
    conn = connect()
    assert scores(conn, version, x[:40]) == booster.predict(x[:40], raw_score=True).tolist()
    assert not shared(conn, version)


def test_a_setting_keeps_copies_apart(world: Conn, connect: Connect) -> None:
    version = w.register(world, fit(4, 9))
    world.execute("update ops.settings set value = 'false' where name = 'ml.share_models'")
    try:
        apart = connect()
        x = rows_of(np.random.default_rng(4), 20)
        found = scores(apart, version, x)
        assert not shared(apart, version)
    finally:
        world.execute("update ops.settings set value = 'true' where name = 'ml.share_models'")
    together = connect()
    assert scores(together, version, x) == found
    assert shared(together, version)


def test_backends_map_one_file(world: Conn, connect: Connect) -> None:
    booster = fit(5, 30)
    versions = [w.register(world, booster), w.register(world, booster, params={"again": 1})]
    x = rows_of(np.random.default_rng(5), 5)
    expected = booster.predict(x, raw_score=True).tolist()
    for _ in range(3):
        conn = connect()
        for version in versions:
            assert scores(conn, version, x) == expected
        assert one(conn, "select count(distinct bytes) from ml.cache_status()") == 1
    ((_, size),) = world.execute(OF_VERSION, (versions[0],)).fetchall()
    assert size == one(conn, "select min(bytes) from ml.cache_status()")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_is_written_anew(world: Conn, connect: Connect, data: st.DataObject) -> None:
    booster = fit(6, 12)
    version = w.register(world, booster, params={"damaged": 1})
    x = rows_of(np.random.default_rng(6), 6)
    expected = booster.predict(x, raw_score=True).tolist()
    first = connect()
    assert scores(first, version, x) == expected
    ((path, _),) = world.execute(OF_VERSION, (version,)).fetchall()
    content = bytearray(one(world, "select pg_read_binary_file(%s)", path))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "empty"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if how == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif how == "grow":
        content += b"x" * 12
    else:
        del content[at if how == "cut" else 0 :]
    # As a new file: what has the old one mapped goes on with it.
    world.execute(f"copy (select) to program 'rm {path}'")
    number = one(world, "select lo_from_bytea(0, %s)", bytes(content))
    world.execute("select lo_export(%s, %s)", (number, path))
    world.execute("select lo_unlink(%s)", (number,))
    for conn in (connect(), first, connect()):
        assert scores(conn, version, x) == expected
        assert shared(conn, version)
        conn.close()
    assert one(world, "select pg_read_binary_file(%s)", path) != bytes(content)


def test_another_models_file_is_not_taken(world: Conn, connect: Connect) -> None:
    """Whole and undamaged, of the same features, even of the same size: it is written anew."""
    boosters = [fit(seed, 12, num_leaves=4) for seed in (61, 62)]
    versions = [w.register(world, b) for b in boosters]
    x = rows_of(np.random.default_rng(7), 6)
    expected = [b.predict(x, raw_score=True).tolist() for b in boosters]
    assert expected[0] != expected[1]
    first = connect()
    for version, right in zip(versions, expected, strict=True):
        assert scores(first, version, x) == right
    paths = [world.execute(OF_VERSION, (v,)).fetchall()[0][0] for v in versions]
    world.execute(
        f"copy (select) to program 'cp {paths[0]} {paths[1]}.x; mv {paths[1]}.x {paths[1]}'"
    )
    for _ in range(2):
        fresh = connect()
        assert scores(fresh, versions[1], x) == expected[1]
        assert shared(fresh, versions[1])
    read = "select pg_read_binary_file(%s)"
    assert one(world, read, paths[0]) != one(world, read, paths[1])


def test_the_files_are_bounded_and_what_is_mapped_stays(world: Conn, connect: Connect) -> None:
    boosters = [fit(seed, 20) for seed in range(100, 112)]
    versions = [w.register(world, booster) for booster in boosters]
    x = rows_of(np.random.default_rng(7), 4)
    limit = 60_000
    world.execute(
        "update ops.settings set value = to_jsonb(%s) where name = 'ml.shared_bytes'", (limit,)
    )
    try:
        conn = connect()
        for _ in range(2):
            for version, booster in zip(versions, boosters, strict=True):
                assert scores(conn, version, x) == booster.predict(x, raw_score=True).tolist()
                assert shared(conn, version)
                assert one(world, f"select sum(size) from ({FILES}) f") <= limit
        other = connect()
        for version, booster in zip(versions, boosters, strict=True):
            assert scores(other, version, x) == booster.predict(x, raw_score=True).tolist()
    finally:
        world.execute("update ops.settings set value = '1073741824' where name = 'ml.shared_bytes'")


def test_explaining_a_shared_model_asks_the_library(world: Conn, connect: Connect) -> None:
    booster = fit(8, 15)
    version = w.register(world, booster)
    conn = connect()
    row = np.random.default_rng(8).normal(size=w.WIDTH)
    scores(conn, version, row[None])
    small = one(conn, "select total_bytes from ml.cache_status()")
    for _ in range(2):
        found = dict(
            conn.execute(
                "select feature, contribution from ml.explain_version(%s, %s)",
                (version, row.tolist()),
            ).fetchall()
        )
        expected = np.asarray(booster.predict(row[None], pred_contrib=True))[0]
        assert [found[name] for name in [*w.NAMES, "base"]] == expected.tolist()
    assert one(conn, "select total_bytes from ml.cache_status()") > small
    assert shared(conn, version)
    assert scores(conn, version, row[None]) == booster.predict(row[None], raw_score=True).tolist()
