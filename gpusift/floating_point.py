"""The floating-point mode of a thread, which other libraries may have changed: rounding, flushing, exceptions."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_ENVIRONMENT_BYTES = 256  # room for a fenv_t of any system


@contextmanager
def default_mode() -> Iterator[None]:
    """A context with C's default mode: rounds to nearest, keeps subnormal numbers, raises no signal.

    Results are then the same whatever mode another library has left in the thread (fesetround, -ffast-math, MXCSR). The
    former mode comes back at the end. The kernels set their own mode; this one is for arithmetic of Python and NumPy.
    The context also decorates functions.
    """
    library = _libm()
    if library is None:
        yield
        return
    before = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
    library.fegetenv(before)
    library.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _libm() -> ctypes.CDLL | None:
    """C's mathematics library where it has a default mode by that address: glibc and musl."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "fesetenv"):
        try:
            library = ctypes.CDLL("libm.so.6")
        except OSError:
            return None
    return library
