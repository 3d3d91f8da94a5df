"""What is read, and how it becomes a frame."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psycopg
from alphaplus.client.columns import EPOCH, Column, frame, times

SLICE = 128 << 20  # bytes of features in one answer of the server, about
UTC = dt.UTC
Time = dt.datetime | str | None

PREDICTIONS = (
    Column("as_of", "p.as_of", "time"),
    Column("symbol", "p.symbol", "text"),
    Column("version_id", "p.version_id", "integer"),
    Column("prediction", "p.prediction"),
    Column("probability", "p.probability"),
    Column("confidence", "p.confidence"),
    Column("risk_level", "p.risk_level", "text"),
    Column("expected_volume", "p.expected_volume"),
    Column("regime", "p.regime", "text"),
    Column("is_fallback", "p.is_fallback", "flag"),
    Column("outcome", "p.outcome"),
    Column("outcome_at", "p.outcome_at", "time"),
    Column("prediction_id", "p.prediction_id", "integer"),
)
OUT_OF_FOLD = (
    Column("symbol", "o.symbol", "text"),
    Column("ts", "o.ts", "time"),
    Column("fold", "o.fold", "integer"),
    Column("prediction", "o.prediction"),
    Column("target", "o.target"),
    Column("base_rate", "o.base_rate"),
    Column("raw", "o.raw"),
)
BARS = (
    Column("ts", "b.ts", "time"),
    Column("open", "b.open"),
    Column("high", "b.high"),
    Column("low", "b.low"),
    Column("close", "b.close"),
    Column("volume", "b.volume"),
    Column("known_at", "b.known_at", "time"),
)


class Model(NamedTuple):
    """What a training set of a model is made of."""

    label: str
    horizon: dt.timedelta
    grid: dt.timedelta
    features: list[str]


class Client:
    """Reads frames over one connection; a context manager that closes what it opened."""

    def __init__(self, conn: psycopg.Connection[Any], *, owns: bool = False) -> None:
        self.conn = conn
        self._owns = owns

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._owns:
            self.conn.close()

    def now(self) -> dt.datetime:
        """The server's clock: what ``as_of`` is where none is given."""
        return self._one("select clock_timestamp()")[0]  # type: ignore[no-any-return]

    def training_set(
        self,
        model: str,
        symbol: str | None = None,
        as_of: Time = None,
        start: Time = None,
        end: Time = None,
        regime: str | None = None,
    ) -> pd.DataFrame:
        """A model's training set: symbol, ts, label_end, the features by name, target.

        The rows of ``ml.training_set``, by time, then symbol. ``symbol`` None: all, pooled.
        ``as_of`` None: now, by the server; it stands in ``attrs`` and gives the same set again.
        """
        as_of = as_of or self.now()
        parts = list(self.training_slices(model, symbol, as_of, start, end, regime))
        whole = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        whole.attrs = {"model": model, "symbol": symbol, "as_of": str(as_of), "regime": regime}
        return whole

    def training_slices(
        self,
        model: str,
        symbol: str | None = None,
        as_of: Time = None,
        start: Time = None,
        end: Time = None,
        regime: str | None = None,
        slice_bytes: int = SLICE,
    ) -> Iterator[pd.DataFrame]:
        """:meth:`training_set` slice by slice of time, all from one snapshot; at least one frame.

        Every slice has the same categories of symbols.
        """
        as_of = as_of or self.now()
        with self._snapshot():
            about = self.model(model)
            k = len(about.features)
            symbols, first, stop = self._one(
                "select y.symbols, ops._at(p.start), ops._at(p.stop)"
                " from ml._training_symbols(%(symbol)s) as y (symbols)"
                " cross join lateral ml._training_span(%(model)s, y.symbols, %(start)s, %(end)s,"
                " %(as_of)s) p",
                {"model": model, "symbol": symbol, "start": start, "end": end, "as_of": as_of},
            )
            if first is None or stop is None or stop <= first:
                yield self._training_frame(None, about.features, symbols)
                return
            rows = (stop - first) / about.grid * len(symbols)
            count = max(1, math.ceil(rows * max(k, 1) * 8 / slice_bytes))
            edges = [first + (stop - first) * i / count for i in range(count)]
            for low, high in zip(edges, [*edges[1:], stop], strict=True):
                (block,) = self._one(
                    "select ml.training_block(%s, %s, %s, %s, %s, %s)",
                    (model, symbol, as_of, low, high, regime),
                )
                yield self._training_frame(block, about.features, symbols)

    def folds(
        self,
        model: str,
        symbol: str | None = None,
        as_of: Time = None,
        folds: int = 5,
        start: Time = None,
        end: Time = None,
    ) -> pd.DataFrame:
        """Walk-forward folds of a training set (``ml.folds``), purged by the label's horizon.

        Columns fold, train_from, train_to, test_from, test_to; :func:`alphaplus.client.split`
        applies them to rows.
        """
        columns = (
            Column("fold", "f.fold", "integer"),
            *(
                Column(name, name, "time")
                for name in ("train_from", "train_to", "test_from", "test_to")
            ),
        )
        return frame(
            self.conn,
            columns,
            "from ml.folds(%(model)s, %(symbol)s, %(as_of)s, %(folds)s, %(start)s, %(end)s) f"
            " order by f.fold",
            {
                "model": model, "symbol": symbol, "as_of": as_of or self.now(), "folds": folds,
                "start": start, "end": end,
            },
        )  # fmt: skip

    def vectors(
        self,
        feature_set: str,
        symbols: str | list[str] | None,
        start: Time,
        end: Time,
        version: int | None = None,
    ) -> pd.DataFrame:
        """A feature set's vectors on the grid in [start, end): symbol, ts, features by name.

        Each as known at its own ts (``feature.matrix``); NaN where not knowable. Times at which
        nothing is known have no row. ``symbols`` None: all.
        """
        names = self._one(
            "select s.features from feature._set(%s, %s) s", (feature_set, version)
        )[0]  # fmt: skip
        wanted = [symbols] if isinstance(symbols, str) else symbols
        found: list[tuple[str, Any, Any]] = []
        with self.conn.cursor(binary=True) as cursor:
            cursor.execute(
                "select symbol, ts, vectors from feature.matrix(%s, %s, %s::timestamptz,"
                " %s::timestamptz, %s)",
                (feature_set, wanted, start, end, version),
            )
            for symbol, ts, vectors in cursor:
                found.append((
                    symbol, np.frombuffer(ts, "<i8"),
                    np.frombuffer(vectors, "<f8").reshape(-1, len(names)),
                ))  # fmt: skip
        ids = sorted({symbol for symbol, _, _ in found})
        codes = np.repeat(
            np.array([ids.index(symbol) for symbol, _, _ in found], dtype=np.int32),
            [len(ts) for _, ts, _ in found],
        )
        at = np.concatenate([ts for _, ts, _ in found]) if found else np.zeros(0, np.int64)
        x = np.concatenate([v for _, _, v in found]) if found else np.zeros((0, len(names)))
        return _beside({"symbol": _categories(codes, ids), "ts": times(at + EPOCH)}, x, names, {})

    def predictions(
        self, model: str, symbol: str | None = None, start: Time = None, end: Time = None
    ) -> pd.DataFrame:
        """The recorded predictions of a model (``ml.predictions``) with as_of in [start, end)."""
        return frame(
            self.conn,
            PREDICTIONS,
            "from ml.predictions p where p.model = %(model)s"
            " and (%(symbol)s::text is null or p.symbol = market.resolve(%(symbol)s::text))"
            " and p.as_of >= coalesce(%(start)s::timestamptz, '-infinity')"
            " and p.as_of < coalesce(%(end)s::timestamptz, 'infinity')"
            " order by p.as_of, p.symbol, p.prediction_id",
            {"model": model, "symbol": symbol, "start": start, "end": end},
        )

    def out_of_fold(self, version_id: int) -> pd.DataFrame:
        """The out-of-fold predictions by which a version was judged (``ml.out_of_fold``)."""
        return frame(
            self.conn,
            OUT_OF_FOLD,
            "from ml.out_of_fold(%(version)s) o order by o.ts, o.symbol",
            {"version": version_id},
        )

    def bars(self, symbol: str, timeframe: str, start: Time, end: Time) -> pd.DataFrame:
        """Loaded bars of one length (``market.candles``) with ts in [start, end)."""
        return frame(
            self.conn,
            BARS,
            "from market.candles b where b.symbol = market.resolve(%(symbol)s)"
            " and b.timeframe = %(timeframe)s::interval and b.ts >= %(start)s::timestamptz"
            " and b.ts < %(end)s::timestamptz order by b.ts",
            {"symbol": symbol, "timeframe": timeframe, "start": start, "end": end},
        )

    def model(self, model: str) -> Model:
        """What a model's training set is made of.

        Raises:
            LookupError: there is no such model.
        """
        row = self.conn.execute(
            "select m.label, l.horizon, s.grid, s.features from ml.models m"
            " join ml.labels l on l.label = m.label"
            " join feature.sets s on s.name = m.feature_set and s.version = m.feature_version"
            " where m.model = %s",
            (model,),
        ).fetchone()
        if row is None:
            raise LookupError(f"unknown model {model!r}: select model, label from ml.models")
        return Model(*row)

    def _training_frame(
        self, block: bytes | None, names: list[str], symbols: list[str]
    ) -> pd.DataFrame:
        """The arrays of ``ml.training_block`` as a frame."""
        n, k = (0, len(names)) if block is None else np.frombuffer(block, "<i8", 2).tolist()
        taken = 16

        def next_(dtype: str, count: int) -> Any:
            nonlocal taken
            if block is None:
                return np.zeros(0, dtype)
            array = np.frombuffer(block, dtype, count, taken)
            taken += array.nbytes
            return array

        ts, ends, target = next_("<i8", n), next_("<i8", n), next_("<f8", n)
        numbers, x = next_("<i4", n), next_("<f8", n * k).reshape(n, k)
        return _beside(
            {
                "symbol": _categories(numbers - 1, symbols),
                "ts": times(ts),
                "label_end": times(ends),
            },
            x, names, {"target": target},
        )  # fmt: skip

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """One snapshot for several queries; within a transaction of the caller's, that one."""
        if self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            yield
            return
        with self.conn.transaction():
            self.conn.execute("set transaction isolation level repeatable read")
            yield

    def _one(self, query: Any, params: Any = None) -> tuple[Any, ...]:
        with self.conn.cursor(binary=True) as cursor:
            row = cursor.execute(query, params).fetchone()
        assert row is not None
        return row  # type: ignore[no-any-return]


def _categories(codes: Any, names: list[str]) -> Any:
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))


def _beside(
    before: dict[str, Any], x: Any, names: list[str], after: dict[str, Any]
) -> pd.DataFrame:
    """Keys, the features as one block without a copy, and what comes after them."""
    parts = [pd.DataFrame(before), pd.DataFrame(x, columns=names, copy=False)]
    if after:
        parts.append(pd.DataFrame(after))
    return pd.concat(parts, axis=1)


def connect(conninfo: str = "", **options: Any) -> Client:
    """A client of its own connection: ``conninfo``, else DATABASE_URL, else PG* and libpq's files.

    Any role that may read does (``alphaplus_reader``). ``options`` are psycopg's.
    """
    conn = psycopg.connect(
        conninfo or os.environ.get("DATABASE_URL", ""), autocommit=True, **options
    )
    return Client(conn, owns=True)
