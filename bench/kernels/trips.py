"""How often the loops and branches of each kernel run: the numbers that shapes and photographs give.

For each kernel a function gives the times of its regions (`frequencies.py`) in a launch. Figures of photographs are the
fields of `Scene`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpusift.devices import TILES

WARP = 32  # threads
ALIGNED = 4  # samples that a blur copies at once


@dataclass(frozen=True)
class Scene:
    """What an image holds: the round numbers of a photograph of 1080 x 1920 with 6,000 features, upsampled twice.

    Attributes
    ----------
    candidates, keypoints, features : float
        Of an image.
    strong, extreme : float
        Of the groups of differences that a warp of `find_extrema` looks at, two rows of 64, the fraction in which one
        reaches the threshold, and in which one is a candidate.
    orientation_side : float
        Rows of a keypoint's window in `assign_orientations`, samples.
    rows, cols : float
        Rows of a feature's window in `describe`, and columns of it in a row.
    """

    candidates: float = 10_000
    keypoints: float = 5_000
    features: float = 6_000
    strong: float = 0.32
    extreme: float = 0.04
    orientation_side: float = 22.6
    rows: float = 50.5
    cols: float = 25.4


@dataclass(frozen=True)
class Made:
    """A launch, or the part of a launch that has one radius.

    Attributes
    ----------
    kernel : str
        Its name.
    constant : int
        Its compile-time constant; a blur's radius.
    sizes : tuple of (str, int or str)
        The other macros that it is compiled for.
    grid, block : (int, int, int)
        Blocks, and threads of a block.
    numbers : mapping
        Its numbers by name.
    whole : tuple
        Of a part: `sizes` of the whole launch.
    is_first : bool
        Whether it is not a further part of a launch.
    """

    kernel: str
    constant: int
    sizes: tuple[tuple[str, int | str], ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    numbers: Mapping[str, float]
    whole: tuple[tuple[str, int | str], ...] = ()
    is_first: bool = True

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return math.prod(self.block)

    @property
    def warps(self) -> int:
        """Warps of the grid."""
        return math.prod(self.grid) * -(-self.threads // WARP)

    def share(self, entries: float) -> float:
        """Return how many of a list's entries a block takes."""
        return entries / self.grid[0]


Times = dict[str, float]


def turns(count: float, step: int, width: int = 1) -> float:
    """Return a warp's trips of a loop over `count` items by `step` threads, of which a warp has `width`: the mean."""
    starts = range(0, step, width)
    return sum(max(0, math.ceil((count - start) / step)) for start in starts) / len(starts)


def _intensities(made: Made, scene: Scene) -> Times:
    unused = (
        "INT8) scale",
        "UINT16",
        "INT16) scale",
        "UINT32",
        "INT32) scale",
        "UINT64",
        "INT64) scale",
        "FLOAT32",
        "FLOAT64",
    )
    return {
        "intensities.cu: for (int i = first; i < n_counts": 0,
        "intensities.cu: for (int i = first; i < n_rows": 0,
        "intensities.cu: for (int row = blockIdx.x": 1,
        **{f"intensities.cu: if (dtype == {name}": 0 for name in unused},
        "intensities.cu: for (int col = threadIdx.x": turns(made.numbers["cols"], made.threads, WARP),
        "intensities.cu: if (some_unfit)": 0,
    }


def _blur_tile(made: Made, rows: float, cols: float) -> Times:
    """Return the times of what both blurs do with a tile; a level of `rows` x `cols`, which may be less than a tile."""
    radius, threads = made.constant, made.threads
    tile_rows, tile_cols = TILES["BLUR_TILE_ROWS"], TILES["BLUR_TILE_COLS"]
    width = tile_cols + 2 * (-(-radius // ALIGNED) * ALIGNED)
    rows, cols = min(rows, tile_rows), min(cols, tile_cols)
    down, across = math.ceil(made.numbers["rows"] / tile_rows), math.ceil(made.numbers["cols"] / tile_cols)
    return {
        "blur.cuh: i < n_column_spans": turns(width * math.ceil(rows / TILES["BLUR_ROWS"]), threads, WARP),
        "blur.cuh: DEVICE void blur_columns_reflected(": 0,
        "blur.cuh: for (int row = tile.row_0 + threadIdx.y": min(1, 2 / across) * turns(rows, made.block[1]),
        "blur.cuh: for (int col = tile.col_0 - reach": 0.5,
        "blur.cuh: for (int col = cols + threadIdx.x": 0.5,
        "blur.cuh: i < n_row_spans": turns(
            tile_cols // (TILES["BLUR_ROW_SPAN"] * TILES["BLUR_ROW_PARTS"]) * rows, threads, WARP
        ),
        "blur.cuh: for (int i = threadIdx.y; i < Shape::copy_rows": turns(tile_rows + 2 * radius, made.block[1]),
        "blur.cuh: for (int group = threadIdx.x": 1,
        "arithmetic.cuh: while (i < 0": min(1, 2 / down),
    }


def _first_level(made: Made, scene: Scene) -> Times:
    radius, factor = made.constant, made.numbers["factor"]
    spans = (TILES["BLUR_TILE_COLS"] + 2 * radius) / factor / TILES["ENLARGED_SPAN"]
    tile = _blur_tile(made, factor * made.numbers["rows"], factor * made.numbers["cols"])
    unused = ("blur.cuh: for (int i = threadIdx.y; i < Shape::copy_rows", "blur.cuh: for (int group")
    return {
        **{key: times for key, times in tile.items() if not key.startswith(unused)},
        "scale_space.cu: for (int number = blockIdx.x": 1,
        "scale_space.cu: for (int i = threadIdx.y; i <": turns(TILES["BLUR_TILE_ROWS"] + 2 * radius, made.block[1]),
        **{f"scale_space.cu: if (factor == {n})": n == factor for n in (1, 2, 4)},
        "enlargement.cuh: for (int col = larger(first, 1)": turns(spans, made.block[0]),
        "enlargement.cuh: } else {": 1 / 30,
        "enlargement.cuh: for (int i = col; i < last": 1,
        "enlargement.cuh: if (first == 0)": 1 / 30,
        "enlargement.cuh: if (centre == 0)": 0,
        "enlargement.cuh: if (cols > 1 && end": 1 / 30,
    }


def _blur(made: Made, scene: Scene) -> Times:
    return {
        **_blur_tile(made, made.numbers["rows"], made.numbers["cols"]),
        "scale_space.cu: if (threadIdx.x == 0 && threadIdx.y == 0)": WARP / made.threads,
        "scale_space.cu: for (int row = piece.row_0": 1,
        "scale_space.cu: for (int col = piece.col_0": 1,
        "levels.cuh: for (int band = first": 3,
        "turns.cuh: while (unsigned(": 1,
    }


def _find_extrema(made: Made, scene: Scene) -> Times:
    rows, cols = TILES["EXTREMA_TILE_ROWS"], TILES["EXTREMA_TILE_COLS"]
    copied = (cols + 2 * ALIGNED) // TILES["EXTREMA_SPAN"] * (rows + 2)
    return {
        "extrema.cu: for (int number = blockIdx.x": 1,
        "extrema.cu: for (int o = 0; o < n_octaves": 1.4,
        "extrema.cu: for (int first = 1;": math.ceil(made.numbers["n_scales"] / TILES["EXTREMA_SCALES"]),
        "extrema.cu: } else {": made.numbers["n_scales"] > TILES["EXTREMA_SCALES"],
        "extrema.cu: i < n_spans": turns(copied, made.threads, WARP),
        "extrema.cu: for (int row = tile.first_row": turns(rows, made.block[1]),
        "extrema.cu: for (int col = threadIdx.x * ALIGNED": cols / (ALIGNED * made.block[0]),
        "extrema.cu: DEVICE bool mark_extrema(": scene.strong,
        "extrema.cu: auto append": scene.extreme,
    }


def _list_loop(made: Made, entries: float, file: str = "lists.cu") -> Times:
    return {f"{file}: for (int i = blockIdx.x * blockDim.x": turns(entries, made.grid[0] * made.threads, WARP)}


def _sum_counts(made: Made, scene: Scene) -> Times:
    entries = min(made.numbers["entries"], scene.candidates)
    return {
        "lists.cu: for (int i = thread; i < begin": entries / 2 / made.threads,
        "lists.cu: for (int first = begin": made.share(entries) / made.threads,
        "running_sum.cuh: for (int distance = 1": math.log2(made.threads),
    }


def _group_by_row(made: Made, scene: Scene) -> Times:
    return _list_loop(made, scene.candidates)


def _sort_rows(made: Made, scene: Scene) -> Times:
    return {**_list_loop(made, scene.candidates), "lists.cu: for (int j = first": 10}


def _keep_accepted(made: Made, scene: Scene) -> Times:
    return _list_loop(made, scene.candidates)


def _refine(made: Made, scene: Scene) -> Times:
    return {
        "refinement.cu: for (int turn = threadIdx.x": min(1.0, scene.candidates / (made.grid[0] * made.threads)),
        "refinement.cu: for (int step = 1": 1.5,
        "refinement.cu: DEVICE bool is_allowed(": 0,
        "refinement.cu: for (int i = 0; i < bytes": 0,
    }


def _window(rows: float, cols: float, made: Made) -> Times:
    across, down = made.block[:2]
    return {
        "window.cuh: for (int row = area.row_0 + threadIdx.y * BOUND_STEP": rows / (4 * down),
        "window.cuh: for (int col = first + threadIdx.x": turns(cols, across),
        "window.cuh: do {": 1,
        "window.cuh: for (int row = area.row_0; row < area.row_1; row += PATCH": 1,
        "window.cuh: for (int col = area.col_0; col < area.col_1; col += PATCH": 1,
        "window.cuh: for (int i = thread; i < whole_vectors": turns(rows, made.threads, WARP),
        "window.cuh: for (int i = thread; i < patch.row_1": turns(rows, made.threads, WARP),
        "platform.cuh: for (int row = row_0 + threadIdx.y": rows / down,
        "platform.cuh: for (int col = of_row.first": cols / across + 0.5,
    }


def _assign_orientations(made: Made, scene: Scene) -> Times:
    bins = turns(36, made.threads, WARP)
    file = "orientation.cu"
    return {
        **_window(scene.orientation_side, scene.orientation_side, made),
        f"{file}: while (true) {{\n        const int keypoint": made.share(scene.keypoints),
        f"{file}: for (int bin = thread; bin < n_bins": bins,
        f"{file}: for (int turn = 0; turn < n_smoothings": 6,
        f"{file}: for (int bin = 1 + thread": bins,
        f"{file}: for (int end = thread": 0.5,
        f"{file}: for (int other = 0; other < bin;": 18,
        f"{file}: for (int other = 0; other < n_bins": 0,
    }


def _spread_orientations(made: Made, scene: Scene) -> Times:
    return {
        **_list_loop(made, scene.keypoints, "orientation.cu"),
        "orientation.cu: for (int k = 0; k <= further": 2,
    }


def _describe(made: Made, scene: Scene) -> Times:
    file = "descriptor.cu"
    return {
        **_window(scene.rows, scene.cols, made),
        f"{file}: while (true) {{\n        const int feature": made.share(scene.features),
        "held_sums.cuh: for (int sum = thread": 900 / made.threads,
        "histograms.cuh: for (int first = thread * grid.directions": 1,
        "histograms.cuh: for (int bin = threadIdx.y": 16 / made.block[1],
        "histograms.cuh: for (int d = threadIdx.x": 1,
        f"{file}: for (int first = 0; first < n_values": 8,
        f"{file}: for (int lane = thread; lane < smaller": 0.25,
        f"{file}: for (int lane = thread; lane < SUM_LANES": 0.25,
        f"{file}: for (int v = thread": 128 / made.threads,
        f"{file}: for (int v = thread; v < n_values; v += n_threads) {{\n        const int bin": 0,
    }


def _collect(made: Made, scene: Scene) -> Times:
    entries = made.share(scene.features)
    words = entries * 128 / 4
    return {
        "collection.cu: for (int i = 0; i < z": 0,
        "collection.cu: if (blockIdx.x == 0)": 0,
        "collection.cu: for (int i = threadIdx.x; i <= n_counts": 0,
        "collection.cu: for (int i = blockIdx.x * blockDim.x": entries / made.threads,
        "collection.cu: for (long long i = begin": words / made.threads,
        "collection.cu: if (n_values % sizeof(int)) copy": 0,
    }


Function = Callable[[Made, Scene], Times]
KERNELS: dict[str, Function] = {
    "intensities": _intensities,
    "first_level": _first_level,
    "blur": _blur,
    "find_extrema": _find_extrema,
    "sum_counts": _sum_counts,
    "group_by_row": _group_by_row,
    "sort_rows": _sort_rows,
    "refine": _refine,
    "keep_accepted": _keep_accepted,
    "assign_orientations": _assign_orientations,
    "spread_orientations": _spread_orientations,
    "describe": _describe,
    "collect": _collect,
}


def times(made: Made, scene: Scene) -> Times:
    """Return the times of the regions of a launch's kernel."""
    return KERNELS[made.kernel](made, scene)
