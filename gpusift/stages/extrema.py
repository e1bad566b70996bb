"""Candidates: extrema of the difference of Gaussians (Otero & Delbracio 2014, Alg. 4 and 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import TILES, Device
from gpusift.parameters import EXTREMUM_SHARE, Parameters
from gpusift.stages.feature_lists import (
    CANDIDATES,
    FOUND,
    LIST_BLOCK,
    USABLE_CANDIDATES,
    FeatureLists,
    allocate,
    grid_of,
    sum_counts,
)
from gpusift.stages.scale_space import ScaleSpace, Step

BLOCK = (32, 8)
SAMPLES_PER_CANDIDATE = 256  # of the scale space's first level; a list that proves too short is made anew


def steps(device: Device, space: ScaleSpace, parameters: Parameters, lists: FeatureLists) -> list[Step]:
    """What finds the candidates of all octaves and puts them in scikit-image's order, into `lists.keys`.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    parameters : Parameters
        n_scales and c_dog matter here.
    lists : FeatureLists
        Empty.
    """
    counts, grid, keys, grouped = lists.counts, grid_of(device, lists), lists.keys, lists.grouped
    levels = space.levels, space.stride, space.octaves, len(space.shapes), parameters.n_scales
    threshold = EXTREMUM_SHARE * parameters.final_c_dog
    found = lists.capacity, space.n_rows, counts[FOUND], lists.row_counts, keys
    usable, room = counts[USABLE_CANDIDATES], (lists.capacity, space.octaves, space.n_rows, lists.row_offsets)
    return [
        device.prepare("find_extrema", (_n_tiles(space), 1, space.batch), BLOCK, *levels, threshold, *found),
        sum_counts(device, lists, lists.row_counts, lists.n_rows, lists.starts, lists.row_offsets, CANDIDATES),
        device.prepare("group_by_row", grid, LIST_BLOCK, keys, usable, *room, lists.row_counts, grouped),
        device.prepare("sort_rows", grid, LIST_BLOCK, grouped, usable, *room, keys),
    ]


def find(device: Device, space: ScaleSpace, parameters: Parameters, capacity: int | None = None) -> Any:
    """The candidates of all octaves of one image, in scikit-image's order.

    Parameters
    ----------
    device, space, parameters
        As in `steps`.
    capacity : int, optional
        Candidates to make room for at first. If there are more, the kernels run again with room for all.

    Returns
    -------
    keys : (N,) array of int64
        Packed octave, row, column and scale, ascending; see `unpack`.
    """
    if not space.shapes:
        return device.xp.empty(0, np.int64)
    room = capacity_for(space.shapes[0]) if capacity is None else max(capacity, 1)
    while True:
        lists = allocate(device, parameters, 1, room, space.n_rows)
        device.program(steps(device, space, parameters, lists))()
        found = int(lists.counts[FOUND, 0])
        if found <= room:
            return lists.keys[0, :found]
        room = found


def capacity_for(first_shape: tuple[int, int]) -> int:
    """Candidates to make room for at first, by the shape of the first octave."""
    return first_shape[0] * first_shape[1] // SAMPLES_PER_CANDIDATE + 1024


def unpack(keys: Any) -> tuple[Any, Any, Any, Any]:
    """The octave, row, column and scale of candidates, each an (N,) array of int64."""
    side = (1 << 26) - 1
    return keys >> 58, keys >> 32 & side, keys >> 6 & side, keys & 63


def _n_tiles(space: ScaleSpace) -> int:
    tile_rows, tile_cols = TILES["EXTREMA_TILE_ROWS"], TILES["EXTREMA_TILE_COLS"]
    return sum(-(-rows // tile_rows) * -(-cols // tile_cols) for rows, cols in space.shapes)
