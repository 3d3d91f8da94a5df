"""The trainer's filter and evidence are the server's, and an artifact that is none is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from alphaplus.server.regime import filtering, observe, states
from alphaplus.server.regime.learned import ArtifactError, Learned
from alphaplus.trainer import regimes
from hypothesis import given, settings
from hypothesis import strategies as st


def made(seed: int, n: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, states and which row follows the one before."""
    rng = np.random.default_rng(seed)
    y = np.repeat(rng.integers(0, 6, n // 25 + 1), 25)[:n]
    x = rng.standard_normal((n, observe.COUNT)) + 0.8 * y[:, None] * rng.standard_normal(
        observe.COUNT
    )
    return x, y, np.arange(n) > 0


def artifact(kind: str, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    x, y, follows = made(seed)
    fitter = {"gaussian": regimes.gaussian, "logistic": regimes.logistic}[kind]
    return {
        "kind": "regime_filter",
        "states": list(regimes.STATES),
        "timeframe": 3_600_000_000,
        "emission": fitter(observe.NAMES, x, y),
        "dynamics": regimes.dynamics(y, follows),
        "evidence": 0.5,
    }, x


def test_both_know_the_same_states() -> None:
    assert regimes.STATES == states.STATES
    assert set(regimes.INPUTS + regimes.CHANNELS + regimes.LAGS) <= set(observe.NAMES)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(regimes.KINDS))
def test_trainer_and_server_filter_alike(seed: int, kind: str) -> None:
    given_, x = artifact(kind, seed)
    served = Learned(json.dumps(given_).encode())
    ours = regimes.evidence(given_["emission"], observe.NAMES, x) * given_["evidence"]
    theirs = served.evidence(x[:, None, :])
    relative = lambda e: e - e.max(axis=-1, keepdims=True)  # noqa: E731
    assert relative(theirs[:, 0]) == pytest.approx(relative(ours), abs=1e-8)
    p, shown = regimes.filtered(ours[:, None, :], given_["dynamics"])
    carry = filtering.Carry.start(served.dynamics, 1)
    q, other, _ = filtering.run(theirs, served.dynamics, carry)
    assert q[:, 0] == pytest.approx(p[:, 0], abs=1e-7)
    assert (other[:, 0] == shown[:, 0]).mean() > 0.999


def test_hazards_come_from_dwell_times() -> None:
    """States that last exactly 30 bars: no hazard before, a large one at the end."""
    y = np.tile(np.repeat(np.arange(6), 30), 40)
    moves = regimes.dynamics(y, np.arange(len(y)) > 0)
    hazard = np.array(moves["hazard"])
    early, late = hazard[:, :4].max(), hazard[:, 4].min()
    assert early < 0.02 < late
    onward = np.array(moves["next"])
    assert (onward.argmax(axis=1) == (np.arange(6) + 1) % 6).all()
    assert onward.sum(axis=1) == pytest.approx(np.ones(6))


def test_forward_filter_equals_hmmlearn() -> None:
    """With constant hazards the step is the textbook forward algorithm's."""
    hmm = pytest.importorskip("hmmlearn._hmmc")
    _, y, follows = made(3, 400)
    moves = regimes.dynamics(y, follows)
    hazard = np.array(moves["hazard"]).mean(axis=1)
    moves = moves | {"ages": [0], "hazard": hazard[:, None].tolist()}
    log_likelihood = np.random.default_rng(1).standard_normal((400, 6)) * 0.7
    p, _ = regimes.filtered(log_likelihood[:, None, :], moves)
    onward = np.diag(1 - hazard) + hazard[:, None] * np.array(moves["next"])
    start = np.array(moves["prior"]) @ onward
    _, lattice = hmm.forward_log(start, onward, log_likelihood)
    expected = np.exp(lattice - lattice.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert p[:, 0] == pytest.approx(expected, abs=1e-5)


def _changed(key: str, value: Any) -> Any:
    def change(given_: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for name in path:
            given_ = given_[name]
        given_[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _changed("kind", "other"),
        _changed("states", ["a"]),
        _changed("timeframe", -1),
        _changed("evidence", 0),
        _changed("evidence", "1"),
        _changed("dynamics.prior", [1, 0, 0, 0, 0, 0]),
        _changed("dynamics.margin", 1.0),
        _changed("dynamics.ages", [0, 5, 5]),
        _changed("dynamics.next", np.eye(6).tolist()),
        _changed("dynamics.hazard", [[1e300] * 9] * 6),
        _changed("emission.kind", "pickle"),
        _changed("emission.clip", 0),
        _changed("emission.means", [[0.0] * 3] * 5),
        _changed("emission.means", [[None] * 3] * 6),
        _changed("emission.lags", ["os.system"]),
        _changed("emission.extra", 1),
    ],
)
def test_what_is_no_artifact_is_refused(change: Any) -> None:
    given_, _ = artifact("gaussian", 1)
    Learned(json.dumps(given_).encode())
    broken = copy.deepcopy(given_)
    change(broken)
    with pytest.raises(ArtifactError):
        Learned(json.dumps(broken).encode())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"kind": NaN}', b"\xff", b"[" * 100_000, b" " * 2_000_000]
)
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        Learned(content)
