"""Processes that are measured: their environment variables and their resident memory."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a process that is started inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def reset_peak() -> None:
    """Reset the process's peak resident size to its present size, where Linux allows it.

    Elsewhere the peak includes the imports: it is then too large, never too small.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident(pid: int | None = None) -> int:
    """Return the resident bytes of a process, by default of this one; 0 if it has ended or there is no /proc."""
    return _status("VmRSS", pid) or 0


def peak_resident() -> int:
    """Return the largest resident bytes of this process since `reset_peak`."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str, pid: int | None = None) -> int | None:
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except OSError:
        return None
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")]
    return values[0] if values else None
