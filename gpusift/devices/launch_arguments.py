"""The arguments of a launch, checked against the kernel's signature, which CuPy does not check."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np

from gpusift.devices import kernel_sources

CODES = {"int32": "i4x", "int64": "q", "float32": "f4x", "float64": "d"}  # formats of `struct`, each of 8 bytes


def as_xyz(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A grid's or a block's x, y and z; what `shape` leaves out is 1."""
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z


def check_arguments(name: str, arguments: tuple[Any, ...], real: np.dtype, xp: Any) -> list[Any]:
    """The arguments of a launch, checked against the kernel's signature.

    Parameters
    ----------
    name : str
        The kernel's name.
    arguments : tuple
        Arrays of `xp`, and numbers.
    real : dtype
        The precision.
    xp : module
        NumPy or CuPy.

    Returns
    -------
    list
        The arrays unchanged, and each number as a NumPy scalar of its parameter's dtype.

    Raises
    ------
    TypeError
        If the number of arguments, a dtype, a layout or a kind differs from the signature.
    OverflowError
        If an integer is too large.
    """
    expected = _signature(name, real)
    if len(arguments) != len(expected):
        raise TypeError(f"kernel {name} takes {len(expected)} arguments, got {len(arguments)}")
    values = []
    for (parameter, dtype), argument in zip(expected, arguments):
        if parameter.is_array:
            right = isinstance(argument, xp.ndarray) and argument.ndim > 0
            if not right or argument.dtype != dtype or not argument.flags.c_contiguous:
                raise TypeError(_array_refused(name, parameter, dtype, argument, xp))
            values.append(argument)
        else:
            if isinstance(argument, np.generic) and argument.dtype != dtype:
                raise TypeError(f"{_described(name, parameter)} must be {dtype}, got {argument.dtype}")
            if not isinstance(argument, (int, float, np.generic)) or isinstance(argument, bool):
                raise TypeError(f"{_described(name, parameter)} must be a number, got {type(argument).__name__}")
            if dtype.kind == "i" and not isinstance(argument, (int, np.integer)):
                raise TypeError(f"{_described(name, parameter)} must be an integer, got {argument!r}")
            try:
                values.append(dtype.type(argument))
            except OverflowError:
                raise OverflowError(f"{_described(name, parameter)} must fit into {dtype}, got {argument}") from None
    return values


def pack(name: str, real: np.dtype, values: list[Any]) -> bytes:
    """Checked arguments as the host library reads them: an address or a number every 8 bytes."""
    addresses = (v.__array_interface__["data"][0] if isinstance(v, np.ndarray) else v for v in values)
    return _layout(name, real).pack(*addresses)


def _array_refused(name: str, parameter: kernel_sources.Parameter, dtype: np.dtype, argument: Any, xp: Any) -> str:
    if not isinstance(argument, xp.ndarray):
        return f"{_described(name, parameter)} must be an array of {xp.__name__}, got {type(argument).__name__}"
    if argument.ndim == 0:
        return f"{_described(name, parameter)} must be an array of at least one dimension, got one of none"
    layout = "" if argument.flags.c_contiguous else "not contiguous "
    return f"{_described(name, parameter)} must be a contiguous array of {dtype}, got {layout}{argument.dtype}"


def _described(name: str, parameter: kernel_sources.Parameter) -> str:
    return f"argument {parameter.name!r} of kernel {name}"


@cache
def _signature(name: str, real: np.dtype) -> list[tuple[kernel_sources.Parameter, np.dtype]]:
    """A kernel's parameters with their dtypes in a precision."""
    parameters = kernel_sources.kernels()[name].parameters
    return [(p, real if p.dtype == "real" else np.dtype(p.dtype)) for p in parameters]


@cache
def _layout(name: str, real: np.dtype) -> struct.Struct:
    codes = ["Q" if p.is_array else CODES[dtype.name] for p, dtype in _signature(name, real)]
    return struct.Struct("=" + "".join(codes))
