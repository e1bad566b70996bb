"""The CPU device: the same kernels, compiled for the host, with one thread a block."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from gpusift import processors
from gpusift.devices import host_library
from gpusift.devices.device import Copy, Device, Launch, Shape, Sizes
from gpusift.devices.launch_arguments import pack
from gpusift.floating_point import default_mode

CACHE_LINE = 64  # bytes
BLUR_PIECE = (16, 1024)  # rows, columns
EXTREMA_TILE = (16, 512)
RECORD = struct.Struct("=Q6iQ")  # kernels/host/kernels.cpp: Launch


class CpuDevice(Device):
    """The CPU: the same kernels, compiled for the host, with one thread a block.

    Parameters
    ----------
    dtype : str
        "float32" or "float64": the precision of the kernels.
    num_threads : int, optional
        Threads of a launch; by default `gpusift.processors.threads`.
    library : host.Library, optional
        By default the best one for this processor.
    """

    name = "cpu"
    xp = np
    cuda_index = None
    uses_host_cores = True
    n_streams = 1  # launches end before they return, so streams would not overlap
    OutOfMemoryError = MemoryError

    def __init__(
        self, dtype: str = "float32", num_threads: int | None = None, library: host_library.Library | None = None
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._precision = self.dtype.name
        self.num_threads = num_threads or processors.threads()
        self.library = library or host_library.library()
        self._calls = threading.local()  # of each thread: the team of the call that it is in

    @property
    def n_blocks(self) -> int:
        """Blocks of a launch that occupy all threads to its end."""
        return 4 * self.num_threads if self.num_threads > 1 else 1

    @property
    def blur_piece(self) -> tuple[int, int]:
        """A tile of kernels/host/platform.hpp."""
        return BLUR_PIECE

    @property
    def blur_blocks(self) -> int:
        """Two of each thread's blocks."""
        return max(1, self.n_blocks // 2)

    @property
    def extrema_tile(self) -> tuple[int, int]:
        """That of kernels/host/platform.hpp."""
        return EXTREMA_TILE

    @property
    def n_list_blocks(self) -> int:
        """Blocks that share a list whose length only the device knows."""
        return 4 * self.n_blocks if self.num_threads > 1 else 1

    def gaussian_filter(self, image: Any, sigma: float, out: Any) -> None:
        """Blurs an image with SciPy's filter, whose weights and sums are in float64."""
        from scipy.ndimage import gaussian_filter

        out[...] = gaussian_filter(image, sigma, mode="reflect")

    def bind(
        self, name: str, grid: Shape, block: Shape, values: list[Any], constant: int, sizes: Sizes | None
    ) -> CpuLaunch:
        """A launch of a kernel of the host library."""
        kernel = self.library.find(self._precision, name, constant)
        packed = ctypes.create_string_buffer(pack(name, self.dtype, values))
        record = RECORD.pack(kernel, *grid, *block, ctypes.addressof(packed))
        return CpuLaunch(self, name, record, (packed, values))

    def program(self, steps: Sequence[Launch]) -> Launch:
        """Steps as one function; consecutive launches become one call of the host library."""
        merged: list[Launch] = []
        for together in groupby(steps, lambda step: isinstance(step, CpuLaunch)):
            are_launches, group = together[0], list(together[1])
            merged += [self._sequence(group)] if are_launches else group

        def run() -> None:
            for step in merged:
                step()

        return run

    def _sequence(self, launches: list[Any]) -> Launch:
        records = b"".join(launch.record for launch in launches)
        return lambda: self.run_records(records, len(launches))

    def run_records(self, records: bytes, n: int) -> None:
        """Makes `n` launches from their packed records. The caller keeps alive what their arguments point to."""
        team = getattr(self._calls, "team", None)  # outside a call, the launch has a team of its own
        with nullcontext(team) if team else self.library.team(self.num_threads) as team:
            self.library.launch[self._precision](team, records, n)

    def staging(self) -> None:
        """None: copies to and from the host need no staging memory."""

    def upload(self, parts: Sequence[tuple[int, np.ndarray]], memory: np.ndarray, staging: Any) -> None:
        """Copies arrays into a block of memory."""
        for start, array in parts:
            np.copyto(memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape), array)

    def download(self, array: np.ndarray, staging: Any) -> Copy:
        """An array of this device, which is the host."""
        return Copy(lambda: True, lambda: array)

    def keep(self, array: np.ndarray) -> np.ndarray:
        """A copy of a downloaded array. This thread alone makes it: the team's threads spin until the next launch."""
        return array.copy()

    def asarray(self, array: Any, dtype: Any = None) -> np.ndarray:
        """The array on this device, C-contiguous."""
        return np.ascontiguousarray(array, dtype)

    def from_gpu(self, array: Any, name: str) -> np.ndarray:
        """Raises ValueError: the array lies on a GPU."""
        raise ValueError(
            f"{name} must be on the host to be computed on the CPU, got an array on a GPU; pass a NumPy array, or "
            "choose device='cuda'"
        )

    def memory(self, size: int) -> np.ndarray:
        """(size,) bytes, aligned to a cache line, uninitialised."""
        memory = np.empty(size + CACHE_LINE, np.uint8)
        skip = -memory.ctypes.data % CACHE_LINE
        return memory[skip : skip + size]

    @property
    def total_memory(self) -> int:
        """Bytes of memory."""
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def free_memory(self) -> None:
        """Does nothing: NumPy keeps no unused memory."""

    def stream(self) -> AbstractContextManager[Any]:
        """A context that does nothing: launches end before they return."""
        return nullcontext()

    def mark(self) -> None:
        """None: everything launched has ended."""

    def wait_for(self, mark: None) -> None:
        """Does nothing: everything before the mark has ended."""

    def wait_until(self, mark: None) -> None:
        """Does nothing: everything before the mark has ended."""

    def batch_size(self, bytes_of_image: int) -> int:
        """One image at a time, whose levels a cache may hold."""
        return 1

    def to_host(self, array: Any) -> np.ndarray:
        """The array as NumPy's."""
        return np.asarray(array)

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context whose launches share one team of threads, in the default floating-point mode."""
        if getattr(self._calls, "team", None) is not None:
            yield
            return
        with default_mode(), self.library.team(self.num_threads) as self._calls.team:
            try:
                yield
            finally:
                self._calls.team = None

    def synchronize(self) -> None:
        """Does nothing: launches end before they return."""


@dataclass(frozen=True, eq=False)
class CpuLaunch:
    """A launch that can be made many times: its record, and what its arguments point to."""

    device: CpuDevice
    name: str
    record: bytes
    kept: Any

    def __call__(self) -> None:
        """Makes the launch."""
        self.device.run_records(self.record, 1)


def cpu_info() -> dict[str, Any]:
    """The instruction set in use, those available, and the number of threads."""
    return {
        "instruction_set": host_library.library().instruction_set,
        "available": [library.instruction_set for library in host_library.libraries()],
        "threads": processors.threads(),
    }
