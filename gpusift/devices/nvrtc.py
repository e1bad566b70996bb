"""The options with which NVRTC compiles a kernel."""

from __future__ import annotations

import numpy as np

from gpusift.devices import kernel_sources
from gpusift.devices.device import Sizes
from gpusift.parameters import MAX_FUSED_RADIUS

# Sizes that a GPU's kernels receive as -D: a block's tile of samples or descriptors, and the side of a window's patch.
# The host's own are in kernels/host/platform.hpp.
TILES = {
    "BLUR_TILE_ROWS": 32,
    "BLUR_TILE_COLS": 96,
    "BLUR_ROWS": 8,
    "BLUR_COLUMN_SPAN": 1,
    "BLUR_ROW_SPAN": 4,
    "BLUR_ROW_PARTS": 3,
    "ENLARGED_SPAN": 4,
    "EXTREMA_TILE_ROWS": 16,
    "EXTREMA_TILE_COLS": 32,
    "EXTREMA_SCALES": 3,
    "EXTREMA_SPAN": 4,
    "MATCH_STRIPS": 32,
    "MATCH_VECTORS": 4,
    "MATCH_GROUPS": 4,
    "MATCH_OTHERS": 8,
    "MATCH_BYTES": 128,
    "MATCH_PADDING": 4,
    "MATCH_OTHERS_ADJACENT": 1,
    "MAX_FUSED_RADIUS": MAX_FUSED_RADIUS,
    "PATCH": 96,
}

# Those that differ in double precision, whose samples take twice the shared memory. Grids are made for the tiles above;
# where there are more tiles than blocks, a block takes several.
TILES_FLOAT64 = {"BLUR_TILE_COLS": 48}

# Blurs of a larger radius have lower tiles, as their halo takes most of the shared memory.
WIDE_RADIUS = 64
WIDE_TILES = {"BLUR_TILE_ROWS": 8}

# Registers of a thread, at most, in single precision, where more blocks at once are worth the few values that spill. On
# an H200 `describe` takes 83 % of the time that it takes with 91, `assign_orientations` 87 % (bench/NOTES.md).
MAX_REGISTERS = {"describe": 64, "describe_pooled": 64, "assign_orientations": 64}

# CuPy adds -ftz=true; contraction is off so that a product and a sum round as they do on a CPU.
OPTIONS = ("-std=c++17", "--fmad=false")


def definitions(name: str, dtype: np.dtype, constant: int = 0, sizes: Sizes | None = None) -> tuple[str, ...]:
    """NVRTC's options for a kernel: the precision, the tiles, the arrays' sizes and the constant, sorted."""
    kernel = kernel_sources.kernels()[name]
    tiles = {**TILES, **TILES_FLOAT64} if dtype == np.float64 else TILES
    values: dict[str, int | str] = {**tiles, **DEFAULT_SIZES, **(sizes or {})}
    if max(map(int, str(values["BLUR_RADII"]).split(","))) > WIDE_RADIUS:
        values |= WIDE_TILES
    values["REAL"] = "float" if dtype == np.float32 else "double"
    for other in kernel_sources.kernels().values():  # the file's other kernels must compile too
        if other.constant and other.stage == kernel.stage:
            values[other.constant] = constant if other.constant == kernel.constant else 1
    used = kernel_sources.text(kernel.stage)
    limits = (f"--maxrregcount={MAX_REGISTERS[name]}",) if name in MAX_REGISTERS and dtype == np.float32 else ()
    return OPTIONS + limits + tuple(f"-D{key}={value}" for key, value in sorted(values.items()) if key in used)


# The sizes of shared arrays with scikit-image's default parameters; the radii of a launch that blurs nothing.
DEFAULT_SIZES: Sizes = {"MAX_BINS": 36, "MAX_SUMS": 900, "MAX_VALUES": 128, "MAX_POOLED": 128, "BLUR_RADII": "1"}
