"""Captures: what one or several streams would do becomes a graph, in the order of streams and events."""

from __future__ import annotations

from standin.errors import CUDARuntimeError
from standin.operations import Operation, Stream


class Capture:
    """A capture, from `begin_capture` to `end_capture` on the same stream.

    Other streams take part from when they wait for an event of the capture. Before the end, the first stream must wait
    for them.

    Attributes
    ----------
    origin : Stream
        Where it begins and ends.
    operations : list of Operation
        Each has in `before` those that it comes after.
    is_valid : bool
        Whether nothing that is forbidden has happened.
    has_ended : bool
        Whether it has become a graph or an error.
    """

    def __init__(self, origin: Stream, place: str) -> None:
        self.origin, self.place = origin, place
        self.operations: list[Operation] = []
        self.is_valid, self.has_ended = True, False
        self._ends: dict[Stream, list[Operation]] = {origin: []}  # what the next operation of each stream comes after
        origin.capture = self

    def append(self, operation: Operation) -> None:
        """Adds an operation of a stream that takes part."""
        operation.before = self._ends[operation.stream]
        self._ends[operation.stream] = [operation]
        self.operations.append(operation)

    def follow(self, stream: Stream, operation: Operation) -> None:
        """Lets the next operation of a stream, which takes part from now on, come after another stream's."""
        stream.capture = self
        self._ends[stream] = [*self._ends.get(stream, []), operation]

    def end(self, stream: Stream) -> list[Operation]:
        """The operations, of which the last one comes after all others."""
        if stream is not self.origin:
            self.is_valid = False
            raise CUDARuntimeError(903)
        self.has_ended = True
        for each in self._ends:
            each.capture = None
        if not self.is_valid:
            raise CUDARuntimeError(901)
        self.append(Operation(stream, "end", lambda: None, (), self.place))
        if self.operations[-1].needed() != set(self.operations):
            raise CUDARuntimeError(904)
        return self.operations
