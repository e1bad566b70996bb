#!/usr/bin/env python
"""Measure images that are computed in parts, within a memory limit; keep one JSON row per measurement.

    python bench/parts.py [--device cpu|cuda] [--out DIR]

A mosaic of 9 MP without a limit and with smaller and smaller ones, and one of 108 MP (9000 x 12000) within 800 MB. Each
in a process of its own, whose largest resident size, above that with the imports done and the image read, is kept. The
features of one image must be the same bytes.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import photographs
from run import say
from worker import peak_resident, reset_peak, resident

CASES: tuple[tuple[tuple[int, int], tuple[int | None, ...]], ...] = (
    ((3000, 3000), (None, 600_000_000, 300_000_000, 150_000_000)),
    ((9000, 12000), (800_000_000,)),
)


def measure(shape: tuple[int, int], limit: int | None, device: str) -> dict[str, Any]:
    """Return what one call takes, and the hash of its features."""
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


def main() -> None:
    """Measure all cases and append their rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "bench" / "results")
    options = parser.parse_args()
    now = datetime.datetime.now(datetime.timezone.utc)
    common = {
        "run": now.isoformat(timespec="seconds"),
        **machine.commit(),
        "hardware": machine.hardware(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": machine.versions(),
    }
    context = multiprocessing.get_context("spawn")
    for shape, limits in CASES:
        hashes = set()
        for limit in limits:
            with context.Pool(1) as pool:
                row = pool.apply(measure, (shape, limit, options.device))
            hashes.add(row["hash"])
            say(
                f"{shape[0]} x {shape[1]}, limit {limit or 'none'}: {row['seconds']} s, {row['keypoints']} keypoints, "
                f"{row['host_peak_bytes'] / 1e6:.0f} MB"
            )
            with (options.out / "parts.jsonl").open("a") as file:
                file.write(json.dumps({**common, **row}) + "\n")
        if len(hashes) > 1:
            sys.exit(f"the features of {shape} must not depend on the limit, but do")


if __name__ == "__main__":
    main()
