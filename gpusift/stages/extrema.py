"""Candidates: extrema of the difference of Gaussians (Otero & Delbracio 2014, Alg. 4 and 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.parameters import EXTREMUM_FRACTION, Parameters
from gpusift.stages.feature_lists import CANDIDATES, FOUND, LIST_BLOCK, USABLE_CANDIDATES, allocate, sum_counts
from gpusift.stages.levels import ScaleSpace
from gpusift.stages.workspace import Step, Workspace

BLOCK = (8, 16)  # each thread takes four columns
SAMPLES_PER_CANDIDATE = 256  # of the first octave's levels; lists that prove too short are made longer
LEAST_CAPACITY = 1024


def steps(work: Workspace) -> list[Step]:
    """Launches that find the candidates of all octaves and write them to `lists.keys` in scikit-image's order."""
    device, space, lists = work.device, work.space, work.lists
    grid, counts = work.list_grid, lists.counts
    threshold = EXTREMUM_FRACTION * work.parameters.final_c_dog
    n_tiles = _n_tiles(space, device.extrema_tile)
    levels = *work.gaussian_levels, len(space.shapes), n_tiles, work.parameters.n_scales, threshold
    appended = lists.capacity, space.n_rows, counts[FOUND], lists.row_counts, lists.keys
    usable, rows = counts[USABLE_CANDIDATES], (lists.capacity, space.octaves, space.n_rows, lists.row_offsets)
    by_row = lists.keys, usable, *rows, lists.row_counts, lists.grouped
    return [
        device.prepare("find_extrema", (n_tiles, 1, space.batch), BLOCK, *levels, *appended),
        sum_counts(device, lists, lists.row_counts, lists.n_rows, lists.starts, lists.row_offsets, CANDIDATES),
        device.prepare("group_by_row", grid, LIST_BLOCK, *by_row),
        device.prepare("sort_rows", grid, LIST_BLOCK, lists.grouped, usable, *rows, lists.keys),
    ]


def find(device: Device, space: ScaleSpace, parameters: Parameters, capacity: int | None = None) -> Any:
    """The candidates of all octaves of one image, in scikit-image's order.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    parameters : Parameters
        n_scales and c_dog are used.
    capacity : int, optional
        Length of the first lists. If there are more candidates, the kernels run again with lists for all of them.

    Returns
    -------
    keys : (N,) array of int64
        Packed octave, row, column and scale, ascending; see `unpack`.
    """
    if not space.shapes:
        return device.xp.empty(0, np.int64)
    capacity = capacity_for(space.shapes[0]) if capacity is None else max(capacity, 1)
    while True:
        lists = allocate(device, parameters, 1, capacity, space.n_rows)
        device.program(steps(Workspace(device, parameters, space, lists, space.shapes[0])))()
        n = int(lists.counts[FOUND, 0])
        if n <= capacity:
            return lists.keys[0, :n]
        capacity = n


def capacity_for(first_shape: tuple[int, int]) -> int:
    """Length of the first lists of an image whose first octave has levels of this shape."""
    return first_shape[0] * first_shape[1] // SAMPLES_PER_CANDIDATE + LEAST_CAPACITY


def unpack(keys: Any) -> tuple[Any, Any, Any, Any]:
    """The octave, row, column and scale of candidates, each an (N,) array of int64."""
    side = (1 << 26) - 1
    return keys >> 58, keys >> 32 & side, keys >> 6 & side, keys & 63


def _n_tiles(space: ScaleSpace, tile: tuple[int, int]) -> int:
    """Tiles of whole octaves; a strip has fewer."""
    return sum(-(-rows // tile[0]) * -(-cols // tile[1]) for rows, cols in space.shapes)
