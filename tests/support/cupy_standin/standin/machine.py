"""The machine: devices, streams, captures, and how operations get into streams."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from standin import faults
from standin.blocks import require_order
from standin.captures import Capture
from standin.errors import CUDARuntimeError
from standin.operations import Operation, Stream, Use, join
from standin.scheduler import Scheduler
from standin.violations import CaptureError, DeviceError, place, report

from gpusift.devices import host_library

ENVIRONMENT = "CUPY_STANDIN"  # settings as JSON, the parameters of Machine
MULTIPROCESSORS = 2
PER_THREAD = 2  # the handle of each thread's own default stream


class Machine:
    """Some devices, and what runs on them.

    Parameters
    ----------
    seed : int
        Of the order in which operations run.
    devices : int
        How many.
    memory : int
        Bytes of each device.
    unavailable : sequence of int
        Devices that another process has for itself.
    library : str, optional
        Path of the host library whose kernels are launched; by default that of the CPU device.
    """

    def __init__(
        self, seed: int = 0, devices: int = 2, memory: int = 1 << 32, unavailable: Any = (), library: str | None = None
    ) -> None:
        self.seed, self.n_devices, self.memory, self.unavailable = seed, devices, memory, tuple(unavailable)
        self.usual_memory = memory
        self.library = host_library.library() if library is None else host_library.Library(Path(library))
        self.lock = threading.RLock()
        self.scheduler = Scheduler(seed)
        self.contexts: set[int] = set()
        self.null_streams = [Stream(0, device, "null") for device in range(devices)]
        self.streams: dict[int, Stream] = {}
        self._per_thread_streams: list[Stream] = []
        self._next_pointer = 1000
        self._thread = threading.local()
        self.before_operation: list[Callable[[], None]] = []

    # Devices

    @property
    def device(self) -> int:
        """The current device of this thread."""
        return getattr(self._thread, "device", 0)

    def set_device(self, device: int) -> None:
        """Makes a device current, with a context on it (cudaSetDevice, since CUDA 12)."""
        if not 0 <= device < self.n_devices:
            raise CUDARuntimeError(101)
        self.make_context(device)
        self._thread.device = device

    def make_context(self, device: int | None = None) -> None:
        """Makes the context of a device, by default of the current one."""
        device = self.device if device is None else device
        if device in self.unavailable:
            raise CUDARuntimeError(46)
        self.contexts.add(device)

    # Streams

    def create_stream(self, kind: str) -> Stream:
        """A stream of the current device."""
        self.make_context()
        with self.lock:
            self._next_pointer += 16
            stream = self.streams[self._next_pointer] = Stream(self._next_pointer, self.device, kind)
        return stream

    def destroy_stream(self, pointer: int) -> None:
        """Forgets a stream; its operations still run (cudaStreamDestroy)."""
        with self.lock:
            stream = self.streams.pop(pointer, None)
            if stream is not None:
                stream.is_destroyed = True

    def stream_of(self, pointer: int) -> Stream:
        """The stream with a handle; 0 and 1 are the null stream of the current device, 2 this thread's own."""
        if pointer in (0, 1):
            return self.null_streams[self.device]
        if pointer == PER_THREAD:
            return self._per_thread_stream()
        stream = self.streams.get(pointer)
        if stream is None:
            raise CUDARuntimeError(400)
        return stream

    def _per_thread_stream(self) -> Stream:
        """The default stream of this thread on the current device."""
        own = self._thread.__dict__.setdefault("streams", {})
        if self.device not in own:
            own[self.device] = Stream(PER_THREAD, self.device, "blocking")
            with self.lock:
                self._per_thread_streams.append(own[self.device])
        return own[self.device]

    def _streams(self, device: int) -> list[Stream]:
        """All streams of a device but its null stream."""
        return [s for s in (*self.streams.values(), *self._per_thread_streams) if s.device == device]

    def _blocking(self, device: int) -> list[Stream]:
        return [s for s in self._streams(device) if s.kind == "blocking"]

    def follow(self, stream: Stream, operation: Operation | None, capture: Capture | None) -> None:
        """Lets a stream's next operation come after an event, which may be of a capture (cudaStreamWaitEvent)."""
        with self.lock:
            if capture is None and stream.capture is None:
                if operation is not None:
                    stream.follow(operation)
                return
            status = _refused(stream, capture)
            if status:
                for each in {stream.capture, capture} - {None}:
                    each.is_valid = False
                raise CUDARuntimeError(status)
            capture.follow(stream, operation)

    # Operations

    def enqueue(self, stream: Stream, what: str, run: Callable[[], None], uses: tuple[Use, ...] = ()) -> Operation:
        """Appends an operation to a stream, in order with what the stream follows; checks the order of its uses."""
        self.make_context()
        self.settle()
        with self.lock:
            here = place()
            for use in uses:
                use.block.require_alive(use.block.generation, f"{what} at {here}")
            operation = Operation(stream, what, run, uses, here)
            if stream.capture is not None:
                stream.capture.append(operation)
                return operation
            self._require_no_implicit_dependency(stream)
            self._append(stream, operation)
            return operation

    def _append(self, stream: Stream, operation: Operation) -> None:
        followed = [] if stream.last is None else [stream.last]
        followed += stream.awaited
        if stream.kind == "null":
            followed += [other.last for other in self._blocking(stream.device) if other.last is not None]
        elif stream.kind == "blocking":
            null = self.null_streams[stream.device]
            followed += [] if null.last is None else [null.last]
        clock = {s: number for s, number in stream.clock.items() if s.unknown}
        for other in followed:
            join(clock, other.clock)
        require_order(operation.what, operation.place, operation.uses, clock)
        stream.awaited.clear()
        stream.count += 1
        operation.number = clock[stream] = stream.count
        operation.clock = clock
        operation.before = [other for other in followed if not other.has_run]
        stream.clock = dict(clock)
        stream.unknown.append(operation)
        self.scheduler.add(operation)  # before a finalizer, called by the garbage collector, may wait for it
        stream.last = operation
        for use in operation.uses:
            use.block.note(operation, use)

    def settle(self) -> None:
        """Does what waits to be done before the next operation: frees that the garbage collector has brought."""
        for function in self.before_operation:
            function()

    def host_uses(self, what: str, uses: tuple[Use, ...]) -> None:
        """Checks the order of what the host itself reads or writes, in pinned memory."""
        self.settle()
        with self.lock:
            require_order(what, place(), uses, {})

    # Waiting

    def wait_for_stream(self, stream: Stream) -> None:
        """Waits for a stream (cudaStreamSynchronize)."""
        self.settle()
        with self.lock:
            _require_no_capture([stream])
            self._require_no_implicit_dependency(stream)
            for operation in tuple(stream.awaited):
                self.scheduler.wait(operation)
            self.scheduler.wait_for_all([stream])
            if stream.kind == "null":
                self.scheduler.wait_for_all(self._blocking(stream.device))

    def wait_for_operation(self, operation: Operation) -> None:
        """Waits for an operation (cudaEventSynchronize)."""
        self.settle()
        with self.lock:
            self.scheduler.wait(operation)

    def wait_for_device(self, device: int) -> None:
        """Waits for all streams of a device (cudaDeviceSynchronize)."""
        self.settle()
        with self.lock:
            _require_no_capture(self._streams(device))
            self.finish(device)

    def finish(self, device: int) -> None:
        """Waits for all work of a device, whatever captures (cudaFree)."""
        self.scheduler.wait_for_all([s for s in list(self.scheduler.busy) if s.device == device])
        self.scheduler.wait_for_all([self.null_streams[device], *self._streams(device)])

    def has_stream_ended(self, stream: Stream) -> bool:
        """Whether everything in a stream has ended (cudaStreamQuery)."""
        with self.lock:
            _require_no_capture([stream])
            self._require_no_implicit_dependency(stream)
            return self.has_ended(stream.last)

    def has_ended(self, operation: Operation | None) -> bool:
        """Whether an operation has ended (cudaEventQuery); what has, the host knows from then on."""
        with self.lock:
            self.scheduler.run_some()
            if operation is None or operation.is_known:
                return True
            if operation.has_run:
                self.scheduler.wait(operation)
            return operation.has_run

    # Captures

    def begin_capture(self, stream: Stream) -> None:
        """Lets a stream capture its operations."""
        with self.lock:
            if stream.capture is not None:
                raise CUDARuntimeError(900)
            Capture(stream, place())

    def end_capture(self, stream: Stream) -> list[Operation]:
        """The operations that a stream, and those that have joined it, have captured."""
        with self.lock:
            if stream.capture is None:
                raise CUDARuntimeError(1)
            return stream.capture.end(stream)

    def launch_graph(self, stream: Stream, operations: list[Operation]) -> None:
        """Appends captured operations to a stream, with the memory that they were captured with.

        What other streams have captured runs in streams of its own, in the order of the captured events.
        """
        if stream.capture is not None:
            raise NotImplementedError("the stand-in captures no launch of a graph")
        if faults.is_due("launch"):
            raise CUDARuntimeError(701)
        self.settle()
        with self.lock:
            for operation in operations:
                for use, generation in zip(operation.uses, operation.generations):
                    use.block.require_alive(generation, f"a graph that is launched at {place()}: {operation}")
            branches = {operations[-1].stream: stream}
            launched: dict[Operation, Operation] = {}
            for operation in operations:
                origin = operation.stream
                branch = branches.setdefault(origin, Stream(0, origin.device, "non-blocking"))
                for before in operation.before:
                    branch.follow(launched[before])
                again = Operation(branch, f"{operation.what} of a graph", operation.run, operation.uses, place())
                self._append(branch, again)
                launched[operation] = again

    def _require_no_implicit_dependency(self, stream: Stream) -> None:
        if stream.kind == "null" and any(s.capture is not None for s in self._blocking(stream.device)):
            raise CUDARuntimeError(906)

    def require_not_capturing(self, stream: Stream, what: str) -> None:
        """Raises a violation if a stream captures, during which `what` is not allowed."""
        if stream.capture is not None:
            stream.capture.is_valid = False
            raise report(CaptureError(f"{what} at {place()} while {stream} captures since {stream.capture.place}"))

    def require_current(self, device: int, what: str) -> None:
        """Raises DeviceError if a device is not the current one."""
        if device != self.device:
            raise report(
                DeviceError(f"{what} at {place()} uses device {device}, but the current device is {self.device}")
            )


def _require_no_capture(streams: list[Stream]) -> None:
    """Raises what CUDA does when one waits for streams, or asks whether they have ended, while one captures."""
    capturing = [stream.capture for stream in streams if stream.capture is not None]
    for capture in capturing:
        capture.is_valid = False
    if capturing:
        raise CUDARuntimeError(900)


def _refused(stream: Stream, capture: Capture | None) -> int:
    """CUDA's status if a stream may not wait for an event of a capture, or of none; otherwise 0."""
    if capture is None:
        return 905
    if stream.capture not in (None, capture):
        return 902
    if capture.has_ended:
        return 907
    return 906 if stream.kind == "null" else 0


_machine: Machine | None = None
_lock = threading.Lock()


def machine() -> Machine:
    """The machine of this process, made by the settings in the environment."""
    global _machine
    if _machine is None:
        with _lock:
            if _machine is None:
                _machine = Machine(**json.loads(os.environ.get(ENVIRONMENT, "{}")))
    return _machine


def reset(**settings: Any) -> Machine:
    """A new order of running for the same machine, its limits as given or as at first, no faults; blocks stay."""
    one = machine()
    faults.clear()
    with one.lock:
        for stream in list(one.scheduler.busy):
            one.scheduler.wait_for_all([stream])
        one.scheduler.random.seed(settings.get("seed", one.seed))
        one.memory = settings.get("memory", one.usual_memory)
        one.unavailable = tuple(settings.get("unavailable", ()))
    return one
