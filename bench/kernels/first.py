#!/usr/bin/env python
"""Take the first measurements on a GPU: the graph, whole calls, and each kernel.

    python -m bench.kernels.first [--device cuda] [--shape 1080 1920] [--batch 16] [--calls 30] [--out DIR]

A mosaic of photographs, upsampled twice. The most valuable measurement comes first, and each row is written when it is
measured. A row has the prediction for an H100, which was made without a GPU from counted instructions
(bench/NOTES.md), beside the measurement: seconds for an image.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.common import machine, photographs, rows
from bench.kernels.roofline import cuda_clock, measured
from gpusift import SIFT
from gpusift.pipeline.key import Key
from gpusift.stages.intensities import Image

WARM_UP = 5  # calls; the second one captures a graph
SHAPE, BATCH = (1080, 1920), 16

# Microseconds of an H100 for an image of 1080 x 1920 with 6,000 features: at least, at most.
PREDICTED = {
    ("graph", 16): (450, 550),
    ("graph", 1): (550, 750),
    ("map", 16): (450, 650),
    ("compute_batch, host to host", 1): (800, 1100),
    ("compute_batch, host to host", 16): (650, 900),
    ("first_level and blurs", 16): (190, 300),
    ("find_extrema", 16): (80, 130),
    ("describe", 16): (90, 140),
    ("assign_orientations", 16): (20, 40),
    ("intensities", 16): (3, 6),
    ("collect", 16): (2, 6),
}
BLURS = ("first_level", "blur")


class Measurement(NamedTuple):
    """What was measured: its name, the number of images at once, and the seconds for an image, call by call."""

    name: str
    batch: int
    seconds: list[float]


class Clock(NamedTuple):
    """A clock of the device: `mark` returns a point in time, `between` the seconds from one to another."""

    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]


def measurements(sift: SIFT, shape: tuple[int, int], batch: int, calls: int) -> Iterator[Measurement]:
    """Measure, the most valuable first; an iterator, so that each is kept before the next begins."""
    picture = photographs.mosaic(*shape)
    images = [np.roll(picture, 16 * n, axis=1) for n in range(batch)]
    clock = Clock(*cuda_clock()) if sift.device.cuda_index is not None else Clock(time.perf_counter, _difference)
    for several in (images, images[:1]):
        yield _graph(sift, several, clock, calls)
    yield _timed("map", batch, 4 * batch, calls, lambda: list(sift.map(4 * images, batch)))
    for several in (images[:1], images):
        n = len(several)
        call = _batch(sift, several)
        yield _timed("compute_batch, host to host", n, n, calls, call)
    yield from _kernels(sift, images, clock)


def _difference(start: float, end: float) -> float:
    return end - start


def _graph(sift: SIFT, images: list[np.ndarray], clock: Clock, calls: int) -> Measurement:
    """The plan of a batch, whose images are on the device."""
    key = Key.of([Image(image) for image in images])
    seconds = []
    with sift.device.active(), sift.plans.memory(key) as memory:
        plan = memory.plan(key)
        memory.load_batch(plan, [Image(image) for image in images])
        for call in range(WARM_UP + calls):
            start = clock.mark()
            plan.run()
            end = clock.mark()
            if call >= WARM_UP:
                seconds.append(clock.between(start, end) / len(images))
    return Measurement("graph", len(images), seconds)


def _batch(sift: SIFT, images: list[np.ndarray]) -> Callable[[], Any]:
    return lambda: sift.compute_batch(images, len(images), on_host=True)


def _timed(name: str, batch: int, n_images: int, calls: int, call: Callable[[], Any]) -> Measurement:
    """Time a call for `n_images` on the host."""
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        seconds.append((time.perf_counter() - begun) / n_images)
    return Measurement(name, batch, seconds)


def _kernels(sift: SIFT, images: list[np.ndarray], clock: Clock) -> Iterator[Measurement]:
    """The kernels of a batch, launch by launch; the blurs together."""
    key = Key.of([Image(image) for image in images])
    with sift.device.active(), sift.plans.memory(key) as memory:
        plan = memory.plan(key)
        memory.load_batch(plan, [Image(image) for image in images])
        together: dict[str, float] = defaultdict(float)
        for kernel, seconds in measured(plan, *clock).items():
            together["first_level and blurs" if kernel in BLURS else kernel] += seconds / len(images)
    for name, seconds in together.items():
        yield Measurement(name, len(images), [seconds])


def row_of(measurement: Measurement, is_default: bool) -> dict[str, Any]:
    """Return a row, with the prediction if it was made for these images."""
    name, batch, seconds = measurement
    predicted = PREDICTED.get((name, batch)) if is_default else None
    row: dict[str, Any] = {"measurement": name, "batch": batch, "seconds": rows.spread(seconds)}
    return {**row, "predicted_h100_seconds": [bound * 1e-6 for bound in predicted]} if predicted else row


def shown(row: dict[str, Any]) -> str:
    """Return a row as a line for the terminal."""
    line = f"{row['measurement']:28} batch {row['batch']:2}  {row['seconds']['median'] * 1e6:9.1f} us an image"
    if "predicted_h100_seconds" in row:
        least, most = (bound * 1e6 for bound in row["predicted_h100_seconds"])
        line += f" (an H100 was predicted to take {least:.0f} to {most:.0f})"
    return line


def main() -> None:
    """Measure, and append each row to `first.jsonl` at once."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--shape", type=int, nargs=2, default=SHAPE, metavar=("ROWS", "COLS"))
    parser.add_argument("--batch", type=int, default=BATCH, help="images at once")
    parser.add_argument("--calls", type=int, default=30, help="timed calls of a measurement")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder of the rows")
    options = parser.parse_args()
    sift = SIFT(device=options.device)
    common = rows.provenance(device=options.device, shape=list(options.shape))
    is_default = tuple(options.shape) == SHAPE and options.device != "cpu"
    for measurement in measurements(sift, tuple(options.shape), options.batch, options.calls):
        row = row_of(measurement, is_default)
        rows.append(options.out / "first.jsonl", {**common, **row})
        rows.say(shown(row))


if __name__ == "__main__":
    main()
