"""CuPy whose device does nothing: arrays are CuPy's own, in memory of the host, and calls of the driver are counted.

What takes Python's time on a GPU runs here as there: gpusift's code, and CuPy's arrays and views. What CuPy and the
driver do within a launch, a copy, an event or a change of the device is left out; so these calls are counted by kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

MULTIPROCESSORS = 132  # an H100


class NullCupy:
    """What `gpusift.devices.cuda` uses of CuPy.

    Parameters
    ----------
    fill : callable
        Writes what a copy from the device brings to an array of the host.

    Attributes
    ----------
    calls : Counter
        The calls of the driver so far, by kind.

    Raises
    ------
    ImportError
        If CuPy is not installed.
    """

    def __init__(self, fill: Callable[[np.ndarray], None]) -> None:
        import cupy

        self.calls: Counter[str] = Counter()
        calls = self.calls

        class Array(cupy.ndarray):  # type: ignore[misc]
            device = property(lambda self: _Device(calls))

            def set(self, array: np.ndarray, stream: Any = None) -> None:
                calls["upload"] += 1

            def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
                calls["download"] += 1
                out = np.empty(self.shape, self.dtype) if out is None else out
                fill(out)
                return out

            def fill(self, value: Any) -> None:
                calls["memset"] += 1

        def empty(shape: Any, dtype: Any = np.float64) -> Any:
            host = np.empty(shape, dtype)
            memory = cupy.cuda.UnownedMemory(host.ctypes.data, max(host.nbytes, 1), host, device_id=0)
            return Array(host.shape, host.dtype, memptr=cupy.cuda.MemoryPointer(memory, 0))

        def asarray(array: Any, dtype: Any = None) -> Any:
            if isinstance(array, Array):
                return array
            calls["upload"] += 1
            return empty(np.shape(array), dtype or array.dtype)

        def copyto(to: Any, array: Any) -> None:
            calls["copy on the device"] += 1

        self.ndarray, self.empty, self.asarray, self.copyto = Array, empty, asarray, copyto
        self.zeros = self.full = lambda shape, *rest: empty(shape, rest[-1])
        self.ascontiguousarray = lambda array: array
        self.RawModule = lambda code, options: SimpleNamespace(get_function=lambda name: self._launch)
        self.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)
        stream = _Stream(calls)
        memory = SimpleNamespace(OutOfMemoryError=cupy.cuda.memory.OutOfMemoryError)
        self.cuda = SimpleNamespace(
            Device=lambda index: _Device(calls),
            Stream=lambda non_blocking: _Stream(calls),
            get_current_stream=lambda: stream,
            memory=memory,
            runtime=SimpleNamespace(memGetInfo=lambda: (60 << 30, 80 << 30), CUDARuntimeError=RuntimeError),
        )

    def _launch(self, grid: Any, block: Any, arguments: Any) -> None:
        self.calls["launch"] += 1


class _Device:
    """A device as a context."""

    def __init__(self, calls: Counter[str]) -> None:
        self._calls = calls
        self.attributes = {"MultiProcessorCount": MULTIPROCESSORS, "MaxSharedMemoryPerMultiprocessor": 228 * 1024}

    def __enter__(self) -> _Device:
        self._calls["change of the device"] += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Stream:
    """A stream as a context, which is its own event and its own graph."""

    done = True

    def __init__(self, calls: Counter[str]) -> None:
        self._calls = calls

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self) -> _Stream:
        self._calls["event"] += 1
        return self

    def wait_event(self, event: _Stream) -> None:
        self._calls["wait of a stream"] += 1

    def synchronize(self) -> None:
        self._calls["wait of the host"] += 1

    def begin_capture(self) -> None:
        self._calls["capture"] += 1

    def end_capture(self) -> _Stream:
        return self

    def launch(self, stream: _Stream) -> None:
        self._calls["launch of a graph"] += 1


@contextmanager
def null_cupy(fill: Callable[[np.ndarray], None]) -> Iterator[NullCupy]:
    """A context in which gpusift takes this CuPy, on one device."""
    null = NullCupy(fill)
    modules = {"cupy": null, "cupyx": SimpleNamespace(empty_pinned=np.empty)}
    with (
        mock.patch("gpusift.devices.cuda.load_cupy", lambda name="cupy": modules[name]),
        mock.patch("gpusift.devices.cuda.cuda_info", return_value={"devices": [{"index": 0}]}),
        mock.patch("gpusift.devices.cuda._cuda_module", lambda stage, options: null.RawModule("", options)),
    ):
        yield null
