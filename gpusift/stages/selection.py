"""Which keypoints go on: at most so many, chosen by a stated rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.parameters import Parameters
from gpusift.stages.feature_lists import USABLE_FEATURES, USABLE_KEYPOINTS, FeatureLists
from gpusift.stages.scale_space import Step

KEYPOINTS_PER_CELL = 4  # that the cells of keep="grid" are made for


def steps(
    device: Device, parameters: Parameters, lists: FeatureLists, image_shape: tuple[int, int], *, of_features: bool
) -> list[Step]:
    """What leaves at most `max_keypoints` of the keypoints, or of the features; nothing without it.

    The choice is made by sorting. A GPU sorts all that lists have room for, as only it knows how long they are: to wait
    for that would take longer.

    Parameters
    ----------
    device : Device
        The device of `lists`.
    parameters : Parameters
        max_keypoints and keep matter here.
    lists : FeatureLists
        With the keypoints, or the features.
    image_shape : (int, int)
        Rows and columns of the input images.
    of_features : bool
        Which of the two to thin out.
    """
    most = parameters.max_keypoints
    if most is None:
        return []
    members = lists.features if of_features else lists.keypoints
    lengths = lists.counts[USABLE_FEATURES if of_features else USABLE_KEYPOINTS]

    def choose() -> None:
        for image in range(lists.batch):
            length = lengths[image]
            room = device.bound_of_length(length, lists.capacity)
            if room <= most:
                continue
            exists = device.xp.arange(room) < length
            of_image = device.xp.where(exists, members[image, :room], 0)
            positions, sigmas = lists.positions[image][of_image], lists.sigmas[image][of_image]
            responses = lists.responses[image][of_image]
            chosen = strongest(device, positions, sigmas, responses, parameters, image_shape, exists)
            members[image, :most] = of_image[chosen]
            lists.orientations[image, :most] = lists.orientations[image, :room][chosen]
            lengths[image : image + 1] = device.xp.minimum(length, most)

    return [choose]


def strongest(
    device: Device,
    positions: Any,
    sigmas: Any,
    responses: Any,
    parameters: Parameters,
    image_shape: tuple[int, int],
    exists: Any = None,
) -> Any:
    """Which `max_keypoints` of more keypoints are kept, by the rule `keep`.

    Parameters
    ----------
    device : Device
        The device of the arrays.
    positions : (N, 2) array
        Row and column, input pixels.
    sigmas, responses : (N,) arrays
        Input pixels, intensity.
    parameters : Parameters
        max_keypoints and keep matter here. "response": those of the largest absolute response. "scale": those of the
        largest sigma. "grid": the image is cut into square cells, about max_keypoints / 4 of them; first comes the
        strongest (by response) of each cell, then the second of each, and so on. Of equals, the one that comes first.
    image_shape : (int, int)
        Rows and columns of the input image.
    exists : (N,) array of bool, optional
        Which of them count, the first ones; by default all. The others are chosen only where those do not suffice.

    Returns
    -------
    chosen : (max_keypoints,) array of int
        Ascending.
    """
    xp, most = device.xp, parameters.max_keypoints or len(sigmas)
    strength = sigmas if parameters.keep == "scale" else xp.abs(responses)
    weakness = -strength.astype(np.float64)
    keys = [xp.arange(len(sigmas)), weakness if exists is None else xp.where(exists, weakness, np.inf)]
    if parameters.keep == "grid":
        side = (image_shape[0] * image_shape[1] * KEYPOINTS_PER_CELL / most) ** 0.5
        row_of_cells, col_of_cells = (xp.floor(positions[:, axis] / side) for axis in (0, 1))
        cell = row_of_cells * (image_shape[1] // side + 2) + col_of_cells
        rank = _rank_in_cell(xp, cell, keys)
        keys.append(rank if exists is None else xp.where(exists, rank, np.inf))
    return xp.sort(_in_order(xp, keys)[:most])


def _rank_in_cell(xp: Any, cell: Any, keys: list[Any]) -> Any:
    """(N,) array: how many of the keypoints of the same cell come before each, in the order of the keys."""
    order = _in_order(xp, [*keys, cell])
    sorted_cells = cell[order]
    rank = xp.empty(len(cell), np.float64)
    rank[order] = xp.arange(len(cell)) - xp.searchsorted(sorted_cells, sorted_cells)
    return rank


def _in_order(xp: Any, keys: list[Any]) -> Any:
    """The indices that sort by the last key, then by the one before it, and so on."""
    return xp.lexsort(xp.stack([key.astype(np.float64) for key in keys]))
