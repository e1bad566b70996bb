"""CUDA devices: the kernels compiled by NVRTC and launched through CuPy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from gpusift.devices import host_copies, kernel_sources
from gpusift.devices.cuda_info import cuda_info, load_cupy
from gpusift.devices.device import Copy, Device, Launch, Shape, Sizes
from gpusift.devices.nvrtc import TILES, definitions
from gpusift.devices.programs import Program
from gpusift.devices.staging import Staging
from gpusift.floating_point import default_mode

MAX_BATCH = 64  # images
BLUR_SHARED_BYTES = 43_360  # of a block of the default blurs, and 1 KB that the driver adds to it
MANY_BLUR_BLOCKS = 5


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
        info = cuda_info()
        if "error" in info:
            raise RuntimeError(f"device='cuda' cannot be had: {info['error']}")
        if index >= len(info["devices"]):
            raise RuntimeError(
                f"device='cuda:{index}' cannot be had: there are {len(info['devices'])} CUDA devices, numbered from 0"
            )
        self.cuda_index: int = index
        self.name = f"cuda:{index}"
        self.xp = load_cupy()
        self.dtype = np.dtype(dtype)

    @property
    def n_blocks(self) -> int:
        """Blocks of a launch that occupy all multiprocessors to its end."""
        return 8 * self._n_multiprocessors

    @property
    def _n_multiprocessors(self) -> int:
        return self._attribute("MultiProcessorCount")

    def _attribute(self, name: str) -> int:
        return int(self.xp.cuda.Device(self.cuda_index).attributes[name])

    @property
    def blur_piece(self) -> tuple[int, int]:
        """A tile in single precision."""
        return TILES["BLUR_TILE_ROWS"], TILES["BLUR_TILE_COLS"]

    @property
    def blur_blocks(self) -> int:
        """As many as have room in the multiprocessors' shared memory."""
        return self._blur_blocks_of_multiprocessor * self._n_multiprocessors

    @property
    def blur_block(self) -> tuple[int, int]:
        """Small blocks, if a multiprocessor has room for several: they hide each other's waits."""
        return super().blur_block if self._blur_blocks_of_multiprocessor >= MANY_BLUR_BLOCKS else (32, 8)

    @property
    def _blur_blocks_of_multiprocessor(self) -> int:
        return max(1, self._attribute("MaxSharedMemoryPerMultiprocessor") // BLUR_SHARED_BYTES)

    @property
    def extrema_tile(self) -> tuple[int, int]:
        """That for which the kernels are compiled."""
        return TILES["EXTREMA_TILE_ROWS"], TILES["EXTREMA_TILE_COLS"]

    @property
    def n_list_blocks(self) -> int:
        """Blocks that share a list whose length only the device knows."""
        return self.n_blocks

    # Launches

    def bind(
        self, name: str, grid: Shape, block: Shape, values: list[Any], constant: int, sizes: Sizes | None
    ) -> CudaLaunch:
        """A launch of a kernel that NVRTC compiles when it is first launched."""
        function = _cuda_function(name, self.dtype, constant, tuple(sorted((sizes or {}).items())))
        return CudaLaunch(name, function, grid, block, tuple(values))

    def program(self, steps: Sequence[Launch]) -> Launch:
        """Steps as one function, in which launches that follow each other are a CUDA graph."""
        graphs = os.environ.get("GPUSIFT_GRAPHS", "1") != "0"
        parts = [
            Program(list(part), self._capture if graphs and are_launches else None)
            for are_launches, part in groupby(steps, lambda step: isinstance(step, CudaLaunch))
        ]
        return parts[0] if len(parts) == 1 else Program(parts, None)

    def _capture(self, run: Launch) -> Launch:
        """Launches as a CUDA graph, to be launched on the stream that is current when it is called."""
        stream = self.xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                run()
            except BaseException:
                with suppress(Exception):  # the first error is raised
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        return lambda: graph.launch(self._current_stream())

    def gaussian_filter(self, image: Any, sigma: float, out: Any) -> None:
        """Blurs an image with CuPy's filter, in float64: in float32 it would also have its weights and sums in it."""
        ndimage = load_cupy("cupyx.scipy.ndimage")
        out[...] = ndimage.gaussian_filter(image.astype(np.float64), sigma, mode="reflect")

    # Copies

    def staging(self) -> Staging:
        """Pinned memory, through which copies from and to the host go."""
        return Staging(load_cupy("cupyx"), self.xp.cuda.runtime.CUDARuntimeError)

    def upload(self, parts: Sequence[tuple[int, np.ndarray]], memory: Any, staging: Staging) -> None:
        """Copies host arrays into a block of this device's memory, in one copy. Does not wait for it."""
        begin, (last, array) = parts[0][0], parts[-1]
        end = last + array.nbytes
        staged = staging.take(end - begin)
        host_copies.copy(
            [(staged[i - begin : i - begin + a.nbytes].view(a.dtype).reshape(a.shape), a) for i, a in parts],
            end - begin,
        )
        try:
            memory[begin:end].set(staged)
        finally:
            staging.used_until(self.mark())

    def download(self, array: Any, staging: Staging) -> Copy:
        """Starts the copy of a C-contiguous array to the host, in the current stream."""
        staged = staging.take(array.nbytes).view(array.dtype).reshape(array.shape)
        try:
            array.get(out=staged, blocking=False)
        finally:
            staging.used_until(self.mark())

        def wait() -> np.ndarray:
            staging.wait()
            return staged

        return Copy(staging.is_unused, wait)

    def keep(self, array: np.ndarray) -> np.ndarray:
        """A copy of a downloaded array, in memory of its own; several threads make a large one."""
        kept = np.empty_like(array)
        host_copies.copy([(kept, array)], array.nbytes)
        return kept

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """An array of the host or of this device on this device, C-contiguous."""
        return self.xp.ascontiguousarray(self.xp.asarray(array, dtype))

    def from_gpu(self, array: Any, name: str) -> Any:
        """An array on a GPU as CuPy's, in the same memory if it lies on this device, otherwise copied to it."""
        with self.active():
            if not isinstance(array, self.xp.ndarray):
                # By DLPack, whose exporter makes our stream wait for its own; the array interface need not name one.
                has_dlpack = hasattr(array, "__dlpack__")
                array = self.xp.from_dlpack(array) if has_dlpack else self.xp.asarray(array)
            return array if array.device.id == self.cuda_index else self._copied(array)

    def _copied(self, array: Any) -> Any:
        """A copy of an array of another GPU, in order with the stream that is current there."""
        with array.device:
            contiguous = self.xp.ascontiguousarray(array)
            is_written = self.mark()
        self.wait_for(is_written)
        copy = self.xp.array(contiguous)
        self.synchronize()  # the owner of the memory may reuse it as soon as the array is dropped
        return copy

    def to_host(self, array: Any) -> np.ndarray:
        """An array of this device as NumPy's. Waits for the current stream of this device."""
        if isinstance(array, np.ndarray):
            return array
        with self.active():  # CuPy copies in the current stream of the current device
            return array.get()

    # Memory

    def memory(self, size: int) -> Any:
        """(size,) bytes from CuPy's pool, which aligns them, uninitialised."""
        return self.xp.empty(size, np.uint8)

    @property
    def OutOfMemoryError(self) -> type[Exception]:  # noqa: N802, the name of an exception
        """What CuPy raises when the device's memory has run out."""
        return self.xp.cuda.memory.OutOfMemoryError

    @property
    def total_memory(self) -> int:
        """Bytes of the device's memory."""
        return int(self.xp.cuda.runtime.getDeviceProperties(self.cuda_index)["totalGlobalMem"])

    def free_memory(self) -> None:
        """Returns unused memory of CuPy's pool to the device."""
        with self.active():
            self.xp.get_default_memory_pool().free_all_blocks()

    def batch_size(self, bytes_of_image: int) -> int:
        """As many images as fill the device and fit into half of its free memory."""
        with self.active():
            free = self.xp.cuda.runtime.memGetInfo()[0] + self.xp.get_default_memory_pool().free_bytes()
        return max(1, min(MAX_BATCH, free // (2 * bytes_of_image)))

    # Order

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context in which this device is the current one, in the default floating-point mode."""
        with default_mode(), self.xp.cuda.Device(self.cuda_index):
            yield

    def stream(self) -> AbstractContextManager[Any]:
        """A new stream, which does not order with the null stream; the current one in its context."""
        with self.active():
            return self.xp.cuda.Stream(non_blocking=True)

    def mark(self) -> Any:
        """An event in the current stream, behind everything launched so far."""
        return self._current_stream().record()

    def wait_for(self, mark: Any) -> None:
        """Makes the current stream, which may be another than the mark's, wait for a mark."""
        self._current_stream().wait_event(mark)

    def wait_until(self, mark: Any) -> None:
        """Waits on the host for a mark."""
        mark.synchronize()

    def synchronize(self) -> None:
        """Waits on the host for the current stream."""
        self._current_stream().synchronize()

    def _current_stream(self) -> Any:
        return self.xp.cuda.get_current_stream()


@dataclass(frozen=True, eq=False)
class CudaLaunch:
    """A launch that can be made many times, each time on the stream that is then current."""

    name: str
    function: Any
    grid: Shape
    block: Shape
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Makes the launch."""
        self.function(self.grid, self.block, self.arguments)


@cache
def _cuda_module(stage: str, options: tuple[str, ...]) -> Any:
    return load_cupy().RawModule(code=kernel_sources.text(stage), options=options)


@cache
def _cuda_function(name: str, dtype: np.dtype, constant: int, sizes: tuple[tuple[str, int | str], ...]) -> Any:
    options = definitions(name, dtype, constant, dict(sizes))
    return _cuda_module(kernel_sources.kernels()[name].stage, options).get_function(name)
