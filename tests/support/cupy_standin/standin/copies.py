"""Copies between the host and a device."""

from __future__ import annotations

import numpy as np
from standin import faults
from standin.errors import CUDARuntimeError
from standin.machine import machine
from standin.operations import Stream, Use
from standin.pools import pinned_pool, use_of_array
from standin.violations import RaceError, place, report


def to_device(target, source: np.ndarray, stream: Stream) -> None:
    """Copies a host array to a device array of its shape and layout.

    Pageable memory is read at once; pinned memory when the copy runs, and must not change before.
    """
    _begin(stream, "H2D transfers")
    use = use_of_array(target, True, "copy to the device")
    source = np.asarray(source)
    pinned = pinned_pool().use_of(source.ctypes.data, source.nbytes, False)
    before, host, here = source.copy(), target._host, place()
    memory = _bytes_of(pinned)

    def run() -> None:
        if pinned is not None and memory.tobytes() != before.tobytes():
            raise report(RaceError(f"{pinned.block} has changed before the copy to the device at {here} ran"))
        host[...] = before

    machine().enqueue(stream, "copy to the device", run, (use, pinned) if pinned else (use,))


def to_host(source, target: np.ndarray, stream: Stream) -> None:
    """Copies a device array to a host array; waits for it unless the host's memory is pinned."""
    _begin(stream, "D2H transfers")
    target = np.asarray(target)
    pinned = pinned_pool().use_of(target.ctypes.data, target.nbytes, True)
    host, kept = source._host, target
    if pinned is not None:
        kept = _bytes_of(pinned).view(target.dtype).reshape(target.shape)

    def run() -> None:
        kept[...] = host

    use = use_of_array(source, False, "copy to the host")
    operation = machine().enqueue(stream, "copy to the host", run, (use, pinned) if pinned else (use,))
    if pinned is None:
        machine().wait_for_operation(operation)


def _bytes_of(pinned: Use | None) -> np.ndarray:
    """The bytes of pinned memory, in an array that does not keep it from being freed."""
    return np.empty(0, np.uint8) if pinned is None else pinned.block.bytes[pinned.low : pinned.high]


def _begin(stream: Stream, what: str) -> None:
    if stream.capture is not None:
        stream.capture.is_valid = False
        raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")
    if faults.is_due("copy"):
        raise CUDARuntimeError(700)
