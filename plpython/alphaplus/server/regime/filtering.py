"""The online filter: evidence of single bars, a transition matrix, and hazards of leaving by age.

One step costs K likelihoods and K^2 transitions and looks at nothing but the last probabilities:

    leave_k = p_k h_k(age_k),   q_j = p_j - leave_j + sum_k leave_k N_kj,   p'_j ~ q_j L_j(bar)

``h_k(age)`` is the chance of leaving state k after ``age`` bars in it, so that dwell times need not
be geometric (a discrete hazard, as in explicit-duration hidden Markov models: Rabiner 1989, IV.D;
Bulla & Bulla 2006). The age of a state is its expected one: newcomers count 0. ``N`` says where one
goes who leaves. The regime shown changes when another state's probability leads by ``margin``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from alphaplus.server.regime.states import COUNT, Floats, Times


@dataclass(frozen=True)
class Dynamics:
    """hazard: (K, ages) chance of leaving by age in bars, the last for all older; next: (K, K)
    where to, rows sum to 1, zero diagonal; prior: (K,) at the start; margin: of the shown
    regime."""

    hazard: Floats
    next: Floats
    prior: Floats
    margin: float


@dataclass
class Carry:
    """The filter's state between two bars, of lanes: probabilities and ages (lanes, K), the shown
    regime (-1: none yet) and for how many bars it has been shown."""

    p: Floats
    age: Floats
    shown: Times
    held: Times

    @classmethod
    def start(cls, dynamics: Dynamics, lanes: int) -> Carry:
        """Before the first bar."""
        return cls(
            np.repeat(dynamics.prior[None, :], lanes, axis=0),
            np.zeros((lanes, COUNT)),
            np.full(lanes, -1, dtype=np.int64),
            np.zeros(lanes, dtype=np.int64),
        )

    def flat(self, lane: int) -> Floats:
        """One lane's state as numbers."""
        ends = [float(self.shown[lane]), float(self.held[lane])]
        return np.concatenate([self.p[lane], self.age[lane], ends])

    @classmethod
    def unflat(cls, numbers: Floats) -> Carry:
        """The state of one lane of :meth:`flat`."""
        return cls(
            numbers[None, :COUNT].copy(),
            numbers[None, COUNT : 2 * COUNT].copy(),
            np.array([int(numbers[2 * COUNT])]),
            np.array([int(numbers[2 * COUNT + 1])]),
        )


CARRY = 2 * COUNT + 2


def _sum(x: Floats) -> Floats:
    """Over the states, always in their order."""
    total = x[..., 0].copy()
    for k in range(1, COUNT):
        total += x[..., k]
    return total


def run(evidence: Floats, dynamics: Dynamics, carry: Carry) -> tuple[Floats, Times, Times]:
    """Probabilities (bars, lanes, K), the shown regime and for how many bars it has been shown
    (bars, lanes), of log likelihoods (bars, lanes, K); ``carry`` is moved on.

    A bar whose evidence is NaN says nothing: the state is moved on by the dynamics alone where the
    lane has shown a regime already, and stays as it was before that.
    """
    length, lanes = evidence.shape[:2]
    probabilities = np.empty((length, lanes, COUNT))
    shown = np.empty((length, lanes), dtype=np.int64)
    held = np.empty((length, lanes), dtype=np.int64)
    ages = dynamics.hazard.shape[1]
    flat_hazard = np.ascontiguousarray(dynamics.hazard).ravel()
    offsets = np.arange(COUNT) * ages
    known = np.isfinite(evidence[..., 0])
    best_evidence = np.where(known, evidence.max(axis=2), 0.0)
    likelihood = np.exp(np.where(known[..., None], evidence - best_evidence[..., None], 0.0))
    lane = np.arange(lanes)
    for i in range(length):
        p, age = carry.p, carry.age
        at = np.minimum(age, ages - 1).astype(np.int64)
        leave = p * flat_hazard[at + offsets]
        stay = p - leave
        q = stay.copy()
        for k in range(COUNT):
            q += leave[:, k : k + 1] * dynamics.next[k]
        older = stay * (age + 1.0) / np.maximum(q, 1e-300)
        new = q * likelihood[i]
        new /= np.maximum(_sum(new), 1e-300)[:, None]
        new = np.maximum(new, 1e-9)
        new /= _sum(new)[:, None]
        moves = known[i]
        if moves.all():
            carry.p, carry.age = new, older
        else:
            carry.p = np.where(moves[:, None], new, p)
            carry.age = np.where(moves[:, None], older, age)
        best = carry.p.argmax(axis=1)
        now = np.maximum(carry.shown, 0)
        lead = carry.p[lane, best] - carry.p[lane, now]
        change = moves & ((carry.shown < 0) | ((best != carry.shown) & (lead >= dynamics.margin)))
        carry.held = np.where(change, 1, carry.held + (moves & (carry.shown >= 0)))
        carry.shown = np.where(change, best, carry.shown)
        probabilities[i], shown[i], held[i] = carry.p, carry.shown, carry.held
    return probabilities, shown, held
