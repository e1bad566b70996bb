"""What `gpusift extract` reports while it runs: a bar, a line for each failure, and a log for machines."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import IO, Any

import click

from gpusift.cli.options import discard_rest, say
from gpusift.errors import escaped, reason_of
from gpusift.stream import Event, Summary


class Reporter:
    """Reports a run's events; a context manager.

    Parameters
    ----------
    log : str or None
        File to which each event is added as a line of JSON; "-" is stdout.
    progress : bool
        Whether to show a bar, on stderr.
    count : callable
        Counts the images, for the bar; called in a thread of its own.

    Raises
    ------
    click.ClickException
        The log cannot be written.
    """

    def __init__(self, log: str | None, progress: bool, count: Callable[[], int | None]) -> None:
        self._log_path, self._progress, self._count = log, progress, count
        self._device = ""
        self._log: IO[str] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Reporter:
        from tqdm import tqdm

        if self._log_path == "-":
            self._log = sys.stdout
        elif self._log_path:
            try:
                self._log = self._open.enter_context(open(self._log_path, "a", encoding="utf-8"))
            except OSError as error:
                raise click.ClickException(f"cannot write {self._log_path}: {reason_of(error)}") from None
        tqdm.monitor_interval = 0  # no thread of its own
        self._bar = self._open.enter_context(tqdm(unit="image", disable=not self._progress))
        if self._progress:
            threading.Thread(target=self._find_total, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, event: Event) -> None:
        """Report an event of `gpusift.stream.extract`."""
        kind = event["event"]
        if kind == "start":
            self._device = event["device"]
        elif kind == "failed":
            say(f"failed: {event['url']}: {event['reason']}")
        elif kind == "warning":
            say(f"warning: {event['url']}: decoder: {event['message']}")
        elif kind == "progress":
            self._show(event)
        if kind in ("image", "failed"):
            self._bar.update()
        self.log(event)

    def log(self, event: Event) -> None:
        """Add a line to the log."""
        if self._log is None:
            return
        fields = {key: escaped(value) if isinstance(value, str) else value for key, value in event.items()}
        line = json.dumps({"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **fields})
        try:
            self._log.write(line + "\n")
            self._log.flush()
        except OSError as error:
            discard_rest(self._log)
            raise click.ClickException(f"cannot write {self._log_path}: {reason_of(error)}") from None

    @property
    def total(self) -> int | None:
        """The number of images, or None if it is not known."""
        return self._bar.total

    def finish(self, total: int) -> None:
        """Show the final number of images."""
        self._bar.total = total
        self._bar.refresh()

    def summarize(self, summary: Summary, total: int | None) -> str:
        """Say what a run did, in one line."""
        of = "" if total is None else f" of {total}"
        counts = [
            f"{summary.images}{of} images",
            f"{summary.keypoints} keypoints",
            f"{summary.seconds['total']:.1f} s on {self._device}",
            f"{summary.failures} failed",
        ]
        if summary.failed_before:
            counts.append(f"{summary.failed_before} failed before (--retry-failed)")
        if summary.skipped:
            counts.append(f"{summary.skipped} skipped, as they are done")
        return ", ".join(counts)

    def _show(self, event: Event) -> None:
        bar = self._bar
        bar.initial = event["skipped"] + event["failed_before"]  # not counted for the rate
        bar.n = bar.initial + event["images"] + event["failures"]
        seconds = event["seconds"]
        load = seconds["compute"] / max(seconds["total"], 1e-9) / (self._device.count(",") + 1)
        bar.set_postfix(keypoints=event["keypoints"], failed=event["failures"], load=f"{min(load, 1):.0%}")

    def _find_total(self) -> None:
        total = self._count()
        if total is not None:
            self._bar.total = total


def count(items: Iterable[Any]) -> int | None:
    """Count items; None if that fails."""
    try:
        return sum(1 for _ in items)
    except Exception:  # the run itself meets the same error, and reports it
        return None
