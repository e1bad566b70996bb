"""Rows: one JSON object for each measurement, appended to a file that is kept."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import machine

Row = dict[str, Any]


def provenance(**more: Any) -> Row:
    """Return what every row of a run has in common: date, commit, hardware, load and versions.

    Parameters
    ----------
    **more
        Further keys, which follow ``run`` in the row: ``standard=True``, for example.
    """
    return {
        "run": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **more,
        **machine.commit(),
        "hardware": machine.hardware(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": machine.versions(),
    }


def path_of(out: Path, common: Row, prefix: str = "") -> Path:
    """Return the path of the rows of today and of this machine: ``<prefix><date>-<machine>.jsonl`` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    return out / f"{prefix}{common['run'][:10]}-{machine.kind(common['hardware'])}.jsonl"


def append(path: Path, *rows: Row) -> None:
    """Append rows to a file, whose folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(*paths: Path) -> list[Row]:
    """Return all rows of some files."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def spread(seconds: Sequence[float]) -> Row:
    """Return the median, quartiles, extremes and number of `seconds`."""
    low, q1, median, q3, high = np.percentile(seconds, [0, 25, 50, 75, 100])
    return {
        "median": float(median),
        "q1": float(q1),
        "q3": float(q3),
        "min": float(low),
        "max": float(high),
        "n": len(seconds),
    }


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)
