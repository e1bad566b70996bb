#!/usr/bin/env python
"""Time brute-force matching by gpusift, OpenCV and scikit-image; keep one JSON row per measurement.

    python -m bench.speed.matching [--engines a,b] [--out DIR] [--quick]

The input is two sets of random descriptors like SIFT's (128 bytes), a fifth of which correspond. There are two tasks:
the two nearest neighbours and the ratio test ("one way"), and the same with a cross-check ("both ways"). Every engine's
matches are compared with gpusift's on the CPU before anything is timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import machine, rows
from bench.common.rows import say, spread

SIZES = (2_000, 10_000, 50_000)
QUICK_SIZES = SIZES[:1]
SKIMAGE_LIMIT = 10_000  # descriptors a side: scikit-image stores the distances of all pairs, 8 bytes each
MAX_RATIO = 0.8
SETTLE_S = 0.1  # pause before a call, in which another call's threads stop spinning
REFERENCE = "gpusift-cpu"

Call = Callable[[], Any]


def descriptors(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two (n, 128) sets of uint8; a fifth of the second set is the first's with noise."""
    rng = np.random.default_rng(n)
    first, second = (np.minimum(rng.gamma(0.6, 20, (n, 128)), 255).astype(np.uint8) for _ in range(2))
    noise = rng.integers(-6, 7, (n // 5, 128))
    second[: n // 5] = np.clip(first[: n // 5] + noise, 0, 255)
    return first, second


def gpusift(device: str, first: np.ndarray, second: np.ndarray, both_ways: bool) -> Call:
    """Return a call of gpusift's matcher that returns (Q, 2) matches."""
    from gpusift.matching import match

    return lambda: match(first, second, max_ratio=MAX_RATIO, cross_check=both_ways, device=device).indices


def opencv(first: np.ndarray, second: np.ndarray, both_ways: bool) -> Call:
    """Return a call of OpenCV's matcher, with float32 descriptors as from its SIFT."""
    import cv2

    matcher = cv2.BFMatcher(cv2.NORM_L2)
    sets = first.astype(np.float32), second.astype(np.float32)

    def call() -> np.ndarray:
        pairs = matcher.knnMatch(*sets, k=2)
        good = [(m.queryIdx, m.trainIdx) for m, n in pairs if m.distance < MAX_RATIO * n.distance]
        if both_ways:
            back = [m.trainIdx for m in matcher.match(*sets[::-1])]
            good = [(i, j) for i, j in good if back[j] == i]
        return np.array(good, np.int64).reshape(-1, 2)

    return call


def scikit_image(first: np.ndarray, second: np.ndarray, both_ways: bool) -> Call:
    """Return a call of scikit-image's matcher."""
    from skimage.feature import match_descriptors

    return lambda: match_descriptors(first, second, cross_check=both_ways, max_ratio=MAX_RATIO)


def on_the_gpu(first: np.ndarray, second: np.ndarray, both_ways: bool) -> Call:
    """Return a call of gpusift's with descriptors and matches on the GPU, which synchronizes."""
    import cupy

    call = gpusift("cuda", cupy.asarray(first), cupy.asarray(second), both_ways)

    def synchronized() -> None:
        call()
        cupy.cuda.get_current_stream().synchronize()

    return synchronized


ENGINES: dict[str, tuple[Callable[..., Call], str]] = {
    "gpusift-cpu": (lambda *sets: gpusift("cpu", *sets), "gpusift.matching.match(device='cpu'), all cores"),
    "gpusift-cuda": (lambda *sets: gpusift("cuda", *sets), "gpusift.matching.match(device='cuda'), host arrays"),
    "opencv": (opencv, "BFMatcher(NORM_L2).knnMatch(k=2), float32, all cores"),
    "scikit-image": (scikit_image, "match_descriptors, one core"),
}


def reason_to_skip(engine: str, n: int) -> str | None:
    """Return why an engine does not run with `n` descriptors a side, or None."""
    if engine == "gpusift-cuda":
        from gpusift.devices import cuda_info

        return cuda_info().get("error")
    if engine == "scikit-image" and n > SKIMAGE_LIMIT:
        return f"it would store {8e-9 * n * n:.0f} GB of distances"
    return None


def timed(call: Call, rounds: int, budget: float) -> tuple[list[float], list[float]]:
    """Return the seconds of calls, at least one, and their processor time."""
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    while not seconds or (len(seconds) < rounds and sum(seconds) < budget):
        time.sleep(SETTLE_S)
        start, cpu_start = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def measure(engine: str, n: int, both_ways: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one engine and task."""
    made, settings = ENGINES[engine]
    row = {
        "case": f"{n} x {n}, {'both ways' if both_ways else 'one way'}",
        "descriptors": [n, n],
        "cross_check": both_ways,
        "engine": engine,
    }
    reason = reason_to_skip(engine, n)
    if reason:
        return row | {"skipped": reason}
    sets = descriptors(n)
    call = made(*sets, both_ways)
    expected = gpusift("cpu", *sets, both_ways)()
    start = time.perf_counter()
    found = call()
    first = time.perf_counter() - start
    if not np.array_equal(found, expected):
        sys.exit(
            f"{row['case']}: {engine} must find the {len(expected)} matches of {REFERENCE}, got {len(found)}. "
            "Not timed: run the tests first."
        )
    seconds, cpu_seconds = timed(call, options.rounds, options.budget)
    row |= {
        "settings": settings,
        "matches": len(found),
        "first_call_seconds": first,
        "seconds": {**spread(seconds), "warm_up_calls": 1},
        "cpu_seconds": float(np.median(cpu_seconds)),
    }
    if engine == "gpusift-cuda":
        call = on_the_gpu(*sets, both_ways)
        call()
        row["device_seconds"] = spread(timed(call, options.rounds, options.budget)[0])
    return row


def summary(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    if "skipped" in row:
        return f"{row['case']:27} {row['engine']:13} skipped: {row['skipped']}"
    times = row["seconds"]
    return (
        f"{row['case']:27} {row['engine']:13} {times['median'] * 1e3:9.1f} ms "
        f"({times['q1'] * 1e3:.1f} to {times['q3'] * 1e3:.1f}, n={times['n']})  {row['matches']:6d} matches"
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma-separated")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--rounds", type=int, default=11, help="timed calls of an engine")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds of timed calls")
    parser.add_argument("--quick", action="store_true", help="the smallest sets, few calls")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    unknown = sorted(set(options.engines) - set(ENGINES))
    if unknown:
        parser.error(f"--engines must be among {', '.join(ENGINES)}; got {unknown[0]!r}")
    return options


def main() -> None:
    """Measure all sizes and append their rows to the file of today and of this machine."""
    options = arguments()
    if options.quick:
        options.rounds, options.budget = 3, 2.0
    common = rows.provenance(standard=not options.quick and set(options.engines) == set(ENGINES))
    path = rows.path_of(options.out, common, "matching-")
    for n in QUICK_SIZES if options.quick else SIZES:
        for both_ways in (False, True):
            for engine in options.engines:
                row = measure(engine, n, both_ways, options)
                say(summary(row))
                rows.append(path, {**common, **row})
    say(f"rows: {path}")


if __name__ == "__main__":
    main()
