"""Devices: the only package that knows where the kernels run.

`Device` is what every device offers: the array module `xp`, memory, copies, streams, and kernel launches by name.
`CpuDevice` runs the kernels of the host library, `CudaDevice` compiles and launches them through CuPy.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np

from gpusift.devices.cpu import CpuDevice, cpu_info
from gpusift.devices.cuda import CudaDevice
from gpusift.devices.cuda_info import cuda_info, free_memory_of
from gpusift.devices.device import Copy, Device
from gpusift.devices.nvrtc import MAX_REGISTERS, OPTIONS, TILES, definitions

__all__ = [
    "MAX_REGISTERS",
    "OPTIONS",
    "TILES",
    "Copy",
    "CpuDevice",
    "CudaDevice",
    "Device",
    "cpu_info",
    "cuda_info",
    "definitions",
    "free_memory_of",
    "get_device",
    "precision",
]

_log = logging.getLogger("gpusift")


def get_device(name: str = "auto", dtype: str = "float32", num_threads: int | None = None) -> Device:
    """The device of that name.

    Parameters
    ----------
    name : str
        "auto" (a GPU if there is one, otherwise the CPU), "cpu", "cuda" or "cuda:N".
    dtype : str
        "float32" or "float64".
    num_threads : int, optional
        Threads of the CPU device.

    Raises
    ------
    TypeError
        If the name is not a string.
    ValueError
        If there is no such name, precision or number of threads.
    RuntimeError
        If the device is named and not available.
    """
    if not isinstance(name, str):
        raise TypeError(f"device must be a string such as 'auto', 'cpu' or 'cuda:0', got {name!r}")
    if num_threads is not None and not (isinstance(num_threads, (int, np.integer)) and num_threads >= 1):
        raise ValueError(f"num_threads must be an integer of at least 1 or None, got {num_threads!r}")
    dtype = precision(dtype).name
    kind, _, number = name.partition(":")
    if name == "auto":
        chosen: Device = CpuDevice(dtype, num_threads) if "error" in cuda_info() else CudaDevice(0, dtype)
        _say_once(chosen.name)
        return chosen
    if name == "cpu":
        return CpuDevice(dtype, num_threads)
    if kind == "cuda" and (number.isdecimal() or name == "cuda"):
        return CudaDevice(int(number or 0), dtype)
    raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")


def precision(dtype: Any) -> np.dtype:
    """The precision of a computation; ValueError if it is not one of the two."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (np.dtype("float32"), np.dtype("float64")) or dtype is None:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return found


@cache
def _say_once(name: str) -> None:
    _log.info("device='auto' takes %s", name)
