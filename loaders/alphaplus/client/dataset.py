"""A model's training set as a file: Parquet, Arrow or CSV, written slice by slice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from alphaplus.client.client import SLICE, Client, Time
from alphaplus.client.folds import fold_of

FORMATS = (".parquet", ".feather", ".arrow", ".csv")


def _writer(path: Path, suffix: str, schema: Any) -> Any:
    """What writes tables of a schema to a file, by the ending of its name."""
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, schema, compression="zstd")
    if suffix == ".csv":
        from pyarrow import csv

        return csv.CSVWriter(path, schema)
    return pa.ipc.new_file(path, schema)


def write(
    client: Client,
    path: Path,
    model: str,
    symbol: str | None = None,
    as_of: Time = None,
    start: Time = None,
    end: Time = None,
    *,
    folds: int = 0,
    regime: str | None = None,
    slice_bytes: int = SLICE,
) -> int:
    """Write a training set to a file; returns the number of rows.

    Columns symbol, ts, label_end, the features by name, target; with ``folds`` above 0 also fold:
    the walk-forward fold that tests the row, 0 where none does. What it was read by stands in the
    schema's metadata (``alphaplus``; CSV has none): model, label, symbol, as_of, the folds' times.
    A file that was begun and not finished does not stay under the name.

    Raises:
        ValueError: the file's ending is none of :data:`FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the ending says the format: {', '.join(FORMATS)}")
    as_of = as_of or client.now()
    cut = client.folds(model, symbol, as_of, folds, start, end) if folds else None
    about: dict[str, Any] = {
        "model": model, "label": client.model(model).label, "symbol": symbol, "as_of": str(as_of),
        "from": start and str(start), "to": end and str(end), "regime": regime,
    }  # fmt: skip
    if cut is not None:
        about["folds"] = json.loads(cut.to_json(orient="records", date_format="iso"))
    rows = 0
    part = path.with_name(f"{path.name}.part")
    writer: Any = None
    try:
        for piece in client.training_slices(model, symbol, as_of, start, end, regime, slice_bytes):
            if cut is not None:
                piece["fold"] = fold_of(piece, cut)
            table = _table(piece, about, path.suffix == ".csv")
            writer = writer or _writer(part, path.suffix, table.schema)
            writer.write_table(table)
            rows += table.num_rows
        writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return rows


def _table(piece: Any, about: dict[str, Any], plain: bool) -> Any:
    """A slice as an Arrow table, straight from the frame's numbers."""
    arrays, names = [], []
    for name in piece.columns:
        series = piece[name]
        if name == "symbol":
            array = pa.DictionaryArray.from_arrays(
                pa.array(series.cat.codes.to_numpy(), pa.int32()),
                pa.array(list(series.cat.categories), pa.string()),
            )
            array = array.cast(pa.string()) if plain else array
        elif name in ("ts", "label_end"):
            array = pa.array(series.to_numpy("M8[us]"), pa.timestamp("us", "UTC"))
        else:
            array = pa.array(np.ascontiguousarray(series.to_numpy()))
        arrays.append(array)
        names.append(name)
    return pa.table(arrays, names=names).replace_schema_metadata({"alphaplus": json.dumps(about)})
