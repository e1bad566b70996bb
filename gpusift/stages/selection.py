"""The limit `max_keypoints`: which keypoints, and then which of their features, are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.parameters import Parameters
from gpusift.stages.feature_lists import USABLE_FEATURES, USABLE_KEYPOINTS
from gpusift.stages.workspace import Step, Workspace

KEYPOINTS_PER_CELL = 4  # for which the cells of keep="grid" are made


def keypoint_steps(work: Workspace) -> list[Step]:
    """Keeps at most `max_keypoints` of the keypoints; nothing to do without that parameter."""
    return _steps(work, work.lists.keypoints, work.lists.counts[USABLE_KEYPOINTS])


def feature_steps(work: Workspace) -> list[Step]:
    """Keeps at most `max_keypoints` of the features; nothing to do without that parameter."""
    return _steps(work, work.lists.features, work.lists.counts[USABLE_FEATURES])


def _steps(work: Workspace, members: Any, lengths: Any) -> list[Step]:
    """Shortens the lists `members` (B, capacity) of these lengths (B,), in their order.

    The choice is made by sorting. A GPU sorts all entries of the lists, since only the device knows their lengths, and
    waiting for those would take longer.
    """
    device, lists, most = work.device, work.lists, work.parameters.max_keypoints
    if most is None:
        return []

    def choose() -> None:
        for image in range(lists.batch):
            length = lengths[image]
            n = device.bound_of_length(length, lists.capacity)
            if n <= most:
                continue
            exists = device.xp.arange(n) < length
            of_image = device.xp.where(exists, members[image, :n], 0)
            positions, sigmas = lists.positions[image][of_image], lists.sigmas[image][of_image]
            responses = lists.responses[image][of_image]
            chosen = strongest(device, positions, sigmas, responses, work.parameters, work.image_shape, exists)
            members[image, :most] = of_image[chosen]
            lists.orientations[image, :most] = lists.orientations[image, :n][chosen]
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
    """The `max_keypoints` of N keypoints, N being larger, that the rule `keep` chooses.

    Parameters
    ----------
    device : Device
        The device of the arrays.
    positions : (N, 2) array
        Row and column, input pixels.
    sigmas, responses : (N,) arrays
        Input pixels, intensity.
    parameters : Parameters
        max_keypoints and keep are used. "response": the largest absolute responses. "scale": the largest sigmas.
        "grid": the image is cut into about max_keypoints / 4 square cells; first comes the strongest (by response) of
        each cell, then the second of each, and so on. Of equals, the first one is chosen.
    image_shape : (int, int)
        Rows and columns of the input image.
    exists : (N,) array of bool, optional
        Which entries are keypoints, the first ones; by default all. Others are chosen only if those do not suffice.

    Returns
    -------
    chosen : (max_keypoints,) array of int
        Ascending indices.
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
    """(N,) array: the number of keypoints of the same cell that come before each one, in the order of the keys."""
    order = _in_order(xp, [*keys, cell])
    sorted_cells = cell[order]
    rank = xp.empty(len(cell), np.float64)
    rank[order] = xp.arange(len(cell)) - xp.searchsorted(sorted_cells, sorted_cells)
    return rank


def _in_order(xp: Any, keys: list[Any]) -> Any:
    """The indices that sort by the last key, then by the one before it, and so on."""
    return xp.lexsort(xp.stack([key.astype(np.float64) for key in keys]))
