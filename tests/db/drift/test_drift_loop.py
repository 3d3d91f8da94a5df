"""The whole loop without a hand: drift, alert, retraining, gates, comparison, promotion, better."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from tests.conftest import Server
from tests.db import drift_world as world
from tests.db import lifecycle
from tests.db.drift.test_drift import one

Conn = psycopg.Connection[Any]
Floats = NDArray[np.float64]
pytestmark = pytest.mark.long

TARGETS = """
drop function ml._training_targets;
create function ml._training_targets(
    model text, symbol text, as_of timestamptz, "from" timestamptz
) returns bytea language plpython3u stable as $$
    import numpy as np
    plan = plpy.prepare(
        "select ml._training_bytes($1, $2, $3, $4, null, null) as b",
        ["text", "text", "timestamptz", "timestamptz"],
    )
    raw = plpy.execute(plan, [model, symbol, as_of, args[3]])[0]["b"]
    n = int(np.frombuffer(raw, "<i8", 1)[0])
    head = raw[:8]
    return head + raw[16 : 16 + 28 * n]
$$;
alter function ml._training_targets owner to alphaplus_owner;
"""


def rows(rng: np.random.Generator, days: float, drifted: bool) -> tuple[Floats, Floats]:
    """Vectors and outcomes: f1 tells of the outcome, but hardly moved before it drifted."""
    n = round(days * 1440)
    x = np.column_stack([world.ar(rng, n, 0.5) for _ in range(4)])
    x[:, 1] = 1.0 + x[:, 1] if drifted else 0.1 * x[:, 1]
    p = 1 / (1 + np.exp(-1.2 * x[:, 0] - 2.0 * x[:, 1] + 1.0))
    return x, (rng.random(n) < p).astype(float)


def test_from_drift_to_better_predictions(db: Conn, server: Server) -> None:
    rng = np.random.default_rng(21)
    set_id = world.install(db)
    db.execute(TARGETS)
    db.execute("update ml.models set training = '{\"folds\": 3}', params = '{\"rounds\": 60}'")
    # Its folds reach over the change, so that its calibration out of fold cannot be good.
    db.execute("update ml.gates set enabled = false where gate like 'calibration%'")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    start = now - timedelta(days=10)
    before, y_before = rows(rng, 7, False)
    change = world.store(db, set_id, "AAA", start, before, y_before)
    champion = world.register(db, world.booster(before, y_before), "AAA", start, change)
    db.execute("call ml.promote(%s, 'the first', true)", (champion,))
    after, y_after = rows(rng, 3, True)
    end = world.store(db, set_id, "AAA", change, after, y_after)
    db.execute("call ml.set_policy('toy', 'drift', 'compare')")

    db.execute("call drift.monitor(%s)", (end,))
    drift = one(
        db, "select drift_id, severity, first_feature from drift.alerts where kind = 'data'"
    )
    assert drift[1:] == ("critical", "f1")
    job = one(db, "select job_id from drift.actions where action = 'retrain'")[0]
    said = lifecycle.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    assert one(db, "select status from ml.training_jobs where job_id = %s", job) == (
        "succeeded",
    ), said
    db.execute("call ml.decide()")
    challenger = one(db, "select version_id from ml.aliases where alias = 'challenger'")[0]
    assert one(db, "select count(*) from ml.decisions") == (0,)  # nothing shown yet

    # A day goes by.
    later, y_later = rows(rng, 1, True)
    until = world.store(db, set_id, "AAA", end, later, y_later)
    db.execute("call drift.refresh(%s)", (until,))
    db.execute("call ml.decide()")
    row = one(db, "select decision, version_id, against_id, reason from ml.decisions")
    assert row[:3] == ("promote", challenger, champion) and "better" in row[3]
    assert one(db, "select ml.champion('toy', 'AAA')") == (challenger,)
    benefit = one(db, "select cause, verdict, benefit from ml.retraining_benefit")
    assert benefit[:2] == ("drift", "helped") and benefit[2] > 0.01
    db.execute("call drift.act()")
    action = one(
        db, "select state, version_id, outcome from drift.actions where action = 'retrain'"
    )
    assert action[:2] == ("done", challenger) and "promote" in action[2]
    # one row from the prediction to the alert that asked for it
    db.execute(
        "insert into ml.predictions (as_of, symbol, model, horizon, version_id, prediction, features)"
        " values (%s, 'AAA', 'toy', '5 min', %s, 0.5, '{0,0,0,0}')",
        (until, challenger),
    )
    lineage = one(
        db,
        "select job_id, drift_id, drift_severity, drift_feature, decision, gates is not null"
        " from ml.prediction_lineage",
    )
    assert lineage == (job, drift[0], "critical", "f1", "promote", True)
    # The new one's reference is the new normal.
    db.execute("call drift.take_references()")
    found = one(
        db,
        "select bool_or(drifted) from drift.check('toy', 'AAA', '1 day', %s) where feature = 'f0'",
        until,
    )
    assert found == (False,)
