"""Events and counts of a run, and the error that ends it early."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COUNTS = ("images", "keypoints", "failures", "failed_before", "skipped")

Event = dict[str, Any]


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    images, keypoints : int
        Written by this run.
    failures : int
        Images that failed.
    failed_before : int
        Images that failed in an earlier run, and were not tried again.
    skipped : int
        Images whose results an earlier run wrote.
    seconds : dict
        Time spent in "read", "compute" and "write", each summed over its threads and devices; "total": wall time.
    """

    images: int = 0
    keypoints: int = 0
    failures: int = 0
    failed_before: int = 0
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "compute", "write", "total"), 0.0))

    @property
    def seen(self) -> int:
        """Images that are done or have failed, in this run or before."""
        return self.images + self.failures + self.failed_before + self.skipped

    def as_event(self) -> Event:
        """Return the event "progress"."""
        seconds = {kind: round(value, 3) for kind, value in self.seconds.items()}
        return {"event": "progress", **{name: getattr(self, name) for name in COUNTS}, "seconds": seconds}


class RunError(RuntimeError):
    """A run that had to end early; its results so far are committed, if the sink could still be written.

    Attributes
    ----------
    stage : str
        Where the error, which is the `__cause__`, came from: "sources", "compute" or "write".
    summary : Summary
        What was done.
    """

    def __init__(self, stage: str, summary: Summary, error: BaseException) -> None:
        super().__init__(f"{stage}: {error}")
        self.stage, self.summary = stage, summary
