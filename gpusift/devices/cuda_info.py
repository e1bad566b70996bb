"""CuPy, and the GPUs that it finds."""

from __future__ import annotations

import importlib
import threading
from functools import cache
from typing import Any

_importing = threading.Lock()


def load_cupy(name: str = "cupy") -> Any:
    """CuPy, or another module of it.

    One thread imports while others wait: imports of parts of CuPy in two threads at once can give one of them a module
    that is half initialised.
    """
    with _importing:
        importlib.import_module("cupy")
        importlib.import_module("cupyx")
        return importlib.import_module(name)


@cache
def cuda_info() -> dict[str, Any]:
    """CuPy's and CUDA's versions and the GPUs; or "error": what is missing, and how to get it.

    Makes no context on any GPU, so it takes no memory there, and a GPU that is broken or reserved does no harm.
    """
    try:
        cupy = load_cupy()
    except Exception as error:  # an installation can be broken in many ways, each with its own exception
        return {
            "error": f"CuPy could not be imported ({type(error).__name__}: {error}); install it with "
            "`pip install gpusift[cuda13]` or `gpusift[cuda12]`, whichever fits the driver that nvidia-smi shows"
        }
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return {
            "error": f"CuPy {cupy.__version__} found no usable NVIDIA driver or device ({error}); install NVIDIA's "
            "driver (nvidia-smi must work), in a container pass the GPU in (docker run --gpus all)"
        }
    if count == 0:
        return {"error": "the NVIDIA driver shows no device; CUDA_VISIBLE_DEVICES may hide it"}
    return {
        "cupy": cupy.__version__,
        "cuda_driver": _version(runtime.driverGetVersion()),
        "cuda_runtime": _version(runtime.runtimeGetVersion()),
        "devices": [_described(index, runtime.getDeviceProperties(index)) for index in range(count)],
    }


def free_memory_of(index: int) -> int | None:
    """Free bytes of a GPU, on which this makes a context; None if the GPU cannot be used."""
    cupy = load_cupy()
    try:
        with cupy.cuda.Device(index):
            return int(cupy.cuda.runtime.memGetInfo()[0])
    except cupy.cuda.runtime.CUDARuntimeError:
        return None


def _described(index: int, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "index": index,
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "memory_total": properties["totalGlobalMem"],
    }


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
