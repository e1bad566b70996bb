"""Operations in streams: when each may run, and what is known to come before it (vector clocks)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple


class Use(NamedTuple):
    """An operation's use of some bytes of a block."""

    block: Any
    low: int
    high: int
    writes: bool


class Operation:
    """A copy, a launch or a wait in a stream.

    Attributes
    ----------
    clock : dict
        For each stream the number of its operations that are known to have ended before this one begins; of its own
        stream, its own number.
    before : list of Operation
        Those that must have run before this one runs.
    generations : list of int
        Of the blocks that it uses.
    has_run : bool
        Whether it has run.
    is_known : bool
        Whether the host has waited for it, so that everything that the host does from now on comes after it.
    """

    __slots__ = (
        "before",
        "clock",
        "generations",
        "has_run",
        "is_known",
        "number",
        "place",
        "run",
        "stream",
        "uses",
        "what",
    )

    def __init__(self, stream: Stream, what: str, run: Callable[[], None], uses: tuple[Use, ...], place: str) -> None:
        self.stream, self.what, self.run, self.uses, self.place = stream, what, run, uses, place
        self.generations = [use.block.generation for use in uses]
        self.before: list[Operation] = []
        self.clock: dict[Stream, int] = {}
        self.number = 0
        self.has_run = self.is_known = False

    def comes_before(self, clock: dict[Stream, int]) -> bool:
        """Whether this operation is known to come before what has this clock."""
        return self.is_known or clock.get(self.stream, 0) >= self.number

    def needed(self) -> set[Operation]:
        """This operation, and those that have not run and must run before it."""
        found: set[Operation] = set()
        left = [self]
        while left:
            one = left.pop()
            if one not in found and not one.has_run:
                found.add(one)
                left += one.before
        return found

    def __str__(self) -> str:
        return f"{self.what} on {self.stream} at {self.place}"


class Stream:
    """A queue of operations of one device: CUDA's null stream, a blocking or a non-blocking one."""

    def __init__(self, pointer: int, device: int, kind: str) -> None:
        self.pointer, self.device, self.kind = pointer, device, kind
        self.count = 0
        self.clock: dict[Stream, int] = {}
        self.last: Operation | None = None
        self.awaited: list[Operation] = []  # by the next operation
        self.queue: deque[Operation] = deque()  # not run yet
        self.unknown: deque[Operation] = deque()  # not known to the host yet
        self.capture: Any = None  # the Capture that it takes part in
        self.is_destroyed = False

    def __str__(self) -> str:
        return f"{self.kind} stream {self.pointer} of device {self.device}"

    def follow(self, operation: Operation) -> None:
        """Lets the next operation come after another stream's."""
        self.awaited.append(operation)
        join(self.clock, operation.clock)

    def learn(self, number: int) -> None:
        """Notes that the host knows the operations up to a number to have ended."""
        while self.unknown and self.unknown[0].number <= number:
            self.unknown.popleft().is_known = True


def join(clock: dict[Stream, int], other: dict[Stream, int]) -> None:
    """Adds to a clock what another one knows."""
    for stream, number in other.items():
        if stream.unknown and clock.get(stream, 0) < number:
            clock[stream] = number
