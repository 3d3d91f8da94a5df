"""Fuzzing the readers: whatever bytes a file holds, no traceback, and no row that it does not hold.

``make fuzz [SECONDS=…]``: valid files of many layouts are mutated (bytes, lines, cells, lengths,
packing) and looked at as ``alphaplus inspect`` does. A run that ends in anything but an answer or
one of the loader's own errors is a failure, and its file is kept. Rows: of every row that would be
stored the time, the prices, and where they are base units already the sizes must stand in the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import random
import re
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from alphaplus.cli.connect import role_conninfo
from alphaplus.loaders import tables
from alphaplus.loaders.load import FAULTS, Loader, Options, TooManyBad

AT = 1_704_067_200_000
CELLS = [
    "", "NaN", "inf", "-1", "1e308", "1e-320", "0", "9" * 25, "abc", "\u202e", "\0", '"', "=1+1", "1,5",
    "2024-13-45", "20240102", "true", "null", "{}", "[]", "1;2", "\ufeff", "1_000", "0x10", "٣",
]  # fmt: skip


def seeds() -> dict[str, bytes]:
    """A valid file of each layout, by name."""
    agg = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    agg += "".join(f"{i},{100 + i},{1 + i},{i},{i},{AT + i},true\n" for i in range(8))
    kline = "".join(
        f"{AT + 60000 * i},10,11,9,10.5,5,{AT + 60000 * i + 59999},52,3,2,21,0\n" for i in range(8)
    )
    plain = "timestamp,open,high,low,close,volume\n" + "".join(
        f"{AT // 1000 + 60 * i},10,11,9,10.5,{i}\n" for i in range(8)
    )
    tardis = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + "".join(
        f"bitmex,XBTUSD,{AT * 1000 + i},{AT * 1000 + i},{i},buy,{40000 + i},10\n" for i in range(8)
    )
    depth = "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu\n" + "".join(
        f"BTCUSDT,{AT + 1000 * i},{i},{i},{s},set,{p},1,{i - 1}\n"
        for i in range(6) for s, p in (("b", 10), ("a", 11))
    )  # fmt: skip
    feed = "".join(
        f'{AT + i} {{"stream":"x","data":{{"e":"aggTrade","E":{AT},"T":{AT},"s":"BTCUSDT","a":{i},'
        f'"p":"10","q":"2","f":1,"l":1,"m":false}}}}\n'
        for i in range(8)
    )
    book = "".join(
        f'{{"e":"depthUpdate","E":{AT + i},"T":{AT + i},"s":"BTCUSD_PERP","U":{i},"u":{i},"pu":{i - 1},'
        f'"b":[["10","1"]],"a":[["11","2"]]}}\n'
        for i in range(8)
    )
    okx = "instrument_name,trade_id,side,price,size,created_time\n" + "".join(
        f"BTC-USDT-SWAP,{i},buy,4000{i},5,{AT + i}\n" for i in range(8)
    )
    kraken = "".join(f"{AT // 1000 + 60 * i},9{i}.5,{1 + i}\n" for i in range(8))
    rows = b"[" + b",".join(b"[%d,10,11,9,10.5,5]" % (AT + 60000 * i) for i in range(8)) + b"]"
    out = {
        "um/BTCUSDT-aggTrades-2024-01-01.csv": agg.encode(),
        "um/BTCUSDT-1m-2024-01-01.csv": kline.encode(),
        "ETH_BTC-1m.csv": plain.encode(),
        "tardis_trades.csv": tardis.encode(),
        "btcusdt-depth-snap.csv": depth.encode(),
        "feed.jsonl": feed.encode(),
        "book.jsonl": book.encode(),
        "BTC-USDT-SWAP-trades.csv": okx.encode(),
        "ETH_USDT-1m.json": rows,
        "kraken/BCHEUR.csv": kraken.encode(),
    }
    return {**out, "ETH_BTC-1m.parquet": _parquet()}


def _parquet() -> bytes:
    import pandas as pd

    frame = pd.DataFrame({"timestamp": [AT + 60000 * i for i in range(8)], "open": 10.0, "high": 11.0,
                          "low": 9.0, "close": 10.5, "volume": 5.0})  # fmt: skip
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file with one to four things wrong."""
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(8)
        lines = data.split(b"\n")
        at = rng.randrange(max(len(lines), 1))
        if kind == 0 and data:  # a byte
            place = rng.randrange(len(data))
            data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        elif kind == 1:  # cut
            data = data[: rng.randrange(len(data) + 1)]
        elif kind in (2, 3):  # a cell
            cells = lines[at].split(b",")
            cells[rng.randrange(len(cells))] = rng.choice(CELLS).encode("utf-8", "surrogatepass")
            lines[at] = b",".join(cells)
            data = b"\n".join(lines)
        elif kind == 4:  # a line twice, or away
            lines[at : at + 1] = [lines[at]] * rng.choice((0, 2, 3))
            data = b"\n".join(lines)
        elif kind == 5:  # another end of line, another separator
            data = data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n")))
        elif kind == 6:
            data = data.replace(b",", rng.choice((b";", b"\t", b"|", b",,")))
        else:  # noise in between
            place = rng.randrange(len(data) + 1)
            data = data[:place] + rng.randbytes(rng.randint(1, 40)) + data[place:]
    return data


def packed(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """As it is, or packed, sometimes badly."""
    how = rng.randrange(5)
    if how == 0:
        data, name = gzip.compress(data, 1), name + ".gz"
    elif how == 1:
        data, name = bz2.compress(data, 1), name + ".bz2"
    elif how == 2:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(Path(name).name, data)
        data, name = buffer.getvalue(), name.rsplit(".", 1)[0] + ".zip"
    if how < 3 and rng.random() < 0.3:
        data = data[: rng.randrange(len(data) + 1)]
    return name, data


EPOCH = 946_684_800 * 10**6
PRICES = ("price", "open", "high", "low", "close", "rate", "bid_prices", "ask_prices")
SIZES = ("size", "volume")
# Files whose sizes count contracts or dollars, or are added up: stored is not what they hold.
CONVERTED = ("tardis_trades", "book.jsonl", "BTC-USDT-SWAP", "kraken/")


def flat(column: Any) -> list[float]:
    """The numbers of a column, also of one of arrays."""
    if column is None or isinstance(column, str):
        return []
    values = getattr(column, "values", column)
    return [float(x) for x in np.ravel(np.asarray(values, dtype=np.float64)) if np.isfinite(x)]


def held(made: list[dict[str, Any]], name: str, data: bytes) -> str:
    """A number of a stored row that the file does not hold, or ''."""
    text = data.decode("utf-8", "replace")
    found = re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)
    numbers = {float(n) for n in found} | {float(n.replace(",", "")) for n in found}
    wanted = PRICES if name.startswith(CONVERTED) else (*PRICES, *SIZES)
    for rows in made:
        for column in wanted:
            for value in flat(rows.get(column)):
                if value not in numbers and -value not in numbers:
                    return f"{column} {value!r}"
        for ts in rows["ts"].tolist():
            at = ts + EPOCH
            if not any(at / unit in numbers for unit in (1e6, 1e3, 1.0, 1e-3)):
                return f"ts {at}"
    return ""


def main(seconds: float, seed: int) -> int:
    """Fuzz for some time; returns the number of failures, each with its file kept."""
    rng = random.Random(seed)
    originals = seeds()
    tries = failures = answers = 0
    made: list[dict[str, Any]] = []
    values = tables.values

    def recorded(*arguments: Any, **options: Any) -> dict[str, Any]:
        rows = values(*arguments, **options)
        made.append(rows)
        return rows

    tables.values = recorded
    keep = Path(tempfile.mkdtemp(prefix="alphaplus-fuzz-"))
    end = time.monotonic() + seconds
    with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
        while time.monotonic() < end:
            tries += 1
            name, data = rng.choice(list(originals.items()))
            changed = mutated(data, rng)
            name, bytes_ = packed(name, changed, rng)
            path = keep / str(tries) / name
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes_)
            wrong = ""
            made.clear()
            began = time.monotonic()
            try:
                loader = Loader(conn, Options(), dry=True)
                loader.load(path)
                answers += 1
                if not name.endswith(("parquet", "parquet.gz", "parquet.bz2")):
                    wrong = held(made, name, changed)
            except (*FAULTS, TooManyBad):
                pass
            except Exception:
                wrong = traceback.format_exc()
            if time.monotonic() - began > 20:
                wrong = wrong or f"took {time.monotonic() - began:.0f} s"
            if wrong:
                failures += 1
                print(f"{path} (seed {seed}): {wrong}")
            else:
                path.unlink()
    print(f"{tries:,} files, {answers:,} read, {failures} failures; seed {seed}; files in {keep}")
    return failures


if __name__ == "__main__":
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    raise SystemExit(min(1, main(duration, chosen)))
