"""A sink that keeps what it is given in memory, and a run on one device to it."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from gpusift.features import Features
from gpusift.images.reader import Decoding
from gpusift.stream import Summary, run
from gpusift.stream.worker import worker_here
from tests.support.same_bytes import digest


class MemoryFailures:
    """Failures: name -> reason."""

    def __init__(self, failed: Container[str] = ()) -> None:
        self.reasons = dict.fromkeys(failed, "before")

    def __contains__(self, name: object) -> bool:
        return name in self.reasons

    def add(self, name: str, url: str, reason: str) -> None:
        assert name not in self.reasons
        self.reasons[name] = reason


class MemorySink:
    """A sink; `written` has what `keep` makes of each image's features and shape, by default a digest."""

    file_writer = None

    def __init__(
        self,
        committed: tuple[str, ...] = (),
        failed: tuple[str, ...] = (),
        keep: Callable[[Features, tuple[int, int]], Any] = lambda features, shape: (digest(features), tuple(shape)),
    ) -> None:
        self.settings: dict[str, Any] = {}
        self.committed = set(committed)
        self.written: dict[str, Any] = {}
        self.commits = 0
        self.failures = MemoryFailures(failed)
        self.keep = keep

    @property
    def failed(self) -> dict[str, str]:
        return self.failures.reasons

    def __contains__(self, name: object) -> bool:
        return name in self.committed or name in self.written

    def write(self, name, features, shape, url=None):
        assert name not in self.written
        self.written[name] = self.keep(features, shape)

    def commit(self):
        self.committed |= set(self.written)
        self.commits += 1

    def close(self):
        self.commit()


def run_here(items, sink, sift, *, on_event=None, stop=None, **options) -> Summary:
    """Compute images on one device, to a sink; options are those of `worker_here` and `Decoding`."""
    decoding = {name: options.pop(name) for name in Decoding.__dataclass_fields__ if name in options}
    return run(items, sink, [worker_here(sift, decoding=Decoding(**decoding), **options)], on_event=on_event, stop=stop)
