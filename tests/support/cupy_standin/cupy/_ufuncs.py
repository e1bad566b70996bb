"""CuPy's ufuncs, by NumPy's."""

from __future__ import annotations

from typing import Any

from cupy import _evaluate
from standin.lacks import lacks


class ufunc:
    """A function of elements."""

    def __init__(self, of_numpy: Any) -> None:
        self._of_numpy = of_numpy
        self.name = self.__name__ = of_numpy.__name__

    @lacks("dtype", "casting")
    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        return _evaluate.elementwise(self.name, self._of_numpy, *args, out=out)
