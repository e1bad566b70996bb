"""Runs operations as late as their order allows, in an order drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from standin.operations import Operation, Stream


class Scheduler:
    """The queues of all streams. Nothing runs before the host waits for something."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.busy: dict[Stream, None] = {}  # streams with operations that have not run

    def add(self, operation: Operation) -> None:
        """Queues an operation behind those of its stream."""
        operation.stream.queue.append(operation)
        self.busy[operation.stream] = None

    def wait(self, operation: Operation) -> None:
        """Runs what an operation needs, and possibly more, until it has run; the host then knows that it has ended."""
        needed = operation.needed()
        is_lazy = self.random.random() < 0.5
        try:
            while not operation.has_run:
                assert self.busy, f"{operation} is in no queue"
                self._run_one(needed if is_lazy else None)
        finally:
            for stream, number in operation.clock.items() if operation.has_run else ():
                stream.learn(number)

    def wait_for_all(self, streams: Iterable[Stream]) -> None:
        """Waits for the last operations of streams."""
        for stream in streams:
            if stream.last is not None:
                self.wait(stream.last)

    def run_some(self) -> None:
        """Runs a few operations that may run, as a GPU does while the host does something else."""
        for _ in range(self.random.randrange(3)):
            if self.busy:
                self._run_one(None)

    def _run_one(self, among: set[Operation] | None) -> None:
        heads = [stream.queue[0] for stream in tuple(self.busy) if stream.queue]
        ready = [
            head for head in heads if (among is None or head in among) and all(before.has_run for before in head.before)
        ]
        if not ready:
            if heads and (among is None or any(not each.has_run for each in among)):
                raise AssertionError("operations wait for each other")
            return  # a finalizer, called by the garbage collector meanwhile, has run them
        operation = self.random.choice(ready)
        stream = operation.stream
        if not stream.queue or stream.queue[0] is not operation:
            return
        stream.queue.popleft()
        if not stream.queue:
            self.busy.pop(stream, None)
        operation.has_run = True
        operation.before.clear()
        operation.run()
