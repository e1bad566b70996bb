#!/usr/bin/env python
"""Measure images that are computed in strips, within a memory limit; keep one JSON row per measurement.

    python -m bench.jobs.parts [--tasks parts,sinks] [--device cpu|cuda] [--out DIR] [--quick]

There are two tasks:

- parts: a mosaic of 9 MP without a limit and with ever smaller ones, and one of 108 MP (9000 x 12000) within 800 MB.
  Each runs in a process of its own; a row has its peak resident size minus that after the imports, with the image read.
  All features of one image must be the same bytes.
- sinks: `gpusift extract` from a PNG file of 108 MP with 2.3 million features to each sink, within 800 MB; a row has
  the peak resident size of the whole command.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.common import machine, photographs, rows
from bench.common.processes import peak_resident, reset_peak, resident
from bench.common.rows import say
from bench.jobs.batch import SINKS, events, measured, size_of, start

Cases = tuple[tuple[tuple[int, int], tuple["int | None", ...]], ...]

CASES: Cases = (
    ((3000, 3000), (None, 600_000_000, 300_000_000, 150_000_000)),
    ((9000, 12000), (800_000_000,)),
)
QUICK_CASES: Cases = (((600, 800), (None, 20_000_000)),)
LARGE = (9000, 12000), 800_000_000
QUICK_LARGE = (600, 800), 20_000_000
ALL_KEYPOINTS = {"COLMAP": ("--max-keypoints", "10000000")}  # its default is 16384


def measure(shape: tuple[int, int], limit: int | None, device: str) -> dict[str, Any]:
    """Return time and memory of one call, and the hash of its features."""
    from gpusift import SIFT

    image = photographs.mosaic(*shape)
    sift = SIFT(device=device, memory_limit=limit)
    sift.compute(image[:200, :200])
    before = resident()
    reset_peak()
    start = time.perf_counter()
    features = sift.compute(image).to_host()
    seconds = time.perf_counter() - start
    whole = hashlib.sha256()
    for name in ("positions", "sigmas", "orientations", "descriptors"):
        whole.update(np.ascontiguousarray(getattr(features, name)))
    return {
        "shape": list(shape),
        "memory_limit": limit,
        "device": device,
        "keypoints": len(features),
        "seconds": round(seconds, 3),
        "host_peak_bytes": peak_resident() - before,
        "hash": whole.hexdigest(),
    }


def parts(cases: Cases, device: str) -> Iterator[dict[str, Any]]:
    """Measure images without and with limits."""
    context = multiprocessing.get_context("spawn")
    for shape, limits in cases:
        hashes = set()
        for limit in limits:
            with context.Pool(1) as pool:
                row = pool.apply(measure, (shape, limit, device))
            hashes.add(row["hash"])
            yield {"task": "parts", **row}
        if len(hashes) > 1:
            sys.exit(f"the features of the image of {shape} differ between memory limits; they must be identical")


def sinks(shape: tuple[int, int], limit: int, device: str) -> Iterator[dict[str, Any]]:
    """Measure the command with a large image and each sink."""
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "large.png"
        cv2.imwrite(str(image), photographs.texture(*shape), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        for sink, output in SINKS.items():
            log = Path(name) / f"{sink}.jsonl"
            options = ["--memory-limit", str(limit), "--device", device, *ALL_KEYPOINTS.get(sink, ())]
            begun = time.perf_counter()
            process = start(image, Path(name) / output, options, log)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - begun
            if process.returncode:
                sys.exit(f"gpusift extract failed with {process.returncode}: {process.communicate()[1].decode()}")
            yield {
                "task": "sinks",
                "sink": sink,
                "shape": list(shape),
                "memory_limit": limit,
                "device": device,
                **measured(events(log)[-1], seconds),
                "peak_resident_bytes": used.ru_maxrss * 1024,
                "output_bytes": size_of(Path(name) / output),
            }


def summary(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    rows, columns = row["shape"]
    line = (
        f"{row.get('sink', ''):8} {rows} x {columns}, limit {row['memory_limit'] or 'none'}: {row['seconds']:.3f} s, "
    )
    peak = row.get("host_peak_bytes", row.get("peak_resident_bytes"))
    return f"{line}{row['keypoints']} keypoints, {peak / 1e6:.0f} MB"


def main() -> None:
    """Measure, and append the rows to parts.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default="parts,sinks", help="comma-separated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--quick", action="store_true", help="small images, for a first look")
    options = parser.parse_args()
    tasks = {
        "parts": parts(QUICK_CASES if options.quick else CASES, options.device),
        "sinks": sinks(*(QUICK_LARGE if options.quick else LARGE), options.device),
    }
    unknown = sorted(set(options.tasks.split(",")) - set(tasks))
    if unknown:
        parser.error(f"--tasks must be among {', '.join(tasks)}; got {unknown[0]!r}")
    common = rows.provenance(standard=not options.quick)
    for task in options.tasks.split(","):
        for row in tasks[task]:
            say(summary(row))
            rows.append(options.out / "parts.jsonl", {**common, **row})


if __name__ == "__main__":
    main()
