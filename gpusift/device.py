"""The devices: the only module that knows where the kernels run.

A device has `xp` (NumPy or CuPy), `ndimage` (SciPy's or CuPy's), copies, and `launch`, which runs a kernel by its name
after it has checked the arguments against the kernel's signature: on the CPU through the host library, on a GPU through
CuPy.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np

from gpusift import host, source
from gpusift.arguments import check_arguments, pack

# What a GPU's kernels are given as -D: a block's tile of samples or descriptors (a host has its own, in host.hpp).
TILES = {
    "BLUR_TILE_ROWS": 8,
    "BLUR_TILE_COLS": 128,
    "BLUR_ROWS": 2,
    "EXTREMA_TILE_ROWS": 8,
    "EXTREMA_TILE_COLS": 32,
    "MATCH_STRIPS": 32,
    "MATCH_VECTORS": 4,
    "MATCH_GROUPS": 4,
    "MATCH_OTHERS": 8,
    "MATCH_BYTES": 128,
}

CACHE_LINE = 64  # bytes
KEPT_AT_MOST = 4  # times what is asked for: a workspace larger than that is given back to the system

# CuPy adds -ftz=true; contraction is off so that a product and a sum round as they do on a CPU.
OPTIONS = ("-std=c++17", "--fmad=false")

_log = logging.getLogger("gpusift")


class CpuDevice:
    """The CPU: the same kernels, compiled for the host, a block being one thread.

    Parameters
    ----------
    dtype : str
        "float32" or "float64": the precision of the kernels.
    num_threads : int, optional
        Threads of a launch; by default one for each processor that this process may use.
    library : host.Library, optional
        By default the best one for this processor.
    """

    name = "cpu"
    xp = np

    def __init__(
        self, dtype: str = "float32", num_threads: int | None = None, library: host.Library | None = None
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._precision = self.dtype.name
        self.num_threads = num_threads or _cpu_count()
        self.library = library or host.library()
        self._kept: list[np.ndarray] = []
        self._calls = threading.local()  # the team of the call that a thread is in

    @property
    def n_blocks(self) -> int:
        """Blocks of a launch with which all of the device has work to its end."""
        return 4 * self.num_threads if self.num_threads > 1 else 1

    @property
    def ndimage(self) -> Any:
        """SciPy's ndimage."""
        import scipy.ndimage

        return scipy.ndimage

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: dict[str, int] | None = None,
    ) -> None:
        """Runs a kernel.

        Parameters
        ----------
        name : str
            The kernel's name.
        grid, block : tuple of int
            Blocks of the launch, threads of a block. The CPU's blocks are one thread.
        *arguments
            Arrays of this device, C-contiguous and of the parameters' dtypes, and Python or NumPy numbers.
        constant : int, optional
            Value of the compile-time constant of a KERNEL_OF.
        sizes : dict, optional
            Sizes of the kernel's shared arrays, for compilers that run now; the host library has the largest.
        """
        values = check_arguments(name, arguments, self.dtype, np)
        packed = pack(name, self.dtype, values)
        team = getattr(self._calls, "team", None)  # threads of its own outside a call
        with nullcontext(team) if team else self.library.team(self.num_threads) as team:
            self.library.launch(team, self._precision, name, constant, _three(grid), _three(block), packed)

    def asarray(self, array: Any, dtype: Any = None) -> np.ndarray:
        """The array on this device, C-contiguous."""
        return np.ascontiguousarray(array, dtype)

    @contextmanager
    def workspace(self, size: int) -> Iterator[np.ndarray]:
        """A (size,) array of the precision to work in, aligned to a cache line, not set to anything.

        The memory is kept for the next image: to have it anew from the system costs as much as a blur.
        """
        needed = size + CACHE_LINE // self.dtype.itemsize
        try:
            memory = self._kept.pop()  # another thread that uses this device meanwhile gets memory of its own
        except IndexError:
            memory = np.empty(0, self.dtype)
        if not needed <= memory.size <= KEPT_AT_MOST * needed:
            del memory
            memory = np.empty(needed, self.dtype)
        skip = -memory.ctypes.data % CACHE_LINE // self.dtype.itemsize
        try:
            yield memory[skip : skip + size]
        finally:
            self._kept[:] = [memory]

    def to_host(self, array: Any) -> np.ndarray:
        """The array as NumPy's."""
        return np.asarray(array)

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context in which this device is the current one; its launches share their threads."""
        if getattr(self._calls, "team", None) is not None:
            yield
            return
        with self.library.team(self.num_threads) as self._calls.team:
            try:
                yield
            finally:
                self._calls.team = None

    def synchronize(self) -> None:
        """Waits for what was launched; the CPU's launches end before they return."""


class CudaDevice:
    """A CUDA device: the kernels compiled by NVRTC through CuPy.

    Parameters
    ----------
    index : int
        CUDA's number of the device.
    dtype : str
        "float32" or "float64": the precision of the kernels.

    Raises
    ------
    RuntimeError
        If CuPy, the driver or the device is missing; says which, and how to get it.
    """

    def __init__(self, index: int = 0, dtype: str = "float32") -> None:
        found = cuda_info()
        if "error" in found:
            raise RuntimeError(f"device='cuda' cannot be had: {found['error']}")
        if index >= len(found["devices"]):
            raise RuntimeError(
                f"device='cuda:{index}' cannot be had: there are {len(found['devices'])} CUDA devices, numbered from 0"
            )
        import cupy

        self.index = index
        self.name = f"cuda:{index}"
        self.xp = cupy
        self.dtype = np.dtype(dtype)

    @property
    def n_blocks(self) -> int:
        """Blocks of a launch with which all of the device has work to its end."""
        return 8 * int(self.xp.cuda.Device(self.index).attributes["MultiProcessorCount"])

    @property
    def ndimage(self) -> Any:
        """CuPy's ndimage."""
        import cupyx.scipy.ndimage

        return cupyx.scipy.ndimage

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: dict[str, int] | None = None,
    ) -> None:
        """Runs a kernel on the current stream; see `CpuDevice.launch`."""
        values = check_arguments(name, arguments, self.dtype, self.xp)
        function = _cuda_function(name, definitions(name, self.dtype, constant, sizes))
        function(_three(grid), _three(block), tuple(values))

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """The array on this device, C-contiguous."""
        return self.xp.ascontiguousarray(self.xp.asarray(array, dtype))

    @contextmanager
    def workspace(self, size: int) -> Iterator[Any]:
        """A (size,) array of the precision to work in; CuPy's pool aligns it and keeps the memory for the next."""
        yield self.xp.empty(size, self.dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """The array as NumPy's, copied from the device."""
        return self.xp.asnumpy(array)

    def active(self) -> AbstractContextManager[Any]:
        """A context in which this device is the current one."""
        return self.xp.cuda.Device(self.index)

    def synchronize(self) -> None:
        """Waits for what was launched on the current stream."""
        self.xp.cuda.get_current_stream().synchronize()


Device = CpuDevice | CudaDevice


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
        If the device was asked for by name and cannot be had.
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


def definitions(name: str, dtype: np.dtype, constant: int = 0, sizes: dict[str, int] | None = None) -> tuple[str, ...]:
    """NVRTC's options for a kernel: the precision, the tiles, the arrays' sizes and the constant, sorted."""
    kernel = source.kernels()[name]
    values: dict[str, str | int] = {**TILES, **DEFAULT_SIZES, **(sizes or {})}
    values["REAL"] = "float" if dtype == np.float32 else "double"
    for other in source.kernels().values():  # the file's other kernels must compile too
        if other.constant and other.stage == kernel.stage:
            values[other.constant] = constant if other.name == name else 1
    used = source.text(kernel.stage)
    return OPTIONS + tuple(f"-D{key}={value}" for key, value in sorted(values.items()) if key in used)


# The sizes of shared arrays with scikit-image's default parameters.
DEFAULT_SIZES = {"MAX_BINS": 36, "MAX_SUMS": 900, "MAX_VALUES": 128}


@cache
def _cuda_module(stage: str, options: tuple[str, ...]) -> Any:
    import cupy

    return cupy.RawModule(code=source.text(stage), options=options)


def _cuda_function(name: str, options: tuple[str, ...]) -> Any:
    return _cuda_module(source.kernels()[name].stage, options).get_function(name)


def cpu_info() -> dict[str, Any]:
    """The CPU device: the instruction set in use, those available, and the number of threads."""
    return {
        "instruction_set": host.library().instruction_set,
        "available": [library.instruction_set for library in host.libraries()],
        "threads": _cpu_count(),
    }


@cache
def cuda_info() -> dict[str, Any]:
    """The CUDA devices, CuPy's version and CUDA's; or "error": what is missing, and how to get it."""
    try:
        import cupy
    except Exception as error:  # an installation can be broken in many ways, each of them says how
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
    devices = []
    for index in range(count):
        properties = runtime.getDeviceProperties(index)
        with cupy.cuda.Device(index):
            free, total = runtime.memGetInfo()
        devices.append(
            {
                "index": index,
                "name": properties["name"].decode(),
                "compute_capability": f"{properties['major']}.{properties['minor']}",
                "memory_total": total,
                "memory_free": free,
            }
        )
    return {
        "cupy": cupy.__version__,
        "cuda_driver": _cuda_version(runtime.driverGetVersion()),
        "cuda_runtime": _cuda_version(runtime.runtimeGetVersion()),
        "devices": devices,
    }


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z
