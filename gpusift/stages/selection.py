"""The limit `max_keypoints`: which keypoints, and then which of their features, are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.stages.feature_lists import USABLE_FEATURES, USABLE_KEYPOINTS, of_features
from gpusift.stages.levels import ScaleSpace, lay_out
from gpusift.stages.workspace import Step, Workspace

BLOCK = (256,)  # one for each image
KEYPOINTS_PER_CELL = 4  # for which the cells of keep="grid" are made


def keypoint_steps(work: Workspace) -> list[Step]:
    """Launches that keep at most `max_keypoints` of the keypoints; none without that parameter."""
    return _steps(work, work.lists.keypoints, work.lists.counts[USABLE_KEYPOINTS])


def feature_steps(work: Workspace) -> list[Step]:
    """Launches that keep at most `max_keypoints` of the features; none without that parameter."""
    return _steps(work, work.lists.features, work.lists.counts[USABLE_FEATURES])


def _steps(work: Workspace, members: Any, lengths: Any) -> list[Step]:
    """Shortens the lists `members` (B, capacity) of these lengths (B,).

    `keep` is the rule: "response", the largest absolute responses; "scale", the largest sigmas; "grid": the image is
    cut into about max_keypoints / 4 square cells, and first comes the strongest (by response) of each cell, then the
    second of each, and so on. Of equals, the first one is kept. Those that are kept stay in their order.
    """
    device, lists = work.device, work.lists
    if work.parameters.max_keypoints is None:
        return []
    most = min(work.parameters.max_keypoints, lists.capacity)  # a larger limit may not fit into the kernel's int
    strengths = lists.sigmas if work.parameters.keep == "scale" else lists.responses
    grid, ranks, has_ranks = (1, 1, lists.batch), lists.further, int(work.parameters.keep == "grid")
    outputs = lists.offsets, members, lists.orientations, lengths
    limit = device.prepare("limit_list", grid, BLOCK, strengths, ranks, has_ranks, lists.capacity, most, *outputs)
    if not has_ranks:
        return [limit]
    side = (work.image_shape[0] * work.image_shape[1] * KEYPOINTS_PER_CELL / most) ** 0.5
    rows, cols = (int(pixels // side) + 2 for pixels in work.image_shape)
    counts, starts = (device.xp.zeros((lists.batch, rows * cols), np.int32) for _ in range(2))
    cells = lists.positions, side, rows, cols, counts, starts, lists.offsets, ranks
    return [
        device.prepare("rank_in_cells", grid, BLOCK, members, lengths, strengths, lists.capacity, most, *cells),
        limit,
    ]


def strongest(device: Device, features: Features, parameters: Parameters, image_shape: tuple[int, int]) -> Any:
    """The indices of the features of one image that `max_keypoints` keeps.

    Parameters
    ----------
    device : Device
        The device of the features.
    features : Features
        N features.
    parameters : Parameters
        max_keypoints and keep are used.
    image_shape : (int, int)
        Rows and columns of the input image.

    Returns
    -------
    kept : (n,) array of int32
        Ascending; N or max_keypoints of them, whichever is less.
    """
    lists = of_features(device, parameters, features, max(len(features), 1))
    nothing: ScaleSpace = lay_out(device, [], parameters.n_levels)
    device.program(keypoint_steps(Workspace(device, parameters, nothing, lists, image_shape)))()
    return lists.keypoints[0, : min(len(features), parameters.max_keypoints or len(features))]
