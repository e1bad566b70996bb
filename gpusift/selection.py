"""Which keypoints go on: those that a mask lets through, and at most so many, chosen by a stated rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.device import Device
from gpusift.features import Features
from gpusift.parameters import Parameters

KEYPOINTS_PER_CELL = 4  # that the cells of keep="grid" are made for


def in_mask(device: Device, features: Features, mask: Any, parameters: Parameters) -> Features:
    """The keypoints whose nearest pixel is not zero in the mask.

    Parameters
    ----------
    device : Device
        The device of `features`.
    features : Features
        N keypoints, before `precise_upscale` has moved them.
    mask : (rows, cols) array of the device
        Of the image's shape.
    parameters : Parameters
        upsampling and precise_upscale matter here.

    Returns
    -------
    Features
        In the same order.
    """
    xp = device.xp
    nearest = xp.rint(features.positions - parameters.position_shift).astype(np.int64)
    rows, cols = (xp.clip(nearest[:, axis], 0, mask.shape[axis] - 1) for axis in (0, 1))
    return features[mask[rows, cols] != 0]


def strongest(device: Device, features: Features, parameters: Parameters, image_shape: tuple[int, int]) -> Features:
    """At most `max_keypoints` of the keypoints, by the rule `keep`.

    Parameters
    ----------
    device : Device
        The device of `features`.
    features : Features
        N keypoints.
    parameters : Parameters
        max_keypoints and keep matter here. "response": those of the largest absolute response. "scale": those of the
        largest sigma. "grid": the image is cut into square cells, about max_keypoints / 4 of them; first comes the
        strongest (by response) of each cell, then the second of each, and so on. Of equals, the one that comes first.
    image_shape : (int, int)
        Rows and columns of the input image.

    Returns
    -------
    Features
        In the same order.
    """
    most, n = parameters.max_keypoints, len(features)
    if most is None or n <= most:
        return features
    xp = device.xp
    strength = features.sigmas if parameters.keep == "scale" else xp.abs(features.responses)
    keys = [xp.arange(n), -strength.astype(np.float64)]
    if parameters.keep == "grid":
        side = (image_shape[0] * image_shape[1] * KEYPOINTS_PER_CELL / most) ** 0.5
        row_of_cells, col_of_cells = (xp.floor(features.positions[:, axis] / side) for axis in (0, 1))
        cell = row_of_cells * (image_shape[1] // side + 2) + col_of_cells
        keys.append(_rank_in_cell(xp, cell, keys))
    return features[xp.sort(_in_order(xp, keys)[:most])]


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
