"""CUDA devices: the kernels compiled by NVRTC and launched through CuPy."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpusift.devices import kernel_sources
from gpusift.devices.device import Device, Launch, Shape
from gpusift.devices.nvrtc import definitions

MAX_BATCH = 64  # images

_log = logging.getLogger("gpusift")


class CudaDevice(Device):
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

    uses_host_cores = False
    n_streams = 3  # one uploads, one computes, one downloads

    def __init__(self, index: int = 0, dtype: str = "float32") -> None:
        found = cuda_info()
        if "error" in found:
            raise RuntimeError(f"device='cuda' cannot be had: {found['error']}")
        if index >= len(found["devices"]):
            raise RuntimeError(
                f"device='cuda:{index}' cannot be had: there are {len(found['devices'])} CUDA devices, numbered from 0"
            )
        import cupy

        self.cuda_index: int = index
        self.name = f"cuda:{index}"
        self.xp = cupy
        self.dtype = np.dtype(dtype)

    @property
    def n_blocks(self) -> int:
        """Blocks of a launch with which all of the device has work to its end."""
        return 8 * int(self.xp.cuda.Device(self.cuda_index).attributes["MultiProcessorCount"])

    @property
    def n_list_blocks(self) -> int:
        """Blocks that share a list whose length only the device knows."""
        return self.n_blocks

    @property
    def ndimage(self) -> Any:
        """CuPy's ndimage."""
        import cupyx.scipy.ndimage

        return cupyx.scipy.ndimage

    def bind(
        self, name: str, grid: Shape, block: Shape, values: list[Any], constant: int, sizes: dict[str, int] | None
    ) -> CudaLaunch:
        """A launch of a kernel that NVRTC compiles when it is first launched."""
        function = _cuda_function(name, definitions(name, self.dtype, constant, sizes))
        return CudaLaunch(name, function, grid, block, tuple(values))

    def program(self, steps: Sequence[Launch]) -> Launch:
        """Launches and other steps, in their order, as one function: a CUDA graph if all of them are launches."""
        graphs = os.environ.get("GPUSIFT_GRAPHS", "1") != "0" and all(isinstance(step, CudaLaunch) for step in steps)
        return Program(steps, self._capture if graphs else None)

    def _capture(self, run: Launch) -> Launch:
        """What launches do, as a CUDA graph, to be launched on the stream that is current when it is called."""
        stream = self.xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            run()
            graph = stream.end_capture()
        return lambda: graph.launch(self.xp.cuda.get_current_stream())

    def staging(self) -> Staging:
        """Pinned memory, through which copies from and to the host go."""
        return Staging()

    def upload(self, arrays: Sequence[np.ndarray], staging: Any) -> list[Any]:
        """Arrays of the host on this device, C-contiguous; does not wait for the copies."""
        pinned = staging.take(sum(array.nbytes for array in arrays))
        uploaded, start = [], 0
        for array in arrays:
            part = pinned[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            start += array.nbytes
            np.copyto(part, array)
            on_device = self.xp.empty(array.shape, array.dtype)
            on_device.set(part)
            uploaded.append(on_device)
        staging.used_until(self.mark())
        return uploaded

    def download(self, array: Any, staging: Any) -> np.ndarray:
        """An array of this device on the host; waits for it."""
        pinned = staging.take(array.nbytes).view(array.dtype).reshape(array.shape)
        array.get(out=pinned)
        return pinned.copy()

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """The array on this device, C-contiguous."""
        return self.xp.ascontiguousarray(self.xp.asarray(array, dtype))

    def from_gpu(self, array: Any, name: str) -> Any:
        """An array on a GPU as CuPy's, with no copy through the host."""
        with self.active():
            if hasattr(array, "__cuda_array_interface__"):
                return self.xp.asarray(array)
            return self.xp.from_dlpack(array)

    def bound_of_length(self, length: Any, capacity: int) -> int:
        """The capacity: reading the length would wait for the device."""
        return capacity

    def memory(self, size: int) -> Any:
        """(size,) bytes, not set to anything, from CuPy's pool, which aligns them."""
        return self.xp.empty(size, np.uint8)

    @property
    def OutOfMemoryError(self) -> type[Exception]:  # noqa: N802, the name of an exception
        """What CuPy raises when the device's memory has run out."""
        return self.xp.cuda.memory.OutOfMemoryError

    @property
    def total_memory(self) -> int:
        """Bytes of memory."""
        with self.active():
            return int(self.xp.cuda.runtime.memGetInfo()[1])

    def free_memory(self) -> None:
        """Gives memory that CuPy keeps, but nobody uses, back to the device."""
        with self.active():
            self.xp.get_default_memory_pool().free_all_blocks()

    def stream(self) -> AbstractContextManager[Any]:
        """A new stream; the current one in its context."""
        with self.active():
            return self.xp.cuda.Stream(non_blocking=True)

    def mark(self) -> Any:
        """The point in the current stream that is reached when all that was launched has been done."""
        return self.xp.cuda.get_current_stream().record()

    def wait_for(self, mark: Any) -> None:
        """Has the current stream, which may be another one than before, wait for a mark."""
        self.xp.cuda.get_current_stream().wait_event(mark)

    def batch_size(self, bytes_of_image: int) -> int:
        """Images that are best computed at once: as many as fill the device, and fit half of its free memory."""
        with self.active():
            free = self.xp.cuda.runtime.memGetInfo()[0] + self.xp.get_default_memory_pool().free_bytes()
        return max(1, min(MAX_BATCH, free // (2 * bytes_of_image)))

    def to_host(self, array: Any) -> np.ndarray:
        """The array as NumPy's, copied from the device."""
        return self.xp.asnumpy(array)

    def active(self) -> AbstractContextManager[Any]:
        """A context in which this device is the current one."""
        return self.xp.cuda.Device(self.cuda_index)

    def synchronize(self) -> None:
        """Waits for what was launched on the current stream."""
        self.xp.cuda.get_current_stream().synchronize()


@dataclass(frozen=True, eq=False)
class CudaLaunch:
    """A launch that can be made again and again, on the current stream."""

    name: str
    function: Any
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Makes the launch."""
        self.function(self.grid, self.block, self.arguments)


class Program:
    """Steps in their order: as they are the first time, when kernels are loaded; then, if it can be, as one graph.

    Parameters
    ----------
    steps : sequence of callables
        Launches, and what else is to be done.
    capture : callable or None
        Makes a function, from one that calls the steps, that does the same as one graph. None: the steps need the host.
    """

    def __init__(self, steps: Sequence[Launch], capture: Any) -> None:
        self.steps = steps
        self._capture = capture
        self._graph: Launch | None = None
        self._has_run = False

    def __call__(self) -> None:
        """Does all steps."""
        if self._graph is None and self._capture is not None and self._has_run:
            capture, self._capture = self._capture, None
            try:
                self._graph = capture(self._run)
            except Exception as error:  # the steps one by one give the same
                _log.warning("no CUDA graph could be made of %d launches: %s", len(self.steps), error)
        (self._graph or self._run)()
        self._has_run = True

    def _run(self) -> None:
        for step in self.steps:
            step()


class Staging:
    """Pinned memory that is kept, and the event until which the device may read it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._event: Any = None

    def take(self, size: int) -> np.ndarray:
        """(size,) bytes of pinned memory that nobody reads any more."""
        import cupyx

        if self._event is not None:
            self._event.synchronize()
            self._event = None
        if len(self._memory) < size:
            self._memory = cupyx.empty_pinned(size, np.uint8)
        return self._memory[:size]

    def used_until(self, event: Any) -> None:
        """Says that the device reads the memory until this event."""
        self._event = event


@cache
def _cuda_module(stage: str, options: tuple[str, ...]) -> Any:
    import cupy

    return cupy.RawModule(code=kernel_sources.text(stage), options=options)


def _cuda_function(name: str, options: tuple[str, ...]) -> Any:
    return _cuda_module(kernel_sources.kernels()[name].stage, options).get_function(name)


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
