"""How many processors the process may use, and how many threads it should start."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the number of processors that the process may use: by its affinity, and by the quotas of its cgroups.

    Parameters
    ----------
    cgroups, membership : Path, optional
        Where the system shows the quotas, and the cgroups of the process; of version 1 or 2.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        processors = os.cpu_count() or 1
    return min([processors, *(max(math.ceil(quota), 1) for quota in _quotas(cgroups, membership))])


def threads() -> int:
    """Return the number of threads that compute: `OMP_NUM_THREADS` where it is set, otherwise one a processor."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else available()


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas of the process's cgroups and of those above them, in processors."""
    with suppress(OSError, UnicodeDecodeError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                for folder in _upwards(cgroups, path):
                    yield from _quota(_words(folder / "cpu.max"))
            elif "cpu" in controllers.split(","):
                for mount in (controllers, "cpu"):
                    for folder in _upwards(cgroups / mount, path):
                        limits = (_words(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                        yield from _quota([word for words in limits for word in words])


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield a cgroup's folder and those above it. In a container, the path may be the host's: then only the root is."""
    folder = root / path.strip("/")
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


def _quota(words: list[str]) -> Iterator[float]:
    """Yield microseconds over a period of microseconds; nothing for "max" and -1, which are no quota."""
    with suppress(ValueError):
        quota, period = map(int, words)
        if quota > 0 and period > 0:
            yield quota / period
