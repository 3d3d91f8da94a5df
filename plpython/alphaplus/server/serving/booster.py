"""LightGBM models in a backend, through the shared library's C interface.

The ``lightgbm`` package takes 300 ms to import; its library takes a few. One row goes through the
single-row fast path (``LGBM_BoosterPredictForMatSingleRowFast``), which keeps its buffers. Always
one thread: a backend is one of many.

Source: https://lightgbm.readthedocs.io/en/stable/C-API.html
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import sys
from collections.abc import Sequence
from typing import Any

from alphaplus.server import interrupts
from alphaplus.server.serving import lightgbm_text

_FLOAT64 = 1
_ROW_MAJOR = 1
RAW, CONTRIBUTIONS = 1, 3
_PARAMETERS = b"num_threads=1"
# Rows of one call, between which a cancel is looked for.
_ROWS = 4096

_library: ctypes.CDLL | None = None


class BoosterError(Exception):
    """The library refused the model or the data."""


def library() -> ctypes.CDLL:
    """The shared library of the installed lightgbm package, without importing the package."""
    global _library  # noqa: PLW0603
    if _library is None:
        for folder in sys.path:
            path = os.path.join(folder, "lightgbm", "lib", "lib_lightgbm.so")  # noqa: PTH118
            if os.path.exists(path):  # noqa: PTH110  (importing pathlib takes 5 ms)
                _library = ctypes.CDLL(path)
                _library.LGBM_GetLastError.restype = ctypes.c_char_p
                break
        else:
            raise BoosterError("the package lightgbm is not installed")
    return _library


def _check(code: int) -> None:
    if code != 0:
        raise BoosterError(library().LGBM_GetLastError().decode("utf-8", "replace"))


class Booster:
    """One model. ``raw(row)`` is the raw score of one row, NaN or None for missing values.

    Raises:
        BoosterError: the text is not whole and sound, or the library refused it.
    """

    def __init__(self, text: bytes) -> None:
        try:
            lightgbm_text.check(text)
        except ValueError as error:
            raise BoosterError(f"no sound LightGBM text model: {error}") from None
        lib = library()
        self._handle = ctypes.c_void_p()
        iterations = ctypes.c_int()
        _check(
            lib.LGBM_BoosterLoadModelFromString(
                ctypes.c_char_p(text), ctypes.byref(iterations), ctypes.byref(self._handle)
            )
        )
        count = ctypes.c_int()
        _check(lib.LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(count)))
        self.features = self.width = count.value
        self._pack = struct.Struct(f"{self.features}d").pack_into
        self._row = (ctypes.c_double * self.features)()
        self._out = (ctypes.c_double * 1)()
        self._length = ctypes.c_int64()
        self._fast = ctypes.c_void_p()
        _check(
            lib.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._handle,
                RAW,
                0,
                -1,
                _FLOAT64,
                ctypes.c_int32(self.features),
                ctypes.c_char_p(_PARAMETERS),
                ctypes.byref(self._fast),
            )
        )
        self._predict = lib.LGBM_BoosterPredictForMatSingleRowFast
        # Made once: what one call passes is always the same.
        self._arguments = (
            self._fast,
            ctypes.byref(self._row),
            ctypes.byref(self._length),
            ctypes.byref(self._out),
        )

    def raw(self, row: Sequence[float | None]) -> float:
        """Raw score of one row of ``features`` values.

        Raises:
            ValueError: another number of values.
        """
        try:
            self._pack(self._row, 0, *row)
        except (struct.error, TypeError):
            if len(row) != self.features:
                raise ValueError("another number of values") from None
            self._row[:] = [math.nan if value is None else value for value in row]
        if self._predict(*self._arguments):
            _check(-1)
        return self._out[0]

    def many(self, rows: Any) -> Any:
        """Raw scores (n,) of the rows of a C-contiguous float64 array (n, features); one call, the
        same numbers as ``raw`` of each."""
        import numpy as np

        out = np.empty(len(rows))
        for at in range(0, len(rows), _ROWS):
            interrupts.process()
            self._many(rows[at : at + _ROWS], out[at : at + _ROWS])
        return out

    def _many(self, rows: Any, out: Any) -> None:
        length = ctypes.c_int64()
        _check(
            library().LGBM_BoosterPredictForMat(
                self._handle,
                ctypes.c_void_p(rows.ctypes.data),
                _FLOAT64,
                ctypes.c_int32(len(rows)),
                ctypes.c_int32(self.features),
                _ROW_MAJOR,
                RAW,
                0,
                -1,
                ctypes.c_char_p(_PARAMETERS),
                ctypes.byref(length),
                ctypes.c_void_p(out.ctypes.data),
            )
        )

    def contributions(self, row: Sequence[float]) -> list[float]:
        """SHAP values of one row of the raw score, the expected raw score last."""
        out = (ctypes.c_double * (self.features + 1))()
        length = ctypes.c_int64()
        values = (ctypes.c_double * self.features)(*row)
        _check(
            library().LGBM_BoosterPredictForMat(
                self._handle,
                ctypes.byref(values),
                _FLOAT64,
                ctypes.c_int32(1),
                ctypes.c_int32(self.features),
                _ROW_MAJOR,
                CONTRIBUTIONS,
                0,
                -1,
                ctypes.c_char_p(_PARAMETERS),
                ctypes.byref(length),
                ctypes.byref(out),
            )
        )
        return list(out)

    def close(self) -> None:
        """Give the model's memory back."""
        if self._handle:
            library().LGBM_FastConfigFree(self._fast)
            library().LGBM_BoosterFree(self._handle)
            self._handle = ctypes.c_void_p()
