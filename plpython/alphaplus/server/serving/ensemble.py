"""Online aggregation of members' probabilities: what methods' weights are, and what they learn.

Arrays have a first axis of independent streams (S, 1 in the database), then K members or R
regimes. A member that is missing or not to be trusted sleeps: its probability is NaN. Sleeping
experts [Freund et al. 1997]: the awake ones' weights are renormalised, and a sleeper's regret does
not move.

Everything is a fold over rounds in the order in which they and their outcomes became known, so that
the weights at a time are a pure function of what was known by then (:class:`Aggregate`).

A method is one class and one row of ``ml.ensemble_methods``: ``start`` gives its state, ``predict``
weights (S, K) and probability (S,), ``learn`` takes an outcome. States are dictionaries of arrays.

Sources: Herbster & Warmuth (1998), Tracking the best expert, Machine Learning 32 (fixed share);
Wintenberger (2017), Optimal learning with Bernstein online aggregation, Machine Learning 106 (BOA;
the tuning is that of the R package opera 1.2); Gaillard, Stoltz & van Erven (2014), A second-order
bound with excess losses, COLT (ML-Poly); Vovk (1990), Aggregating strategies (a Bayes mixture of
probabilities loses at most ln M to the best under log loss).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array]
TINY = 1e-4  # members' and methods' probabilities lie in [TINY, 1 - TINY]
Z90 = 1.6448536269514722  # normal quantile of a two-sided interval at 90 %
EDGES = np.array([0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])


@dataclass(frozen=True)
class Setup:
    """What an ensemble is made of.

    Attributes:
        members: K names.
        regimes: R names; none where no regime is known.
        weights: (K,) weights given for ``voting``, and the prior of the others; equal where None.
        regime_weights: (R, K) starting weights for ``regime_weights``; equal where None.
        stacking: (K + R + 1,) coefficients of the stacker, None where none is fitted.
        horizon: microseconds; rounds nearer than that share outcomes, and count less for intervals.
        params: of each method, over its defaults.
    """

    members: tuple[str, ...]
    regimes: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    regime_weights: tuple[tuple[float, ...], ...] | None = None
    stacking: tuple[float, ...] | None = None
    horizon: int = 0
    loss: str = "log"
    params: dict[str, dict[str, float]] = field(default_factory=dict)

    def prior(self) -> Array:
        """(K,) the starting weights, summing to one."""
        given = self.weights or (1.0,) * len(self.members)
        found = np.maximum(np.asarray(given, dtype=float), 0.0)
        shares: Array = found / found.sum()
        return shares

    def param(self, method: str, name: str, default: float) -> float:
        """A method's parameter."""
        return float(self.params.get(method, {}).get(name, default))


def losses(loss: str, p: Array, y: Array) -> Array:
    """Log loss in nats, or square loss, of probabilities."""
    if loss == "square":
        return (p - y) ** 2
    return -np.log(np.where(y > 0.5, p, 1 - p))


def _gradient(loss: str, p: Array, y: Array) -> Array:
    return 2 * (p - y) if loss == "square" else (p - y) / (p * (1 - p))


def _spread(weights: Array, awake: Array) -> Array:
    """Weights over the awake, summing to one; equal where all of theirs are nothing."""
    found = np.where(awake, weights, 0.0)
    total = found.sum(axis=-1, keepdims=True)
    equal = awake / np.maximum(awake.sum(axis=-1, keepdims=True), 1)
    return np.where(total > 0, found / np.where(total > 0, total, 1.0), equal)


def _mix(weights: Array, x: Array) -> Array:
    found: Array = (weights * np.where(np.isnan(x), 0.0, x)).sum(axis=-1)
    return found


def _share(state: Array, losses_: Array, awake: Array, alpha: float, eta: float = 1.0) -> Array:
    """Fixed share of weights (…, N) that sum to one: the update of Herbster & Warmuth."""
    p = _spread(state, awake)
    cost = np.where(awake, losses_, 0.0)
    if eta == 1.0:  # the loss of the Bayes mixture: what sleeps keeps its share of the whole
        low = np.where(awake, cost, np.inf).min(axis=-1, keepdims=True)
        low = np.where(np.isfinite(low), low, 0.0)
        mixed = low - np.log((p * np.exp(low - cost)).sum(axis=-1, keepdims=True))
    else:
        mixed = (p * cost).sum(axis=-1, keepdims=True)
    gain = eta * np.where(awake, mixed - cost, 0.0)
    moved = state * np.exp(gain - gain.max(axis=-1, keepdims=True))
    moved = moved / moved.sum(axis=-1, keepdims=True)
    found: Array = (1 - alpha) * moved + alpha / state.shape[-1]
    return found


class Method(Protocol):
    """One way of weighing members."""

    name: str

    def start(self, setup: Setup, streams: int) -> State:
        """The state before any outcome."""

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:
        """Weights (S, K) and probability (S,) for members' probabilities x (S, K)."""

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:
        """The state after an outcome (S,) of a round."""


class Voting(Method):
    """Equal or given weights."""

    name = "voting"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        return {}

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        w = _spread(np.broadcast_to(setup.prior(), x.shape), ~np.isnan(x))
        return w, _mix(w, x)

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        return state


class FixedShare(Method):
    """Tracks the member that is right now: pass 50 % within some 40 outcomes of a switch."""

    name = "fixed_share"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        return {"w": np.tile(setup.prior(), (streams, 1))}

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        w = _spread(state["w"], ~np.isnan(x))
        return w, _mix(w, x)

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        alpha = setup.param(self.name, "alpha", 1 / 500)
        eta = setup.param(self.name, "eta", 1.0)
        cost = losses(setup.loss, x, y[:, None])
        return {"w": _share(state["w"], cost, ~np.isnan(x), alpha, eta)}


class Blending(Method):
    """Softmax of the members' exponentially averaged loss, with a floor and a cap."""

    name = "blending"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        return {"m": np.full((streams, len(setup.members)), 0.69)}

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        heat = setup.param(self.name, "temperature", 8.0)
        low, high = setup.param(self.name, "floor", 0.02), setup.param(self.name, "cap", 0.6)
        m, awake = state["m"], ~np.isnan(x)
        best = np.where(awake, m, np.inf).min(axis=-1, keepdims=True)
        w = _spread(np.exp(-heat * (m - np.where(np.isfinite(best), best, 0.0))), awake)
        w = _spread(np.clip(w, low, high), awake)
        return w, _mix(w, x)

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        a = 1 - 0.5 ** (1 / setup.param(self.name, "half_life", 100.0))
        cost = losses(setup.loss, x, y[:, None])
        m = state["m"]
        return {"m": np.where(np.isnan(x), m, m + a * (cost - m))}


class Boa(Method):
    """Bernstein online aggregation on linearised losses, a learning rate for each member."""

    name = "boa"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        shape = (streams, len(setup.members))
        return {"v": np.zeros(shape), "r": np.zeros(shape)}

    def _weights(self, setup: Setup, state: State, awake: Array) -> Array:
        v, r, prior = state["v"], state["r"], setup.prior()
        seen = v > 0
        rate = np.where(seen, v, 1.0)
        z = np.where(seen, -np.log(rate) / 2 + np.log(prior) + r / np.sqrt(rate), -np.inf)
        top = z.max(axis=-1, keepdims=True)
        e = np.exp(np.where(np.isfinite(z), z - np.where(np.isfinite(top), top, 0.0), -np.inf))
        total = e.sum(axis=-1, keepdims=True)
        mass = np.where(seen, prior, 0.0).sum(axis=-1, keepdims=True)
        w = np.where(seen, mass * e / np.where(total > 0, total, 1.0), prior)
        return _spread(w, awake)

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        w = self._weights(setup, state, ~np.isnan(x))
        return w, _mix(w, x)

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        awake = ~np.isnan(x)
        p = _mix(self._weights(setup, state, awake), x)
        slope = _gradient(setup.loss, np.clip(p, TINY, 1 - TINY), y)
        r = np.where(awake, slope[:, None] * (p[:, None] - np.where(awake, x, 0.0)), 0.0)
        v = state["v"] + 2.2 * r * r
        seen = v > 0
        regular = np.where(seen, r - r * r / np.sqrt(np.where(seen, v, 1.0)), 0.0)
        return {"v": v, "r": state["r"] + regular}


class MlPoly(Method):
    """Polynomially weighted averages of linearised regrets, a learning rate for each member."""

    name = "ml_poly"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        shape = (streams, len(setup.members))
        return {"r": np.zeros(shape), "s": np.zeros(shape), "b": np.zeros((streams, 1))}

    def _weights(self, state: State, awake: Any) -> Array:
        gain = np.maximum(state["r"], 0.0)
        rate = 1 / np.maximum(state["s"], 1e-300)
        some = (awake & (state["r"] > 0)).any(axis=-1, keepdims=True)
        return _spread(np.where(some, rate * gain, 1.0), awake)

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        w = self._weights(state, ~np.isnan(x))
        return w, _mix(w, x)

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        awake = ~np.isnan(x)
        p = _mix(self._weights(state, awake), x)
        slope = _gradient(setup.loss, np.clip(p, TINY, 1 - TINY), y)
        r = np.where(awake, slope[:, None] * (p[:, None] - np.where(awake, x, 0.0)), 0.0)
        top = np.maximum(state["b"], (r * r).max(axis=-1, keepdims=True))
        return {"r": state["r"] + r, "s": state["s"] + r * r + top - state["b"], "b": top}


class RegimeWeights(Method):
    """Weights for each regime, mixed by the regimes' probabilities and learned softly; hedged with
    the same learner without regimes, so that a classifier that is no use costs at most ln 2.

    What an outcome says of the weights of regime r counts as far as the round was in r: the
    posterior of the member that is right in r, whatever regime the round was in.
    """

    name = "regime_weights"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        count = len(setup.regimes)
        prior = np.tile(setup.prior(), (count, 1))
        if setup.regime_weights is not None:
            given = np.maximum(np.asarray(setup.regime_weights, dtype=float), 0.0)
            total = given.sum(axis=1, keepdims=True)
            prior = np.where(total > 0, given / np.where(total > 0, total, 1.0), prior)
            prior = 0.95 * prior + 0.05 / prior.shape[1]  # nobody starts at nothing
        return {
            "g": np.tile(prior, (streams, 1, 1)),
            "n": np.tile(setup.prior(), (streams, 1)),
            "h": np.full((streams, 2), 0.5),
        }

    def _both(self, state: State, awake: Array, regime: Array) -> tuple[Array, Array]:
        known = regime.sum(axis=-1, keepdims=True)
        plain = _spread(state["n"], awake)
        within = _spread(state["g"], awake[:, None, :])
        mixed = (regime[:, :, None] * within).sum(axis=1)
        return np.where(known > 0, mixed / np.where(known > 0, known, 1.0), plain), plain

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        by_regime, plain = self._both(state, ~np.isnan(x), regime)
        w = state["h"][:, :1] * by_regime + state["h"][:, 1:] * plain
        return w, _mix(w, x)

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        alpha = setup.param(self.name, "alpha", 1 / 500)
        hedge = setup.param(self.name, "hedge", 1e-4)
        awake, up = ~np.isnan(x), y[:, None] > 0.5
        cost = losses(setup.loss, x, y[:, None])
        by_regime, plain = self._both(state, awake, regime)
        q = np.stack([_mix(by_regime, x), _mix(plain, x)], axis=1)
        h = _share(
            state["h"], losses(setup.loss, np.clip(q, TINY, 1 - TINY), y[:, None]),
            np.ones_like(q, dtype=bool), hedge,
        )  # fmt: skip
        n = _share(state["n"], cost, awake, alpha)
        # P(outcome | member i is right in r) = π_r x_i(y) + Σ_{s≠r} π_s p_s(y)
        chance = np.where(awake, np.where(up, x, 1 - x), 0.0)
        within = _spread(state["g"], awake[:, None, :])
        each = (within * chance[:, None, :]).sum(axis=-1)
        other = (regime * each).sum(axis=-1, keepdims=True) - regime * each
        pi, rest = regime[:, :, None], other[:, :, None]
        own = pi * np.where(awake, chance, 0.0)[:, None, :] + rest
        asleep = pi * each[:, :, None] + rest
        like = np.where(awake[:, None, :], own, asleep)
        g = state["g"] * like
        total = g.sum(axis=-1, keepdims=True)
        g = np.where(total > 0, g / np.where(total > 0, total, 1.0), state["g"])
        step = alpha * pi
        g = (1 - step) * g + step / g.shape[-1]
        return {"g": g, "n": n, "h": h}


class Stacking(Method):
    """A logistic regression on the members' log odds and the regimes' probabilities, fitted by
    :func:`fit_stacking` on predictions that no member was trained on; a sleeper's log odds are the
    mean of the others'."""

    name = "stacking"

    def start(self, setup: Setup, streams: int) -> State:  # noqa: D102
        return {}

    def predict(self, setup: Setup, state: State, x: Array, regime: Array) -> tuple[Array, Array]:  # noqa: D102
        theta = np.asarray(setup.stacking, dtype=float)
        k = x.shape[1]
        z = design(x, regime) @ theta
        w = _spread(np.tile(np.maximum(theta[:k], 0.0), (len(x), 1)), ~np.isnan(x))
        return w, 1 / (1 + np.exp(-z))

    def learn(self, setup: Setup, state: State, x: Array, regime: Array, y: Array) -> State:  # noqa: D102
        return state


def design(x: Array, regime: Array) -> Array:
    """(n, K + R + 1) what the stacker is fitted on: log odds, regimes' probabilities, one."""
    awake = ~np.isnan(x)
    p = np.clip(np.where(awake, x, 0.5), TINY, 1 - TINY)
    z = np.log(p / (1 - p))
    count = np.maximum(awake.sum(axis=1, keepdims=True), 1)
    mean = np.where(awake, z, 0.0).sum(axis=1, keepdims=True) / count
    return np.column_stack([np.where(awake, z, mean), regime, np.ones(len(x))])


def fit_stacking(x: Array, regime: Array, y: Array, ridge: float = 3.0) -> Array:
    """(K + R + 1,) coefficients by Newton's method, drawn towards the mean of the log odds."""
    a = design(x, regime)
    k = x.shape[1]
    centre = np.r_[np.full(k, 1 / k), np.zeros(a.shape[1] - k)]
    theta: Array = centre.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(a @ theta, -30, 30)))
        slope = a.T @ (p - y) + ridge * (theta - centre)
        curve = (a * (p * (1 - p))[:, None]).T @ a + ridge * np.eye(len(theta))
        step = np.linalg.solve(curve, slope)
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    return theta


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Voting(), RegimeWeights(), Blending(), Boa(), MlPoly(), FixedShare(), Stacking(),
    )
}  # fmt: skip
AUTO = "auto"
SWITCH = 1e-3


def usable(setup: Setup, names: Sequence[str]) -> tuple[str, ...]:
    """The methods that can say anything, in their order."""
    return tuple(
        name
        for name in names
        if name in METHODS
        and (name != Stacking.name or setup.stacking is not None)
        and (name != RegimeWeights.name or setup.regimes)
    )


@dataclass
class Answer:
    """What an ensemble says: of each method, ``auto`` last."""

    methods: tuple[str, ...]
    probability: Array  # (S, M + 1)
    weights: Array  # (S, M + 1, K)
    method_weights: Array  # (S, M)


class Aggregate:
    """The methods and their mixture ``auto``, folded over rounds and outcomes.

    ``auto`` is a Bayes mixture over the methods with a small share for switching between them:
    under log loss its total is at most that of the best method plus ln M plus
    -ln(1 - switch + switch / M) for each outcome.
    """

    def __init__(
        self, setup: Setup, names: Sequence[str], streams: int = 1, states: Any = None
    ) -> None:
        self.setup = setup
        self.names = usable(setup, names)
        self.switch = setup.param(AUTO, "switch", SWITCH)
        self.states: dict[str, State] = states or {
            name: METHODS[name].start(setup, streams) for name in self.names
        }
        self.mixture = np.full((streams, len(self.names)), 1 / max(len(self.names), 1))

    def predict(self, x: Array, regime: Array) -> Answer:
        """All methods' weights and probabilities for a round."""
        x = np.clip(x, TINY, 1 - TINY)
        found = [METHODS[n].predict(self.setup, self.states[n], x, regime) for n in self.names]
        weights = np.stack([w for w, _ in found], axis=1)
        p = np.stack([np.clip(q, TINY, 1 - TINY) for _, q in found], axis=1)
        mixed = (self.mixture[:, :, None] * weights).sum(axis=1)
        auto = (self.mixture * p).sum(axis=1)
        return Answer(
            self.names, np.column_stack([p, auto]),
            np.concatenate([weights, mixed[:, None, :]], axis=1), self.mixture,
        )  # fmt: skip

    def learn(self, x: Array, regime: Array, predicted: Array, y: Array) -> None:
        """Take an outcome; ``predicted`` (S, M): what the methods said of the round then."""
        x = np.clip(x, TINY, 1 - TINY)
        for name in self.names:
            self.states[name] = METHODS[name].learn(self.setup, self.states[name], x, regime, y)
        cost = losses(self.setup.loss, predicted, y[:, None])
        awake = np.ones_like(cost, dtype=bool)
        self.mixture = _share(self.mixture, cost, awake, self.switch)


def run(
    setup: Setup, names: Sequence[str], x: Array, regime: Array, y: Array, lag: int = 0
) -> Answer:
    """All rounds (T, S, …) of streams one after the other, each outcome known ``lag`` rounds later.

    Returns:
        probabilities (T, S, M + 1), weights (T, S, M + 1, K) and the mixture's weights (T, S, M).
    """
    aggregate = Aggregate(setup, names, x.shape[1])
    said: list[Answer] = []
    for t in range(len(x)):
        said.append(aggregate.predict(x[t], regime[t]))
        k = t - lag
        if k >= 0:
            aggregate.learn(x[k], regime[k], said[k].probability[:, :-1], y[k])
    return Answer(
        aggregate.names, np.stack([a.probability for a in said]),
        np.stack([a.weights for a in said]), np.stack([a.method_weights for a in said]),
    )  # fmt: skip


def wilson(f: float, n: float, z: float = Z90) -> tuple[float, float]:
    """Wilson's interval of a frequency f of n."""
    centre = (f + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(f * (1 - f) / n + z * z / (4 * n * n), 0.0))
    return max(0.0, centre - half), min(1.0, centre + half)


class Memory:
    """An ensemble of one symbol as of a time: what :class:`Aggregate` learned, the rounds whose
    outcome is not known yet, and how often events happened beside what was said (for intervals).

    It is a fold over events in the order in which they became known: rounds (µs, members'
    probabilities, regimes') and outcomes (µs of the round, when known, outcome).
    """

    def __init__(self, setup: Setup, names: Sequence[str], kept: str | None = None) -> None:
        self.setup = setup
        self.aggregate = Aggregate(setup, names)
        self.pending: dict[int, tuple[list[float], list[float], list[float]]] = {}
        self.bins = np.zeros((len(EDGES) + 1, 3))  # weight, events, probability
        self.last = -(2**62)
        self.outcomes = 0
        count = len(self.aggregate.names)
        self.lost = np.zeros(count + 1)  # total log loss of the methods, auto last
        # of members while they were awake, and auto's in these rounds
        self.members = np.zeros((3, len(setup.members)))
        if kept is not None:
            self._load(json.loads(kept))

    def text(self) -> str:
        """The whole state; floats as their shortest text that gives the same bits again."""
        states = {
            name: {key: value.tolist() for key, value in state.items()}
            for name, state in self.aggregate.states.items()
        }
        pending = [[ts, *map(_nulls, parts)] for ts, parts in self.pending.items()]
        return json.dumps({
            "methods": list(self.aggregate.names), "states": states,
            "mixture": self.aggregate.mixture.tolist(), "pending": pending,
            "bins": self.bins.tolist(), "last": self.last, "outcomes": self.outcomes,
            "lost": self.lost.tolist(), "members": self.members.tolist(),
        })  # fmt: skip

    def _load(self, kept: dict[str, Any]) -> None:
        if tuple(kept["methods"]) != self.aggregate.names:
            raise ValueError("the state kept is of other methods")
        self.aggregate.states = {
            name: {key: np.array(value) for key, value in state.items()}
            for name, state in kept["states"].items()
        }
        self.aggregate.mixture = np.array(kept["mixture"])
        self.pending = {int(p[0]): (_nans(p[1]), _nans(p[2]), _nans(p[3])) for p in kept["pending"]}
        self.bins = np.array(kept["bins"])
        self.last, self.outcomes = int(kept["last"]), int(kept["outcomes"])
        self.lost, self.members = np.array(kept["lost"]), np.array(kept["members"])

    def predict(self, x: Sequence[float], regime: Sequence[float]) -> Answer:
        """What the methods say of a round."""
        return self.aggregate.predict(_row(x), _row(regime))

    def round(self, ts: int, x: Sequence[float], regime: Sequence[float]) -> None:
        """A round becomes known: what is said of it is kept until its outcome is known."""
        said = self.predict(x, regime).probability[0].tolist()
        self.pending[ts] = ([float(v) for v in x], [float(v) for v in regime], said)

    def outcome(self, ts: int, y: float) -> None:
        """An outcome becomes known."""
        waiting = self.pending.pop(ts, None)
        if waiting is None:
            return
        x, regime, said = _row(waiting[0]), _row(waiting[1]), np.array(waiting[2])
        if np.isnan(x).all():
            return
        target = np.array([float(y)])
        self.aggregate.learn(x, regime, said[None, :-1], target)
        cost = losses("log", said, target)
        self.lost += cost
        self.outcomes += 1
        awake = ~np.isnan(x[0])
        own = losses("log", np.clip(np.where(awake, x[0], 0.5), TINY, 1 - TINY), target)
        self.members += np.where(
            awake, np.stack([np.ones(len(own)), own, np.full(len(own), cost[-1])]), 0.0
        )
        share = 1.0 if self.setup.horizon <= 0 else min(1.0, (ts - self.last) / self.setup.horizon)
        self.last = max(self.last, ts)
        place = int(np.searchsorted(EDGES, said[-1], side="right"))
        self.bins[place] += max(share, 0.0) * np.array([1.0, float(y), said[-1]])

    def replay(
        self,
        rounds: Sequence[tuple[int, int, Sequence[float], Sequence[float]]],
        outcomes: Sequence[tuple[int, int, float]],
        pause: Callable[[], Any] | None = None,
    ) -> None:
        """Fold rounds (µs, known at µs, probabilities, regimes') and outcomes (µs of the round,
        known at µs, outcome) that became known since; an outcome that is known when a round is
        comes before it. ``pause`` is called now and then: a statement may have been cancelled."""
        events = [(known, 0, ts, i) for i, (ts, known, _) in enumerate(outcomes)]
        events += [(known, 1, ts, i) for i, (ts, known, _, _) in enumerate(rounds)]
        for number, (_, kind, ts, i) in enumerate(sorted(events)):
            if pause is not None and number % 256 == 255:
                pause()
            if kind:
                self.round(ts, rounds[i][2], rounds[i][3])
            else:
                self.outcome(ts, outcomes[i][2])

    def interval(self, p: float) -> tuple[float, float]:
        """[lower, upper]: where the event's frequency lies at 90 %, by the rounds in which about
        the same was said: Wilson's interval of how far off that was, put at p, reaching to p."""
        n, events, said = self.bins[int(np.searchsorted(EDGES, p, side="right"))].tolist()
        if n < 1:
            return 0.0, 1.0
        low, high = wilson(min(max(events / n, 0.0), 1.0), n)
        shift = p - said / n
        return max(0.0, min(p, low + shift)), min(1.0, max(p, high + shift))

    def regrets(self) -> list[tuple[str, str, float, float, float, float | None]]:
        """(member or method, name, outcomes, auto's loss, its loss, bound on what auto loses more):
        in nats, of members over the rounds in which they were awake."""
        names = self.aggregate.names
        count, switch = max(len(names), 1), self.aggregate.switch
        bound = math.log(count) - self.outcomes * math.log(1 - switch + switch / count)
        found: list[tuple[str, str, float, float, float, float | None]] = [
            ("method", name, float(self.outcomes), float(self.lost[-1]), float(self.lost[i]), bound)
            for i, name in enumerate(names)
        ]
        for i, name in enumerate(self.setup.members):
            n, own, mixed = self.members[:, i].tolist()
            found.append(("member", name, n, mixed, own, None))
        return found


def _row(values: Sequence[float | None]) -> Array:
    return np.array([[math.nan if v is None else float(v) for v in values]])


def _nulls(values: Sequence[float]) -> list[float | None]:
    return [None if v != v else v for v in values]  # noqa: PLR0124  NaN is not itself


def _nans(values: Sequence[float | None]) -> list[float]:
    return [math.nan if v is None else v for v in values]
