"""What the machine reports: a violation is raised where it happens and recorded, so that no `except` hides it."""

from __future__ import annotations

import os
import sys

OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Violation(RuntimeError):
    """A program did what a GPU would not have forgiven."""


class RaceError(Violation):
    """Two accesses to the same memory, one of them a write, have no order."""


class UseAfterFreeError(Violation):
    """Memory is used after it was freed, or freed while it may still be used."""


class DeviceError(Violation):
    """Memory or a stream of one device is used while another device is current."""


class CaptureError(Violation):
    """A capture holds what a CUDA graph cannot replay."""


_recorded: list[Violation] = []


def report(violation: Violation) -> Violation:
    """Records a violation and gives it back, to be raised."""
    _recorded.append(violation)
    return violation


def take_violations() -> list[Violation]:
    """The violations since the last call."""
    taken = _recorded[:]
    _recorded.clear()
    return taken


def place() -> str:
    """The innermost line outside the stand-in, with its caller."""
    frame = sys._getframe(1)
    lines: list[str] = []
    while frame is not None and len(lines) < 3:
        name = frame.f_code.co_filename
        if not name.startswith((OWN_FOLDER, "<frozen")) and "contextlib" not in name:
            lines.append(f"{os.path.basename(os.path.dirname(name))}/{os.path.basename(name)}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(lines) or "interpreter shutdown"
