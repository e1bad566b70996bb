"""Pictures on which conformance is measured beside photographs of bytes: unrounded greys and regular patterns."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import skimage.feature.sift
from skimage import color, data

# Colour photographs whose greys are not rounded to bytes: float64.
GREYS = {
    "astronaut": data.astronaut,
    "chelsea": data.chelsea,
    "coffee": data.coffee,
    "hubble": lambda: data.hubble_deep_field()[300:600, 400:720],
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "rocket": data.rocket,
}

_ROWS, _COLS = np.mgrid[:120, :130]
_FROM_CENTRE = np.hypot(_ROWS - 60, _COLS - 60)
_CELLS = np.random.default_rng(0).integers(0, 2, (12, 16))

# Pictures in which neighbours tie exactly, so that the order of operations decides: float64.
PATTERNS = {
    "chessboard": (_ROWS // 8 + _COLS // 8) % 2,
    "disc": _FROM_CENTRE < 20,
    "dots": (_ROWS % 16 - 8) ** 2 + (_COLS % 16 - 8) ** 2 < 9,
    "markers": np.kron(np.pad(_CELLS, 1, constant_values=1), np.ones((12, 12))),
    "ring": abs(_FROM_CENTRE - 25) < 4,
    "square": (abs(_ROWS - 60) < 20) & (abs(_COLS - 60) < 20),
}


@functools.cache
def grey(name: str) -> np.ndarray:
    return np.ascontiguousarray(color.rgb2gray(GREYS[name]()))


def pattern(name: str) -> np.ndarray:
    return PATTERNS[name].astype(np.float64)


class _NumPyWithAtan2OfC:
    """NumPy, but for `arctan2`."""

    arctan2 = staticmethod(np.vectorize(math.atan2, otypes=[np.float64]))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@contextlib.contextmanager
def atan2_of_c() -> Iterator[None]:
    """Let scikit-image compute angles by C's atan2.

    NumPy's own, where the processor has AVX-512, errs in the last bit now and then. On regular patterns that puts a
    gradient into another bin of the orientation's histogram, as many directions lie at the border of two bins.
    """
    module: Any = skimage.feature.sift
    module.np = _NumPyWithAtan2OfC()
    try:
        yield
    finally:
        module.np = np
