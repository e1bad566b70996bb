"""A sink that keeps what it is given in memory."""

from __future__ import annotations

from tests.support.same_bytes import digest


class Lists:
    """A sink, and failures, in memory."""

    def __init__(self, committed: tuple[str, ...] = (), failed: tuple[str, ...] = ()) -> None:
        self.committed = set(committed)
        self.written: dict[str, tuple[str, tuple[int, int]]] = {}
        self.commits = 0
        self.failed = dict.fromkeys(failed, "before")

    def write(self, name, features, shape):
        assert name not in self.written
        self.written[name] = (digest(features), tuple(shape))

    def commit(self):
        self.committed |= set(self.written)
        self.commits += 1

    def __contains__(self, name):
        return name in self.failed

    def add(self, name, url, reason):
        assert name not in self.failed
        self.failed[name] = reason
