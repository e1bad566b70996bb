"""The part of CuPy 14 that gpusift uses, on the machine of `standin`. What is not here raises."""

from typing import Any

import numpy as np
from cupy import _array, _evaluate, cuda
from cupy._array import _Capsule, ndarray
from cupy._functions import (
    arange,
    array,
    asarray,
    ascontiguousarray,
    asnumpy,
    concatenate,
    copyto,
    empty,
    empty_like,
    flatnonzero,
    from_dlpack,
    full,
    lexsort,
    ones,
    searchsorted,
    sort,
    stack,
    where,
    zeros,
)
from cupy._raw import RawKernel, RawModule
from cupy._ufuncs import ufunc as _ufunc
from numpy import (
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)

__version__ = "14.2.0"

_evaluate.add_operators(ndarray)

abs = absolute = _ufunc(np.absolute)
floor = _ufunc(np.floor)
sqrt = _ufunc(np.sqrt)
minimum = _ufunc(np.minimum)
maximum = _ufunc(np.maximum)
isfinite = _ufunc(np.isfinite)


def _array_ufunc(self, ufunc, method, *inputs, **kwargs):
    if method != "__call__" or kwargs:
        return NotImplemented
    return _evaluate.elementwise(ufunc.__name__, ufunc, *inputs)


ndarray.__array_ufunc__ = _array_ufunc


def get_default_memory_pool():
    """The pool of device memory."""
    return cuda.memory._default_pool


def get_default_pinned_memory_pool():
    """The pool of pinned memory."""
    return cuda.pinned_memory._default_pool


def __getattr__(name: str) -> Any:
    raise AttributeError(f"the stand-in has no cupy.{name}")
