"""Refinement of candidates to keypoints (Otero & Delbracio 2014, Alg. 5 to 9)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import MAX_OFFSET, MAX_REFINEMENT_STEPS, Parameters
from gpusift.stages.feature_lists import (
    KEYPOINTS,
    LIST_BLOCK,
    USABLE_CANDIDATES,
    USABLE_KEYPOINTS,
    FeatureLists,
    allocate,
    grid_of,
    sum_counts,
)
from gpusift.stages.scale_space import ScaleSpace, Step

BLOCK = (128,)
KEYS_PER_BLOCK = 128


def steps(
    device: Device,
    space: ScaleSpace,
    parameters: Parameters,
    lists: FeatureLists,
    image_shape: tuple[int, int],
    mask: Any = None,
) -> list[Step]:
    """What refines the candidates and lists those that are keypoints in `lists.keypoints`, in their order.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    parameters : Parameters
        n_scales, sigma_min, c_dog, c_edge, upsampling and precise_upscale matter here.
    lists : FeatureLists
        With the candidates.
    image_shape : (int, int)
        Rows and columns of the input images.
    mask : array of uint8 of that shape, optional
        Zero where no keypoint is wanted: at the pixel nearest to it.
    """
    counts, grid = lists.counts, grid_of(device, lists)
    usable = counts[USABLE_CANDIDATES]
    refinement = device.prepare(
        "refine",
        (min(-(-lists.capacity // KEYS_PER_BLOCK), grid[0]), 1, lists.batch),
        BLOCK,
        space.levels,
        space.stride,
        space.octaves,
        lists.keys,
        usable,
        lists.capacity,
        KEYS_PER_BLOCK,
        device.asarray(parameters.scalespace_sigmas(len(space.shapes)), device.dtype),
        parameters.n_scales,
        parameters.delta_min,
        *image_shape,
        MAX_REFINEMENT_STEPS,
        MAX_OFFSET,
        parameters.final_c_dog,
        parameters.edge_threshold,
        device.xp.zeros(1, np.uint8) if mask is None else mask,
        int(mask is not None),
        parameters.position_shift,
        lists.accepted,
        lists.positions,
        lists.sigmas,
        lists.responses,
        lists.octaves,
        lists.scales,
    )
    kept = lists.accepted, lists.offsets, usable, lists.capacity, lists.keypoints
    return [
        refinement,
        sum_counts(device, lists, lists.accepted, usable, lists.starts, lists.offsets, KEYPOINTS),
        device.prepare("keep_accepted", grid, LIST_BLOCK, *kept),
    ]


def refine(
    device: Device, space: ScaleSpace, keys: Any, parameters: Parameters, image_shape: tuple[int, int]
) -> Features:
    """The candidates of one image that are keypoints, with sub-pixel positions; orientations are zero.

    Parameters
    ----------
    keys : (N,) array of int64
        Candidates, packed as `extrema.find` gives them.
    device, space, parameters, image_shape
        As in `steps`.

    Returns
    -------
    Features
        In the candidates' order.
    """
    n = len(keys)
    lists = allocate(device, parameters, 1, max(n, 1), space.n_rows)
    lists.keys[0, :n] = keys
    lists.counts[USABLE_CANDIDATES] = n
    device.program(steps(device, space, parameters, lists, image_shape))()
    kept = lists.keypoints[0, : int(lists.counts[USABLE_KEYPOINTS, 0])]
    positions, sigmas, responses = lists.positions[0][kept], lists.sigmas[0][kept], lists.responses[0][kept]
    orientations = device.xp.zeros(len(kept), device.dtype)
    return Features(positions, sigmas, lists.scales[0][kept], lists.octaves[0][kept], orientations, responses)
