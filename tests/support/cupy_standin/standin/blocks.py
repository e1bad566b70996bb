"""Blocks of device and pinned memory: their bytes, whether they are alive, and who has used them last."""

from __future__ import annotations

import numpy as np
from standin.operations import Operation, Stream, Use
from standin.violations import RaceError, UseAfterFreeError, Violation, report

GUARD = 256  # bytes before and behind a block, in which nothing may be written
GUARD_BYTE, POISON = 0xA5, 0xFF


class Block:
    """A block of memory, which comes back from its pool many times.

    Attributes
    ----------
    device : int
        Of device memory; -1 for pinned memory.
    arena : Stream or None
        Of device memory: the stream to whose pool it returns.
    generation : int
        How many times it was freed.
    """

    def __init__(self, size: int, device: int, arena: Stream | None) -> None:
        memory = np.full(size + 2 * GUARD + 512, GUARD_BYTE, np.uint8)
        start = GUARD + -(memory.ctypes.data + GUARD) % 512
        self._guards = memory[start - GUARD : start], memory[start + size : start + size + GUARD]
        self.bytes = memory[start : start + size]
        self.bytes[:] = POISON
        self.address = self.bytes.ctypes.data
        self.size, self.device, self.arena = size, device, arena
        self.generation = 0
        self.is_alive = True
        self.freed_at = ""
        self._users: list[tuple[Operation, Use]] = []

    def __str__(self) -> str:
        where = "pinned memory" if self.device < 0 else f"memory of device {self.device}"
        return f"{self.size} bytes of {where}"

    def require_alive(self, generation: int, what: str) -> None:
        """Raises UseAfterFreeError if the block is not what it was in a generation."""
        if self.generation != generation or not self.is_alive:
            raise report(UseAfterFreeError(f"{what} uses {self}, which was freed at {self.freed_at}"))

    def require_guards(self, what: str) -> None:
        """Raises a violation if something has written outside the block."""
        if any((guard != GUARD_BYTE).any() for guard in self._guards):
            raise report(Violation(f"{what} has written outside {self}"))

    def unordered(self, use: Use, clock: dict[Stream, int]) -> Operation | None:
        """An earlier user that has no order with a use of this clock."""
        for user, earlier in self._users:
            conflicts = (use.writes or earlier.writes) and earlier.low < use.high and use.low < earlier.high
            if conflicts and not user.comes_before(clock):
                return user
        return None

    def note(self, operation: Operation, use: Use) -> None:
        """Notes a use; forgets those that can no longer conflict unless this one does."""

        def is_covered(user: Operation, earlier: Use) -> bool:
            if user.is_known:
                return True
            within = use.low <= earlier.low and earlier.high <= use.high
            same = use.writes or (not earlier.writes and user.stream is operation.stream)
            return within and same and user.comes_before(operation.clock)

        self._users = [(user, earlier) for user, earlier in self._users if not is_covered(user, earlier)]
        self._users.append((operation, use))

    def pending(self) -> Operation | None:
        """A user that the host does not know to have ended."""
        return next((user for user, _ in self._users if not user.is_known), None)


def byte_bounds(array: np.ndarray) -> tuple[int, int]:
    """The addresses at which the bytes of an array that is not empty begin and end."""
    start: int = array.__array_interface__["data"][0]
    spans = [(count - 1) * stride for count, stride in zip(array.shape, array.strides)]
    return start + sum(min(0, span) for span in spans), start + sum(max(0, span) for span in spans) + array.itemsize


def require_order(what: str, place: str, uses: tuple[Use, ...], clock: dict[Stream, int]) -> None:
    """Raises RaceError if a use has no order with an earlier one of the same bytes."""
    for use in uses:
        earlier = use.block.unordered(use, clock)
        if earlier is not None:
            verb = "writes" if use.writes else "reads"
            raise report(RaceError(f"{what} at {place} {verb} {use.block}, which has no order with {earlier}"))
