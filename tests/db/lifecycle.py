"""A toy world for tests of the life cycle: a model whose training set is a table of known truth.

It replaces the training functions in the test's own database, so that a training run takes a
second and the best achievable score is known.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from tests.db.toy_labels import unchecked

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = ["one", "two", "three", "noise"]

FUNCTIONS = """
create table public.toy_rows (
    symbol text, ts timestamptz, features float8 [], target float8, primary key (symbol, ts)
);
create table public.toy_delay (seconds float8);
alter table public.toy_rows owner to alphaplus_owner;
alter table public.toy_delay owner to alphaplus_owner;
drop function if exists ml._training_bytes, ml.training_set, ml._training_targets;
create function ml.training_set(
    model text, symbol text, as_of timestamptz, "from" timestamptz default null,
    "to" timestamptz default null
) returns table (
    symbol text, ts timestamptz, label_end timestamptz, features float8 [], target float8
) language sql stable as $$
    select r.symbol, r.ts, r.ts + l.horizon, r.features,
        case when l.task = 'regression' then exp(3 * r.target + coalesce(r.features[1], 0)) else r.target end
    from public.toy_rows r, ml.models m
    join ml.labels l on l.label = m.label
    where m.model = $1 and (r.symbol = $2 or $2 is null) and r.ts + l.horizon <= $3
        and ($4 is null or r.ts >= $4)
        and (select coalesce(max(seconds), 0) = 0 or pg_sleep(max(seconds)) is not null from public.toy_delay)
    order by r.symbol, r.ts
$$;
create function ml._training_bytes(
    model text, symbol text, as_of timestamptz, "from" timestamptz, "to" timestamptz, regime text
) returns bytea language plpython3u stable as $$
    import numpy as np
    plan = plpy.prepare(
        "select (extract(epoch from t.ts) * 1000000)::bigint as ts,"
        " (extract(epoch from t.label_end) * 1000000)::bigint as label_end, t.target, t.features,"
        " dense_rank() over (order by t.symbol) as symbol"
        " from ml.training_set($1, $2, $3, $4, $5) t order by t.ts, t.symbol",
        ["text", "text", "timestamptz", "timestamptz", "timestamptz"],
    )
    rows = plpy.execute(plan, [model, symbol, as_of, args[3], args[4]])
    columns = (("ts", "<i8"), ("label_end", "<i8"), ("target", "<f8"), ("symbol", "<i4"), ("features", "<f8"))
    return np.array([len(rows), 4], dtype="<i8").tobytes() + b"".join(
        np.array([r[name] for r in rows], dtype=kind).tobytes() for name, kind in columns
    )
$$;
create function ml._training_targets(
    model text, symbol text, as_of timestamptz, "from" timestamptz
) returns bytea language plpython3u stable as $$
    import numpy as np
    plan = plpy.prepare(
        "select ml._training_bytes($1, $2, $3, $4, null, null) as b",
        ["text", "text", "timestamptz", "timestamptz"],
    )
    block = plpy.execute(plan, [model, symbol, as_of, args[3]])[0]["b"]
    n = int(np.frombuffer(block, "<i8", 1)[0])
    return block[:8] + block[16:16 + 28 * n]
$$;
revoke all on function ml.training_set, ml._training_bytes, ml._training_targets from public;
alter function ml._training_targets owner to alphaplus_owner;
alter function ml.training_set owner to alphaplus_owner;
alter function ml._training_bytes owner to alphaplus_owner;
"""


# Seconds after which something hangs: many times what it takes on a busy machine.
HANG = 900


def toy_rows(
    rows: int, seed: int = 1, signal_strength: float = 1.5
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(features, true probability, target); a tenth of feature three is not knowable."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, len(FEATURES)))
    logit = -1.0 + signal_strength * (x[:, 0] + 0.5 * x[:, 1] * (x[:, 2] > 0))
    p = 1 / (1 + np.exp(-logit))
    y = (rng.random(rows) < p).astype(float)
    x[rng.random(rows) < 0.1, 2] = np.nan
    return x, p, y


def install(db: psycopg.Connection[Any]) -> None:
    """The toy's feature set, labels, models and functions."""
    db.execute("set client_min_messages = warning")
    db.execute(FUNCTIONS)
    db.execute(
        "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
        " values ('toy', %s, 'toy', 'builtin', '0', sha256('toy'))",
        (FEATURES,),
    )
    for label, task in (("toy", "classification"), ("toy_volume", "regression")):
        with unchecked(db):
            db.execute(
                "insert into ml.labels (label, task, kind, horizon, description)"
                " values (%s, %s, 'toy', '5 min', 'toy')",
                (label, task),
            )
        db.execute(
            "insert into ml.models (model, label, feature_set, feature_version, params, training)"
            " values (%s, %s, 'toy', 1, %s, '{\"folds\": 3}')",
            (label, label, Jsonb({"rounds": 60, "early_stopping": 10})),
        )
    for symbol in ("AAA", "BBB"):
        db.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values (%s, 'toy', %s, %s, 'USDT') on conflict do nothing",
            (symbol, symbol, symbol),
        )


def fill(
    db: psycopg.Connection[Any],
    symbol: str = "AAA",
    rows: int = 3000,
    start: int = 0,
    seed: int = 1,
    signal_strength: float = 1.5,
) -> None:
    """Rows of a symbol, one a minute from the ``start``-th minute on."""
    x, _, y = toy_rows(rows, seed, signal_strength)
    with db.cursor() as cursor, cursor.copy("copy public.toy_rows from stdin") as copy:
        for i in range(rows):
            copy.write_row(
                (
                    symbol,
                    START + timedelta(minutes=start + i),
                    [None if np.isnan(v) else float(v) for v in x[i]],
                    float(y[i]),
                )
            )


def retrain(
    db: psycopg.Connection[Any], model: str = "toy", symbol: str | None = "AAA", **options: Any
) -> int:
    """Ask for training; the job's id."""
    row = db.execute(
        "call ml.retrain(%s, %s, options => %s)", (model, symbol, Jsonb(options))
    ).fetchone()
    assert row is not None
    return int(row[0])


def job(db: psycopg.Connection[Any], job_id: int) -> Any:
    """The job's row as a named tuple."""
    with db.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        return cursor.execute("select * from ml.jobs where job_id = %s", (job_id,)).fetchone()


def run_trainer(conninfo: str, *arguments: str) -> subprocess.Popen[str]:
    """A trainer as users start it: a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "alphaplus.trainer",
            "--threads",
            "1",
            *arguments,
        ],
        env={
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith("PG") and k != "DATABASE_URL"
            },
            "DATABASE_URL": conninfo,  # a password is no argument: those are everybody's to read
            "PYTHONPATH": os.pathsep.join(
                str(ROOT / d) for d in ("plpython", "loaders", "trainer")
            ),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def train_all(conninfo: str) -> str:
    """Do all waiting jobs; what the trainer said."""
    process = run_trainer(conninfo, "--drain")
    said, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0, said
    return said


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=HANG)


def until(condition: Callable[[], Any], timeout: float = HANG) -> Any:
    """Wait until something holds; what it gave."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to hold in time")


def register(
    db: psycopg.Connection[Any],
    model: str = "toy",
    symbol: str | None = "AAA",
    regime: str | None = None,
    metrics: dict[str, Any] | None = None,
    artifact: bytes | None = None,
    **changes: Any,
) -> int:
    """Register a version without training one."""
    artifact = artifact or fake_artifact()
    version = {
        "algorithm": "lightgbm",
        "format": "lightgbm",
        "features": FEATURES,
        "spec": {"output": {"kind": "log_odds"}, "inputs": {"kind": "row", "features": 4}},
        "metrics": GOOD if metrics is None else metrics,
        "train_from": START.isoformat(),
        "train_to": START.isoformat(),
        "as_of": START.isoformat(),
        "row_count": 1,
        "training_sha256": "00",
        "library_versions": {},
        "code_version": "test",
        **changes,
    }
    # As if the database had measured them.
    row = db.execute(
        "select ml._register(%s, %s, %s, %s, sha256(%s), %s, null, %s)",
        (model, symbol, regime, artifact, artifact, Jsonb(version), Jsonb(version["metrics"])),
    ).fetchone()
    assert row is not None
    return int(row[0])


GOOD = {
    "auc": 0.8,
    "auc_low": 0.75,
    "log_loss": 0.4,
    "ece": 0.01,
    "ece_beyond_chance": 0.01,
    "baseline": {"log_loss": 0.5},
}


def fake_artifact(note: str = "") -> bytes:
    """A LightGBM text model of four features and one leaf."""
    tree = (
        "Tree=0\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\n"
        "decision_type=\nleft_child=\nright_child=\nleaf_value=0.5\nleaf_weight=\nleaf_count=\n"
        "internal_value=\ninternal_weight=\ninternal_count=\nis_linear=0\nshrinkage=1\n\n\n"
    )
    return (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        "max_feature_idx=3\nobjective=regression\nfeature_names=a b c d\n"
        f"feature_infos=none none none none\ntree_sizes={len(tree)}\n{note}\n\n{tree}"
        "end of trees\n\nparameters:\n\nend of parameters\n"
    ).encode()
