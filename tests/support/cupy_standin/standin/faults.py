"""Injected faults: the n-th operation of a kind fails as the driver would."""

from __future__ import annotations

KINDS = ("device allocation", "pinned allocation", "launch", "copy", "module load")

_due: dict[str, list[int]] = {}


def fail_at(kind: str, *numbers: int) -> None:
    """Lets the operations of a kind with these numbers fail, counted from 1 from now on; without numbers none."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    _due[kind] = list(numbers)


def clear() -> None:
    """Takes all faults back."""
    _due.clear()


def is_due(kind: str) -> bool:
    """Counts an operation; whether it is one that fails."""
    numbers = _due.get(kind)
    if not numbers:
        return False
    _due[kind] = [number - 1 for number in numbers if number > 1]
    return 1 in numbers
