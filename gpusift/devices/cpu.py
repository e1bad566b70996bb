"""The CPU device: the same kernels, compiled for the host, a block being one thread."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from gpusift.devices import host_library
from gpusift.devices.launch_arguments import check_arguments, pack

CACHE_LINE = 64  # bytes
RECORD = struct.Struct("=Q6iQ")  # kernels/host/kernels.cpp: Launch


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
    is_host = True  # what it has computed is known at once
    n_streams = 1  # launches end before they return, so nothing would overlap
    OutOfMemoryError = MemoryError

    def __init__(
        self, dtype: str = "float32", num_threads: int | None = None, library: host_library.Library | None = None
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._precision = self.dtype.name
        self.num_threads = num_threads or _cpu_count()
        self.library = library or host_library.library()
        self._calls = threading.local()  # the team of the call that a thread is in

    @property
    def n_blocks(self) -> int:
        """Blocks of a launch with which all of the device has work to its end."""
        return 4 * self.num_threads if self.num_threads > 1 else 1

    @property
    def n_list_blocks(self) -> int:
        """Blocks that share a list whose length only the device knows."""
        return 4 * self.n_blocks if self.num_threads > 1 else 1

    @property
    def ndimage(self) -> Any:
        """SciPy's ndimage."""
        import scipy.ndimage

        return scipy.ndimage

    def prepare(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: dict[str, int] | None = None,
    ) -> CpuLaunch:
        """A launch of a kernel, to be made by calling it.

        Parameters
        ----------
        name : str
            The kernel's name.
        grid, block : tuple of int
            Blocks of the launch, threads of a block: x, or x, y and z. No grid has a y. The CPU's blocks are one
            thread.
        *arguments
            Arrays of this device, C-contiguous and of the parameters' dtypes, and Python or NumPy numbers.
        constant : int, optional
            Value of the compile-time constant of a KERNEL_OF.
        sizes : dict, optional
            Sizes of the kernel's shared arrays, for compilers that run now; the host library has the largest.
        """
        values = check_arguments(name, arguments, self.dtype, np)
        kernel = self.library.find(self._precision, name, constant)
        packed = ctypes.create_string_buffer(pack(name, self.dtype, values))
        record = RECORD.pack(kernel, *three(grid), *three(block), ctypes.addressof(packed))
        return CpuLaunch(self, name, record, (packed, values))

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: dict[str, int] | None = None,
    ) -> None:
        """Runs a kernel; the parameters are those of `prepare`."""
        self.prepare(name, grid, block, *arguments, constant=constant, sizes=sizes)()

    def program(self, steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
        """Launches and other steps, in their order, as one function; launches that follow each other are one call."""
        merged: list[Callable[[], None]] = []
        for together in groupby(steps, lambda step: isinstance(step, CpuLaunch)):
            are_launches, group = together[0], list(together[1])
            merged += [self._sequence(group)] if are_launches else group

        def run() -> None:
            for step in merged:
                step()

        return run

    def _sequence(self, launches: list[Any]) -> Callable[[], None]:
        records = b"".join(launch.record for launch in launches)
        return lambda: self.run_records(records, len(launches))

    def run_records(self, records: bytes, n: int) -> None:
        """Runs launches, packed one after the other. Whoever calls keeps what their arguments point to."""
        team = getattr(self._calls, "team", None)  # threads of its own outside a call
        with nullcontext(team) if team else self.library.team(self.num_threads) as team:
            self.library.launch[self._precision](team, records, n)

    def staging(self) -> None:
        """What copies from and to the host need: nothing."""

    def upload(self, arrays: Sequence[np.ndarray], staging: Any) -> list[np.ndarray]:
        """Arrays of the host on this device, C-contiguous."""
        return [np.require(array, requirements=["C", "A"]) for array in arrays]

    def download(self, array: np.ndarray, staging: Any) -> np.ndarray:
        """An array of this device on the host."""
        return array

    def asarray(self, array: Any, dtype: Any = None) -> np.ndarray:
        """The array on this device, C-contiguous."""
        return np.ascontiguousarray(array, dtype)

    def memory(self, size: int) -> np.ndarray:
        """(size,) bytes, aligned to a cache line, not set to anything."""
        memory = np.empty(size + CACHE_LINE, np.uint8)
        skip = -memory.ctypes.data % CACHE_LINE
        return memory[skip : skip + size]

    @property
    def total_memory(self) -> int:
        """Bytes of memory."""
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def free_memory(self) -> None:
        """Gives memory that is kept, but not used, back to the system: there is none."""

    def stream(self) -> AbstractContextManager[Any]:
        """What a stream of launches is on a GPU: a context that does nothing."""
        return nullcontext()

    def mark(self) -> None:
        """The point that is reached when all that was launched has been done: it has."""

    def wait_for(self, mark: None) -> None:
        """Waits for a mark."""

    def batch_size(self, bytes_of_image: int) -> int:
        """Images that are best computed at once: one, whose levels a cache may hold."""
        return 1

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


@dataclass(frozen=True, eq=False)
class CpuLaunch:
    """A launch that can be made again and again: its record, and what its arguments point to."""

    device: CpuDevice
    name: str
    record: bytes
    kept: Any

    def __call__(self) -> None:
        """Makes the launch."""
        self.device.run_records(self.record, 1)


def three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A grid's or a block's x, y and z."""
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z


def cpu_info() -> dict[str, Any]:
    """The CPU device: the instruction set in use, those available, and the number of threads."""
    return {
        "instruction_set": host_library.library().instruction_set,
        "available": [library.instruction_set for library in host_library.libraries()],
        "threads": _cpu_count(),
    }


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
