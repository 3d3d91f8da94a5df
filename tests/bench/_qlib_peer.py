"""Run by tests.bench.qlib_panel with an interpreter that has pyqlib: build the data set, say when.

Arguments: folder of qlib's data, file for the result, port of a Redis (0: none).
"""

import json
import sys
import time
from pathlib import Path

FIELDS = {
    "kmid": "($close-$open)/$open",
    "klen": "($high-$low)/$open",
    "ksft": "(2*$close-$high-$low)/$open",
    "roc_5": "Ref($close,5)/$close",
    "roc_20": "Ref($close,20)/$close",
    "roc_60": "Ref($close,60)/$close",
    "ma_5": "Mean($close,5)/$close",
    "ma_20": "Mean($close,20)/$close",
    "ma_60": "Mean($close,60)/$close",
    "std_20": "Std($close,20)/$close",
    "max_20": "Max($high,20)/$close",
    "min_20": "Min($low,20)/$close",
    "corr_20": "Corr($close,Log($volume+1),20)",
    "vma_20": "Mean($volume,20)/($volume+1e-12)",
}


def main() -> None:
    """Time the build, and the reading of it again from qlib's disk cache."""
    import qlib
    from qlib.data import D

    folder, out, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    caches = {"expression_cache": None, "dataset_cache": None}
    settings = {"provider_uri": folder, "kernels": 1, "region": "us", "logging_level": 40}
    if port:
        caches["dataset_cache"] = "DiskDatasetCache"
        settings |= {"redis_host": "127.0.0.1", "redis_port": port}
    qlib.init(**settings, **caches)

    def build(disk_cache: int) -> tuple[float, object]:
        begin = time.perf_counter()
        frame = D.features(
            D.instruments("all"), list(FIELDS.values()), freq="day", disk_cache=disk_cache
        )
        return time.perf_counter() - begin, frame

    taken = {}
    from qlib.data.cache import H

    def shortest(times: int, disk_cache: int) -> tuple[float, object]:
        seconds, frame = float("inf"), None
        for _ in range(times):
            frame = None
            H.clear()
            taken, frame = build(disk_cache)
            seconds = min(seconds, taken)
        return seconds, frame

    taken["uncached"], frame = shortest(2, 0)
    if port:
        build(1)  # writes the cache
        taken["cached"], again = shortest(3, 1)
        assert len(again) == len(frame)
    frame.iloc[::1009].to_pickle(out)
    taken["rows"] = len(frame)
    Path(out + ".json").write_text(json.dumps(taken))


if __name__ == "__main__":
    main()
