"""Floating-point modes that another library may leave in a thread."""

import ctypes
import platform
import sys
from contextlib import contextmanager

import pytest

MXCSR_OFFSET = 28  # in glibc's fenv_t on x86-64
DEFAULT = 0x1F80  # MXCSR: round to nearest, all exceptions masked

# MXCSR of each mode: rounding in bits 13 and 14, FTZ in 15, DAZ in 6; exceptions are masked by bits 7 to 12.
MODES = {
    "rounding down": DEFAULT | 0x2000,
    "rounding up": DEFAULT | 0x4000,
    "rounding to zero": DEFAULT | 0x6000,
    "flushing subnormals": DEFAULT | 0x8040,
    "raising signals": DEFAULT & ~(0x80 | 0x200 | 0x400),  # invalid, division by zero, overflow
}


def mode():
    """MXCSR of this thread, without the flags of exceptions that were met."""
    return ctypes.c_uint32.from_buffer(_environment(), MXCSR_OFFSET).value & ~0x3F


@contextmanager
def set_mode(mxcsr):
    """A context in which this thread has a mode."""
    before, changed = _environment(), _environment()
    ctypes.c_uint32.from_buffer(changed, MXCSR_OFFSET).value = mxcsr
    _libm().fesetenv(changed)
    try:
        yield
    finally:
        _libm().fesetenv(before)


def _environment():
    environment = ctypes.create_string_buffer(32)
    _libm().fegetenv(environment)
    return environment


def _libm():
    if sys.platform != "linux" or platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        pytest.skip("sets the mode of x86-64 through glibc")
    return ctypes.CDLL("libm.so.6")
