#!/usr/bin/env python
"""Measure the host's share of a computation on a GPU, without a GPU: what Python and copies take for an image.

    python -m bench.speed.host [--out DIR] [--rounds 200]

The device does nothing (`bench.speed.null_cupy`): kernels, and CuPy's and the driver's share of a launch, a copy, an
event or a wait are left out. The row has the number of these calls for a batch. An image of 32 x 32 pixels without
features shows Python's time; one of 1080 x 1920 adds the copy of its pixels to pinned memory, and 6,000 features the
copy from there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.common import rows
from bench.speed.null_cupy import NullCupy, null_cupy
from gpusift import SIFT
from gpusift.devices.cuda import _cuda_function
from gpusift.stages import collection
from gpusift.stages.feature_lists import USABLE_FEATURES

RESULTS = Path(__file__).parents[1] / "results"
WARM_UP = 5  # calls; the second one captures the graph
GOALS = {1: 150e-6, 16: 60e-6}  # seconds of Python for an image, by the size of the batch


class Case(NamedTuple):
    """What is computed: the images' shape and number, their features, and by which call."""

    shape: tuple[int, int]
    batch: int
    features: int
    call: str


SMALL, LARGE = (32, 32), (1080, 1920)
CASES = (
    *(Case(SMALL, batch, 0, "compute_batch, on host") for batch in GOALS),
    *(Case(SMALL, batch, 0, "map") for batch in GOALS),
    Case(SMALL, 1, 0, "detect_and_extract"),
    *(Case(LARGE, batch, 0, "compute_batch, on host") for batch in GOALS),
    *(Case(LARGE, batch, 6000, "compute_batch, on host") for batch in GOALS),
)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Return a row: seconds for an image, and calls of the driver for a batch."""
    images = case.batch * [np.zeros(case.shape, np.uint8)]
    _cuda_function.cache_clear()
    try:
        with null_cupy(lambda out: _fill(out, case)) as null:
            call = _call(case, SIFT(device="cuda"), images)
            for _ in range(WARM_UP):
                call()
            null.calls.clear()
            seconds = []
            for _ in range(rounds):
                begun = time.perf_counter()
                call()
                seconds.append((time.perf_counter() - begun) / case.batch)
            return {**case._asdict(), "seconds": rows.spread(seconds), "calls": _calls(null, rounds)}
    finally:
        _cuda_function.cache_clear()  # its functions are those of the null CuPy


def _call(case: Case, sift: SIFT, images: list[np.ndarray]) -> Callable[[], Any]:
    if case.call == "map":
        return lambda: list(sift.map(images, case.batch))
    if case.call == "detect_and_extract":
        return lambda: _detected(sift, images[0])
    return lambda: sift.compute_batch(images, case.batch, on_host=True)


def _detected(sift: SIFT, image: np.ndarray) -> None:
    with suppress(RuntimeError):  # no features
        sift.detect_and_extract(image)


def _fill(out: np.ndarray, case: Case) -> None:
    """Write the header of results with so many features for each image."""
    header = collection.header_of(out, case.batch)
    header[:] = 0
    header[USABLE_FEATURES] = case.features


def _calls(null: NullCupy, rounds: int) -> dict[str, float]:
    return {kind: count / rounds for kind, count in sorted(null.calls.items())}


def shown(row: dict[str, Any]) -> str:
    """Return a row as a line for the terminal."""
    calls = ", ".join(f"{count:g} {kind}" for kind, count in row["calls"].items())
    shape, seconds = "{} x {}".format(*row["shape"]), row["seconds"]
    return (
        f"{row['call']:24} batch {row['batch']:2}  {shape:11}  {row['features']:5} features  "
        f"{seconds['median'] * 1e6:7.1f} us (least {seconds['min'] * 1e6:.1f})  a batch: {calls}"
    )


def main() -> None:
    """Measure all cases, print them and append their rows to `host.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the rows")
    parser.add_argument("--rounds", type=int, default=200, help="timed calls of a case")
    options = parser.parse_args()
    common = rows.provenance()
    for case in CASES:
        row = measure(case, options.rounds)
        rows.append(options.out / "host.jsonl", {**common, **row})
        rows.say(shown(row))


if __name__ == "__main__":
    main()
