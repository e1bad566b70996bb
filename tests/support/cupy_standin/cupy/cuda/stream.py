"""Streams and events."""

from __future__ import annotations

import threading

from cupy.cuda.graph import Graph as _Graph
from cupy.cuda.runtime import streamCaptureModeRelaxed
from standin.errors import CUDARuntimeError as _CUDARuntimeError
from standin.lacks import lacks
from standin.machine import PER_THREAD, machine


class _ThreadLocal(threading.local):
    def __init__(self) -> None:
        self.current = [Stream.null] * machine().n_devices
        self.stacks = [[Stream.null] for _ in range(machine().n_devices)]
        self.entered: list[int] = []


def _local() -> _ThreadLocal:
    global _thread
    if _thread is None:
        _thread = _ThreadLocal()
    return _thread


_thread: _ThreadLocal | None = None


def get_current_stream(device_id=-1):
    """The stream that is current on a device, by default on the current one."""
    return _local().current[machine().device if device_id == -1 else device_id]


class Event:
    """A point in a stream."""

    @lacks("block")
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        machine().make_context()
        self._operation = None
        self._device = machine().device
        self._capture = None

    @property
    def done(self):
        """Whether it has been reached."""
        self._require_not_captured()
        return machine().has_ended(self._operation)

    def record(self, stream=None):
        """Puts the point behind what a stream, by default the current one, holds."""
        of_machine = machine().stream_of((get_current_stream() if stream is None else stream).ptr)
        if of_machine.device != self._device:
            raise _CUDARuntimeError(400)
        self._capture = of_machine.capture
        self._operation = machine().enqueue(of_machine, "event", lambda: None)

    def synchronize(self):
        """Waits for the point."""
        self._require_not_captured()
        if self._operation is not None:
            machine().wait_for_operation(self._operation)

    def _require_not_captured(self):
        if self._capture is not None:
            self._capture.is_valid = False
            raise _CUDARuntimeError(907)


def get_elapsed_time(start_event, end_event):
    """Milliseconds between two events: the stand-in knows no time, and counts nothing."""
    for event in (start_event, end_event):
        if event._operation is None or not event._operation.is_known:
            raise _CUDARuntimeError(600)
    return 1.0


class _BaseStream:
    def __init__(self, ptr, device_id):
        self.ptr, self.device_id = ptr, device_id

    def __eq__(self, other):
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self):
        return self.ptr

    def __repr__(self):
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def __cuda_stream__(self):
        return 0, self.ptr

    def _require_current(self) -> int:
        current = machine().device
        if self.device_id not in (-1, current):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device "
                f"({current})"
            )
        return current

    def __enter__(self):
        device = self._require_current()
        local = _local()
        local.stacks[device].append(self)
        local.entered.append(device)
        local.current[device] = self
        return self

    def __exit__(self, *args):
        local = _local()
        device = local.entered.pop()
        local.stacks[device].pop()
        local.current[device] = local.stacks[device][-1]

    def use(self):
        """Makes this stream the current one."""
        _local().current[self._require_current()] = self
        return self

    @property
    def done(self):
        """Whether everything in it has ended."""
        return machine().has_stream_ended(machine().stream_of(self.ptr))

    def synchronize(self):
        """Waits for everything in it."""
        machine().make_context()
        machine().wait_for_stream(machine().stream_of(self.ptr))

    def record(self, event=None):
        """An event behind everything that it holds."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event):
        """Lets what comes next in it come after an event."""
        machine().follow(machine().stream_of(self.ptr), event._operation, event._capture)

    def begin_capture(self, mode=None):
        """Begins to capture a graph."""
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if mode not in (None, streamCaptureModeRelaxed):
            raise NotImplementedError("the stand-in captures in relaxed mode")
        machine().begin_capture(machine().stream_of(self.ptr))

    def end_capture(self):
        """The graph that was captured."""
        return _Graph._of(machine().end_capture(machine().stream_of(self.ptr)))

    def is_capturing(self):
        """Whether it captures."""
        return machine().stream_of(self.ptr).capture is not None

    @property
    def is_non_blocking(self):
        """Whether it has no order with the null stream."""
        return machine().stream_of(self.ptr).kind == "non-blocking"


class Stream(_BaseStream):
    """A stream of the current device."""

    null = ptds = None

    @lacks("priority")
    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        if null or ptds:
            super().__init__(0 if null else PER_THREAD, -1)
            return
        made = machine().create_stream("non-blocking" if non_blocking else "blocking")
        super().__init__(made.pointer, made.device)

    def __del__(self):
        if getattr(self, "ptr", 0) not in (0, PER_THREAD):
            machine().destroy_stream(self.ptr)


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)
