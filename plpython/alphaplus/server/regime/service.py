"""What SQL calls: reads bars and classifiers, computes, and gives rows. Times in µs since 1970."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import hindsight, learned, nowcast, observe, rules, storage
from alphaplus.server.regime import horizon as forecast


def classifier(plpy: Any, cache: dict[str, Any], spec: str) -> nowcast.Classifier:
    """The classifier of ``regime._classifier``'s spec; kept in this backend."""
    kept: dict[str, nowcast.Classifier] = cache.setdefault("alphaplus.regimes", {})
    found = kept.get(spec)
    if found is None:
        given = json.loads(spec)
        if "thresholds" in given:
            found = rules.Rules(given["thresholds"])
        else:
            found = _learned(plpy, given["version_id"])
        if len(kept) >= 64:
            kept.clear()
        kept[spec] = found
    return found


def _learned(plpy: Any, version_id: int) -> learned.Learned:
    plan = plpy.prepare("select * from regime._artifact($1)", ["int8"])
    rows = plpy.execute(plan, [version_id])
    try:
        if not len(rows) or not rows[0]["sound"]:
            raise learned.ArtifactError("it is not the one registered")
        return learned.Learned(rows[0]["artifact"])
    except learned.ArtifactError as error:
        plpy.error(
            f"the regime classifier of version {version_id} cannot be read: {error}",
            sqlstate="AP607",
            hint="Go back to another: call ml.rollback(model, symbol), or regime.use('rules').",
        )
        raise


def check_artifact(plpy: Any, artifact: bytes) -> None:
    """Refuses (AP411) what is no artifact of :mod:`alphaplus.server.regime.learned`."""
    try:
        found = learned.Learned(artifact)
        found.evidence(np.zeros((3, observe.COUNT)))
    except learned.ArtifactError as error:
        plpy.error(
            f"the artifact is no regime classifier: {error}",
            sqlstate="AP411",
            hint="Train one with call ml.retrain on a model of regime.create_model.",
        )


def moment(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    width: int,
    as_of: int,
    spec: str,
    block_start: int | None,
    carry: Sequence[float] | None,
) -> list[tuple[int, list[float], int, int]]:
    """(state from 1, probabilities, since, bar) as known at a time; none where there is no bar."""
    by = classifier(plpy, cache, spec)
    answer = None
    newest = b.block_of(as_of - width, width)
    if carry is not None and block_start == newest:
        numbers = np.array(carry)
        bars = b.read(plpy, [symbol], width, int(numbers[-1]), as_of - width + 1)[symbol]
        answer = nowcast.carried_on(numbers, bars, as_of, by)
    if answer is None:
        for block in (newest, newest - b.BLOCK * width):
            # The newest bar may be of the block before: its first bar is not known yet.
            start = block - b.WARMUP * width
            bars = b.read(plpy, [symbol], width, start, as_of - width + 1)[symbol]
            known = np.flatnonzero(bars.moment <= as_of)
            if len(known) and bars.bucket[known[-1]] >= block:
                break
        answer = nowcast.moment(bars, as_of, by)
    if answer is None:
        return []
    return [(answer.shown + 1, answer.p.tolist(), answer.since, answer.bar)]


def _starts(bars: b.Bars, first: int) -> list[int]:
    """The blocks from the one of ``first`` on that have bars."""
    if not len(bars.bucket):
        return []
    span = b.BLOCK * bars.width
    begin = b.block_of(max(first, int(bars.bucket[0])), bars.width)
    return list(range(begin, int(bars.bucket[-1]) + 1, span))


def store(
    plpy: Any,
    cache: dict[str, Any],
    symbols: list[str],
    width: int,
    versions: list[str],
    spec: str,
    thresholds: str,
    first: int,
    stop: int,
) -> int:
    """Compute and store regimes of symbols from the block of ``first`` on, of bars that closed by
    ``stop``; returns of how many bars. What was stored there is replaced. ``versions``: of the
    classifier and of the verdict."""
    by = classifier(plpy, cache, spec)
    begin = b.block_of(first, width)
    found = b.read(plpy, symbols, width, begin - b.WARMUP * width, stop - width + 1)
    asked = [(symbol, start) for symbol in symbols for start in _starts(found[symbol], begin)]
    pairs = [(found[symbol], start) for symbol, start in asked]
    runs: list[nowcast.Run] = []
    made = nowcast.blocks(pairs, by, runs)
    judged = hindsight.blocks(pairs, json.loads(thresholds), runs=runs)
    plan = plpy.prepare("select regime._forget($1, $2, $3, $4)", ["text[]", "text", "int8", "int8"])
    plpy.execute(plan, [symbols, versions[0], width, begin])
    rows = [
        (symbol, now, then)
        for (symbol, _), now, then in zip(asked, made, judged, strict=True)
        if now is not None and then is not None
    ]
    storage.write(plpy, width, (versions[0], versions[1]), rows)
    return sum(len(now.ts) for _, now, _ in rows)


def replay(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    width: int,
    spec: str,
    thresholds: str,
    first: int,
    stop: int,
    as_of: int,
) -> list[tuple[int, int, int, int, list[float], int, int | None]]:
    """(bar, known, state, since, probabilities, verdict, verdict known) of the bars that closed in
    [first, stop), from what was known at ``as_of``; nothing is stored. States from 1, 0: none."""
    by = classifier(plpy, cache, spec)
    limits = json.loads(thresholds)
    begin = b.block_of(first - width, width)
    reach = int(limits["verdict_limit"]) * width
    end = min(stop + reach, as_of) - width + 1
    bars = b.read(plpy, [symbol], width, begin - b.WARMUP * width, end)[symbol]
    if as_of != b.NEVER:
        bars = bars.as_known(as_of)
    pairs = [(bars, start) for start in _starts(bars, begin) if start < stop]
    out = []
    for now, then in zip(nowcast.blocks(pairs, by), hindsight.blocks(pairs, limits), strict=True):
        if now is None:
            continue
        verdicts: dict[int, tuple[int, int]] = {}
        if then is not None:
            columns = (then.ts.tolist(), (then.states + 1).tolist(), then.known.tolist())
            verdicts = {t: (state, known) for t, state, known in zip(*columns, strict=True)}
        rows = zip(
            now.ts.tolist(), now.moment.tolist(), (now.shown + 1).tolist(), now.since.tolist(),
            now.p.tolist(), strict=True,
        )  # fmt: skip
        for t, known, state, since, p in rows:
            if first <= t < stop:
                verdict, at = verdicts.get(t, (0, b.NEVER))
                out.append((t, known, state, since, p, verdict, None if at == b.NEVER else at))
    return out


_LOOKBACK = 3500  # bars from which a forecast learns
_MOST_AHEAD = 720


def _bars_ahead(plpy: Any, horizon: int, width: int) -> int:
    count = -(-horizon // width)
    if not 0 < count <= _MOST_AHEAD:
        plpy.error(
            f"a horizon of {count} bars cannot be forecast",
            sqlstate="AP609",
            hint=f"From 1 to {_MOST_AHEAD} bars of the timeframe.",
        )
    return count


def _known(plpy: Any, symbol: str, width: int, as_of: int) -> b.Bars:
    start = b.block_of(as_of - _LOOKBACK * width, width)
    return b.read(plpy, [symbol], width, start, as_of - width + 1)[symbol].as_known(as_of)


def level(
    plpy: Any, symbol: str, width: int, horizon: int, as_of: int, what: str
) -> list[tuple[float, float | None, float | None, list[float], float | None, int, int]]:
    """(forecast, lower, upper, weights, past coverage, bars, last bar) of volatility or volume over
    the next ``horizon``; none where there are too few bars or the last is too old."""
    count = _bars_ahead(plpy, horizon, width)
    bars = _known(plpy, symbol, width, as_of)
    places, values = bars.final(0, len(bars.bucket))
    if len(places) <= forecast.FIRST + count:
        return []
    close = int(bars.bucket[places[-1]]) + width
    if as_of - close > b.MAX_AGE * width:
        return []
    if what == "volume":
        series = np.maximum(values[:, 3], 1e-12)
    else:
        series = np.log(values[:, 0] / values[:, 1]) ** 2 / (4.0 * np.log(2.0))
        series = np.maximum(series, observe.SMALLEST)
    found = forecast.forecasts(series, count)
    if not np.isfinite(found.level[-1]):
        return []
    judged = np.arange(len(series) - count)
    judged = judged[np.isfinite(found.lower[judged])][-500:]
    total = np.concatenate([[0.0], np.cumsum(series)])
    after = (total[judged + count + 1] - total[judged + 1]) / count
    inside = (found.lower[judged] <= after) & (after <= found.upper[judged])

    def scaled(x: float) -> float | None:
        if not np.isfinite(x):
            return None
        return float(x * count if what == "volume" else np.sqrt(x * count))

    answer = scaled(found.level[-1])
    assert answer is not None
    return [
        (
            answer, scaled(found.lower[-1]), scaled(found.upper[-1]), found.weights[-1].tolist(),
            float(inside.mean()) if len(judged) else None, len(series), close,
        )
    ]  # fmt: skip


def state_ahead(
    plpy: Any, cache: dict[str, Any], symbol: str, width: int, horizon: int, as_of: int, spec: str
) -> list[tuple[list[float], int]]:
    """(probabilities, last bar) of the regimes after ``horizon``; none where none is known."""
    count = _bars_ahead(plpy, horizon, width)
    by = classifier(plpy, cache, spec)
    bars = _known(plpy, symbol, width, as_of)
    answer = nowcast.moment(bars, as_of, by)
    if answer is None or answer.shown < 0:
        return []
    starts = _starts(bars, int(bars.bucket[0]) if len(bars.bucket) else 0)
    made = nowcast.blocks([(bars, start) for start in starts], by)
    parts = [block for block in made if block is not None]
    shown = np.concatenate([block.shown for block in parts])
    p = np.concatenate([block.p for block in parts])
    held = np.concatenate([(block.ts - block.since) // width + 1 for block in parts])
    told = shown >= 0
    shown, p, held = shown[told], p[told], held[told]
    if not len(shown) or shown[-1] != answer.shown:
        # The newest bar was another when it was asked for.
        shown, p = np.append(shown, answer.shown), np.vstack([p, answer.p])
        held = np.append(held, max((answer.bar - answer.since) // width, 0) + 1)
    p[-1] = answer.p
    return [(forecast.state_in(p, shown, held, count).tolist(), answer.bar)]
