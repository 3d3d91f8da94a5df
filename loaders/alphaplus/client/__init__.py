"""Data out of the database as data frames: training sets, vectors, predictions, bars.

    import alphaplus.client as ap

    with ap.connect() as client:
        rows = client.training_set("liquidation_15m", "BTCUSDT")
        folds = client.folds("liquidation_15m", "BTCUSDT")
        for train, test in ap.split(rows, folds):
            ...

Numbers come in binary form, in blocks or by COPY, without a Python object per value. Everything is
read as of a time, by both clocks; what a frame was read by stands in ``frame.attrs``.
"""

from alphaplus.client.client import Client, connect
from alphaplus.client.dataset import write
from alphaplus.client.folds import fold_of, split

__all__ = ["Client", "connect", "fold_of", "split", "write"]
