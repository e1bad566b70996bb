"""CuPy's ufuncs, by NumPy's."""

from __future__ import annotations

from typing import Any

from cupy import _evaluate


class ufunc:
    """A function of elements."""

    def __init__(self, of_numpy: Any) -> None:
        self._of_numpy = of_numpy
        self.name = self.__name__ = of_numpy.__name__

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        if dtype is not None:
            raise NotImplementedError("the stand-in's ufuncs take no dtype")
        return _evaluate.elementwise(self.name, self._of_numpy, *args, out=out)
