#!/usr/bin/env python
"""Take the first measurements on a GPU: the graph, whole calls, the host's copies, and each kernel.

    python -m bench.kernels.first [--device cuda] [--shape ROWS COLS | --image PATH] [--batch 16] [--calls 30]

A mosaic of photographs, or one photograph in grey, upsampled twice. The most valuable measurement comes first, and each
row is written when it is measured: seconds for an image, and the features of an image. Memory that a call returns is
freed within its time.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.common import machine, photographs, rows
from bench.kernels.roofline import cuda_clock, measured
from gpusift import SIFT
from gpusift.pipeline.key import Key
from gpusift.pipeline.plan import Memory, Plan
from gpusift.pipeline.results import outcomes_of, start_copy
from gpusift.stages.intensities import Image

WARM_UP = 5  # calls; the second one captures a graph
SHAPE, BATCH = (1080, 1920), 16
MAP_BATCHES = 12  # the first upload and the last download overlap with nothing
BLURS = ("first_level", "blur")


class Measurement(NamedTuple):
    """What was measured: its name, the number of images at once, and the seconds for an image, call by call."""

    name: str
    batch: int
    seconds: list[float]

    def row(self, counts: Sequence[int]) -> rows.Row:
        """Return a row, with the features of an image; `counts` are those of each image of the largest batch."""
        features = round(sum(counts[: self.batch]) / self.batch)
        return {
            "measurement": self.name,
            "batch": self.batch,
            "features": features,
            "seconds": rows.spread(self.seconds),
        }


class Clock(NamedTuple):
    """A clock of the device: `mark` returns a point in time, `between` the seconds from one to another."""

    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]


def images_of(picture: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return a batch of images: a picture, rotated by some columns more from image to image."""
    return [np.roll(picture, 16 * n, axis=1) for n in range(batch)]


def measurements(sift: SIFT, images: list[np.ndarray], calls: int) -> Iterator[Measurement]:
    """Measure, the most valuable first; an iterator, so that each is kept before the next begins."""
    batch = len(images)
    clock = Clock(*cuda_clock()) if sift.device.cuda_index is not None else Clock(time.perf_counter, _difference)
    for several in (images, images[:1]):
        yield _graph(sift, several, clock, calls)
    many = MAP_BATCHES * images
    yield _timed("map", batch, len(many), -(-calls // 6), lambda: list(sift.map(many, batch)), warm_up=1)
    for several in (images[:1], images):
        n = len(several)
        call = _batch(sift, several)
        yield _timed("compute_batch, host to host", n, n, calls, call)
    yield from _copies(sift, images, calls)
    yield from _kernels(sift, images, clock)


def _difference(start: float, end: float) -> float:
    return end - start


@contextmanager
def _loaded(sift: SIFT, images: list[np.ndarray]) -> Iterator[tuple[Memory, Plan]]:
    """The plan of a batch, whose images are on the device, and its memory."""
    opened = [Image(image) for image in images]
    key = Key.of(opened)
    with sift.device.active(), sift.plans.memory(key) as memory:
        plan = memory.plan(key)
        memory.load_batch(plan, opened)
        yield memory, plan


def _graph(sift: SIFT, images: list[np.ndarray], clock: Clock, calls: int) -> Measurement:
    """The graph of a batch, without copies."""
    seconds = []
    with _loaded(sift, images) as (_, plan):
        for call in range(WARM_UP + calls):
            start = clock.mark()
            plan.run()
            end = clock.mark()
            if call >= WARM_UP:
                seconds.append(clock.between(start, end) / len(images))
    return Measurement("graph", len(images), seconds)


def _batch(sift: SIFT, images: list[np.ndarray]) -> Callable[[], Any]:
    return lambda: sift.compute_batch(images, len(images), on_host=True)


def _timed(
    name: str, batch: int, n_images: int, calls: int, call: Callable[[], Any], warm_up: int = WARM_UP
) -> Measurement:
    """Time a call for `n_images` on the host."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        seconds.append((time.perf_counter() - begun) / n_images)
    return Measurement(name, batch, seconds)


def _copies(sift: SIFT, images: list[np.ndarray], calls: int) -> Iterator[Measurement]:
    """What the host does for a batch, and the device's copies, when nothing is computed."""
    opened, n = [Image(image) for image in images], len(images)
    with _loaded(sift, images) as (memory, plan):

        def upload() -> None:
            memory.load_batch(plan, opened)
            sift.device.synchronize()

        def download() -> Any:
            return outcomes_of(memory, plan, opened, start_copy(memory, plan, on_host=True), on_host=True)

        yield _timed("upload", n, n, calls, upload)
        plan.run()
        yield _timed("download and copy", n, n, calls, download)


def _kernels(sift: SIFT, images: list[np.ndarray], clock: Clock) -> Iterator[Measurement]:
    """The kernels of a batch, launch by launch; the blurs together."""
    together: dict[str, float] = defaultdict(float)
    with _loaded(sift, images) as (_, plan):
        for kernel, seconds in measured(plan, *clock).items():
            together["first_level and blurs" if kernel in BLURS else kernel] += seconds / len(images)
    for name, seconds in together.items():
        yield Measurement(name, len(images), [seconds])


def shown(row: rows.Row) -> str:
    """Return a row as a line for the terminal."""
    median = row["seconds"]["median"] * 1e6
    return f"{row['measurement']:28} batch {row['batch']:2}  {row['features']:6} features  {median:9.1f} us an image"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and append each row to `first.jsonl` at once."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--shape", type=int, nargs=2, default=SHAPE, metavar=("ROWS", "COLS"), help="of the mosaic")
    source.add_argument("--image", type=Path, metavar="PATH", help="a photograph, in place of the mosaic")
    parser.add_argument("--batch", type=int, default=BATCH, help="images at once")
    parser.add_argument("--calls", type=int, default=30, help="timed calls of a measurement; of map, a sixth")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder of the rows")
    options = parser.parse_args(arguments)
    case = photographs.Case("", options.image or tuple(options.shape))
    images = images_of(case.load(), options.batch)
    sift = SIFT(device=options.device)
    counts = [len(features) for features in sift.compute_batch(images, options.batch)]
    common = rows.provenance(device=options.device, image=case.image, shape=list(images[0].shape))
    for measurement in measurements(sift, images, options.calls):
        row = measurement.row(counts)
        rows.append(options.out / "first.jsonl", {**common, **row})
        rows.say(shown(row))


if __name__ == "__main__":
    main()
