"""The last stage of a run: it writes results to the sink, counts them and reports events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpusift.errors import reason_of
from gpusift.sinks import RefusedImageError
from gpusift.stream.summary import Event, Summary
from gpusift.stream.worker import Done, Failed

if TYPE_CHECKING:
    from gpusift.sinks import Sink


class Writer:
    """Writes results to a sink, in the calling thread.

    Parameters
    ----------
    sink : Sink
        Where results go.
    tell : callable
        Called with each event.

    Attributes
    ----------
    summary : Summary
        Counts so far.
    """

    def __init__(self, sink: Sink, tell: Callable[[Event], None]) -> None:
        self._sink, self._tell = sink, tell
        self.summary = Summary()
        self._begun = self._committed = time.perf_counter()
        self._is_dirty = False

    def write(self, item: Done | Failed) -> None:
        """Write, count and report the result of an image."""
        self.summary.seconds["read"] += item.read_seconds
        failed = self._write_done(item) if isinstance(item, Done) else item
        if failed is not None:
            self._write_failed(failed)

    def commit(self, every: float) -> None:
        """Commit and report the progress, if the last commit was at least this many seconds ago."""
        begun = time.perf_counter()
        if begun - self._committed < every:
            return
        if self._is_dirty:
            self._sink.commit()
            self._is_dirty = False
        self._committed = time.perf_counter()
        self.summary.seconds["write"] += self._committed - begun
        self.summary.seconds["total"] = self._committed - self._begun
        self._tell(self.summary.as_event())

    def _write_done(self, item: Done) -> Failed | None:
        """Write features; return the failure if the sink cannot hold them."""
        self.summary.seconds["compute"] += item.compute_seconds
        begun, source = time.perf_counter(), item.source
        try:
            self._sink.write(source.name, item.features, item.shape, source.url)
        except RefusedImageError as error:
            return Failed(source, reason_of(error))
        finally:
            self.summary.seconds["write"] += time.perf_counter() - begun
        self._is_dirty = True
        self.summary.images += 1
        self.summary.keypoints += len(item.features)
        for message in item.messages:
            self._tell({"event": "warning", "name": source.name, "url": source.public_url, "message": message})
        rows, cols = item.shape
        self._tell({"event": "image", "name": source.name, "keypoints": len(item.features), "rows": rows, "cols": cols})
        return None

    def _write_failed(self, item: Failed) -> None:
        source, failures = item.source, self._sink.failures
        self.summary.failures += 1
        if source.name not in failures:
            failures.add(source.name, source.public_url, item.reason)
        self._tell({"event": "failed", "name": source.name, "url": source.public_url, "reason": item.reason})
