#!/usr/bin/env python
"""Compare shapes of a block of the descriptor's kernel, counted on real keypoints and measured on a GPU.

    python -m bench.kernels.shapes [--keypoints 80] [--write]

The threads of a warp go through a window in lockstep. The table has, for a keypoint of a photograph of scikit-image's:

- turns: the steps of all warps, and the fraction of their threads that have a sample in a step;
- passes: shared memory has 32 banks, each of which serves one address at a time, so an addition takes as many passes as
  threads address the same bank; on paper the most expensive part of the kernel;
- lines: the cache lines of 128 bytes that the loads of gradients touch.

There are three choices besides the shape: neighbouring threads take neighbouring samples or stretches of a row; a
thread holds its sum while the cell stays the same, or not; the sums of one cell lie together, or those of one kind. On
a GPU the stages are also timed with each shape. --write keeps the counts in results/shapes.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.common import machine, photographs
from bench.common.tables import table
from bench.kernels.roofline import cuda_clock, measured
from gpusift import SIFT
from gpusift.stages import descriptor, orientation, scale_space

KEPT = machine.RESULTS / "shapes.md"
WARP = 32
BANKS = 32
LINE = 32  # samples
PARTS = 8  # sums that a sample adds to
LOADS = 3  # rows that a gradient reads
SHAPES = ((32, 4), (16, 8), (8, 8), (8, 16), (4, 32))
MEASURED = (*SHAPES, (32, 2), (16, 4), (32, 8), (16, 16))

HEAD = """# Shapes of the descriptor's blocks

Written by `python -m bench.kernels.shapes --write`, which says what is counted: means over {n} keypoints of a
photograph of {rows} x {cols} pixels. Nothing here was measured on a GPU. The kernel's row is "{chosen}".

"""


@dataclass(frozen=True)
class Window:
    """A keypoint's window: for each sample the cell that it adds to, 0 to n_cells - 1, or -1 outside."""

    cells: np.ndarray
    n_cells: int

    def spans(self) -> list[tuple[int, int]]:
        """Return the first column of each row of the window, and the column behind its last."""
        inside = self.cells >= 0
        first = np.where(inside.any(1), inside.argmax(1), 0)
        last = np.where(inside.any(1), inside.shape[1] - inside[:, ::-1].argmax(1), 0)
        return list(zip(first.tolist(), last.tolist()))


@dataclass(frozen=True)
class Way:
    """How a block traverses a window: its threads along a row and across rows, and the three choices."""

    shape: tuple[int, int]
    stretches: bool = True
    holds: bool = True
    apart: bool = True

    @property
    def name(self) -> str:
        """A short name of the way."""
        taken = "stretches" if self.stretches else "neighbours"
        sums = "sums apart" if self.apart else "sums together"
        return f"{self.shape[0]} x {self.shape[1]}, {taken}, {'held' if self.holds else 'not held'}, {sums}"


@dataclass
class Count:
    """The counts of a keypoint; the module's docstring defines them."""

    turns: int = 0
    samples: int = 0
    additions: int = 0
    passes: int = 0
    lines: int = 0


CHOSEN = Way(descriptor.BLOCK)


def windows(n: int) -> tuple[list[Window], tuple[int, int]]:
    """Return the windows of n keypoints, drawn from all of a photograph, and its shape."""
    image = photographs.standard(None)[0].load()
    sift = SIFT(device="cpu")
    features = sift.compute(image)
    space = scale_space.build(sift.device, np.float32(image) / 255, sift.parameters)
    drawn = np.random.default_rng(0).choice(len(features), min(n, len(features)), replace=False)
    return [window(space, features, int(i), sift.parameters) for i in drawn], image.shape


def window(space: Any, features: Any, i: int, parameters: Any) -> Window:
    """Return a keypoint's window, as kernels/descriptor.cu computes it, in double precision."""
    n_hist, n_ori = parameters.n_hist, parameters.n_ori
    octave = int(features.octaves[i])
    level = space.octave(octave)[int(features.scales[i])].astype(float)
    delta, turn = parameters.delta_min * 2.0**octave, float(features.orientations[i])
    centre, sigma = features.positions[i] / delta, float(features.sigmas[i] / delta)
    half = parameters.lambda_descr * sigma * (n_hist + 1) / n_hist
    low = np.maximum(centre - np.sqrt(2) * half + 0.5, 0).astype(int)
    high = np.minimum(centre + np.sqrt(2) * half + 0.5, np.array(level.shape) - 1).astype(int)
    part = slice(low[0], high[0]), slice(low[1], high[1])
    by_row, by_col = (gradient[part] for gradient in np.gradient(level))
    away_row, away_col = np.mgrid[part] - centre[:, np.newaxis, np.newaxis]
    turned = np.array(
        [np.cos(turn) * away_row + np.sin(turn) * away_col, np.cos(turn) * away_col - np.sin(turn) * away_row]
    )
    place = turned * n_hist / (2 * parameters.lambda_descr * sigma) + (n_hist + 1) / 2
    row, col = np.clip(place.astype(int), 0, n_hist)
    direction = ((np.arctan2(by_col, by_row) - turn) % (2 * np.pi) * n_ori / (2 * np.pi)).astype(int) % n_ori
    cells = (row * (n_hist + 1) + col) * (n_ori + 1) + direction
    inside = (np.abs(turned) < half).all(0)
    return Window(np.where(inside, cells, -1), (n_hist + 1) ** 2 * (n_ori + 1))


def walks(way: Way, window: Window) -> Iterator[list[tuple[int, int]]]:
    """Yield the samples of each thread, in its order."""
    across, down = way.shape
    spans = window.spans()
    for y in range(down):
        for x in range(across):
            walk = []
            for row in range(y, len(spans), down):
                first, last = spans[row]
                stretch = -(-(last - first) // across)
                begin = first + x * stretch
                cols = range(begin, min(begin + stretch, last)) if way.stretches else range(first + x, last, across)
                walk += [(row, col) for col in cols]
            yield walk


def count(way: Way, window: Window) -> Count:
    """Return the counts of one keypoint."""
    found = Count()
    threads = list(walks(way, window))
    for first in range(0, len(threads), WARP):
        warp = threads[first : first + WARP]
        held = [-1] * len(warp)
        turns = max(map(len, warp))
        found.turns += turns
        for turn in range(turns + 1):  # the last turn adds the sums still held
            added, lines = [], set()
            for thread, walk in enumerate(warp):
                cell = -1
                if turn < len(walk):
                    row, col = walk[turn]
                    lines.add((row, col // LINE))
                    cell = int(window.cells[row, col])
                    found.samples += cell >= 0
                    if cell < 0:
                        continue
                if way.holds:
                    cell, held[thread] = held[thread], cell
                    if cell == held[thread]:
                        continue
                if cell >= 0:
                    added.append(cell)
            found.lines += LOADS * len(lines)
            if added:
                found.additions += PARTS
                found.passes += passes(np.array(added), way, window.n_cells)
    return found


def passes(cells: np.ndarray, way: Way, n_cells: int) -> int:
    """Return the passes of the additions of one warp's threads to `cells`."""
    kinds, directions = np.arange(PARTS) % 4, np.arange(PARTS) // 4
    if way.apart:
        places = kinds * n_cells + cells[:, np.newaxis] + directions
    else:
        places = 4 * cells[:, np.newaxis] + np.arange(PARTS)
    return sum(int(np.bincount(places[:, part] % BANKS).max()) for part in range(PARTS))


def ways() -> list[Way]:
    """Return the ways to compare: the former one, then one choice after the other, then shapes."""
    plain = Way((32, 4), stretches=False, holds=False, apart=False)
    apart = Way((32, 4), stretches=False, holds=False)
    stretched = Way((32, 4), holds=False)
    return [plain, apart, stretched, *(Way(shape) for shape in SHAPES)]


def counted_table(n: int) -> list[str]:
    """Return the table of counts."""
    found, shape = windows(n)
    lines = []
    for way in ways():
        total = Count()
        for one in found:
            counted = count(way, one)
            for name in vars(total):
                setattr(total, name, getattr(total, name) + getattr(counted, name))
        per = len(found)
        lines.append(
            [
                way.name,
                f"{total.turns / per:.0f}",
                f"{total.samples / (WARP * total.turns):.0%}",
                f"{total.additions / per:.0f}",
                f"{total.passes / per:.0f}",
                f"{total.lines / per:.0f}",
            ]
        )
    head = HEAD.format(n=per, rows=shape[0], cols=shape[1], chosen=CHOSEN.name)
    return [
        head.rstrip("\n"),
        "",
        *table(["threads, and how", "turns", "threads used", "additions", "passes", "lines"], lines),
    ]


def on_gpu() -> list[str]:
    """Return the table of the stages' times with each shape, or the reason why they cannot be measured."""
    from gpusift.pipeline.key import Key
    from gpusift.stages.intensities import Image

    try:
        sift = SIFT(device="cuda")
    except RuntimeError as error:
        return [f"Not measured: {error}"]
    image = photographs.standard(None)[0].load()
    lines = []
    chosen = descriptor.BLOCK, orientation.BLOCK
    try:
        for shape in MEASURED:
            descriptor.BLOCK = orientation.BLOCK = shape
            sift = SIFT(device="cuda")
            images = [Image(image)]
            key = Key.of(images)
            with sift.plans.memory(key) as memory:
                plan = memory.plan(key)
                memory.load_batch(plan, images)
            seconds = measured(plan, *cuda_clock())
            names = ("assign_orientations", "describe")
            lines.append([f"{shape[0]} x {shape[1]}", *(f"{seconds[name] * 1e6:.1f}" for name in names)])
    finally:
        descriptor.BLOCK, orientation.BLOCK = chosen
    return table(["threads", "assign_orientations, microseconds", "describe, microseconds"], lines)


def main() -> None:
    """Print the tables; with --write, keep the table of counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keypoints", type=int, default=80, help="of the photograph, to be counted")
    parser.add_argument("--write", action="store_true", help="keep the table in bench/results/shapes.md")
    options = parser.parse_args()
    text = "\n".join(counted_table(options.keypoints))
    print(text)
    if options.write:
        KEPT.write_text(text)
    print("\n".join(on_gpu()))


if __name__ == "__main__":
    main()
