"""Candidates: extrema of the difference of Gaussians (Otero & Delbracio 2014, Alg. 4 and 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.device import TILES, Device
from gpusift.parameters import EXTREMUM_SHARE, Parameters
from gpusift.scale_space import ScaleSpace

BLOCK = (32, 8)
SAMPLES_PER_CANDIDATE = 256  # of the scale space's first level; a list that proves too short is made again


def find(device: Device, space: ScaleSpace, parameters: Parameters, capacity: int | None = None) -> Any:
    """The candidates of all octaves, in scikit-image's order.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    parameters : Parameters
        n_scales and c_dog matter here.
    capacity : int, optional
        Candidates to make room for at first. If there are more, the kernel runs again with room for all.

    Returns
    -------
    keys : (N,) array of int64
        Packed octave, row, column and scale, ascending; see `unpack`.
    """
    xp = device.xp
    if not space.shapes:
        return xp.empty(0, np.int64)
    tiles = [
        -(-rows // TILES["EXTREMA_TILE_ROWS"]) * -(-cols // TILES["EXTREMA_TILE_COLS"]) for rows, cols in space.shapes
    ]
    rows, cols = space.shapes[0]
    room = rows * cols // SAMPLES_PER_CANDIDATE + 1024 if capacity is None else max(capacity, 1)
    while True:
        count = xp.zeros(1, np.int32)
        keys = xp.empty(room, np.int64)
        device.launch(
            "find_extrema",
            (sum(tiles),),
            BLOCK,
            space.levels,
            space.octaves,
            len(space.shapes),
            parameters.n_scales,
            EXTREMUM_SHARE * parameters.final_c_dog,
            room,
            count,
            keys,
        )
        found = int(count[0])
        if found <= room:
            return xp.sort(keys[:found])
        room = found


def unpack(keys: Any) -> tuple[Any, Any, Any, Any]:
    """The octave, row, column and scale of candidates, each an (N,) array of int64."""
    side = (1 << 26) - 1
    return keys >> 58, keys >> 32 & side, keys >> 6 & side, keys & 63
