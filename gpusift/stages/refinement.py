"""Refinement of candidates to keypoints (Otero & Delbracio 2014, Alg. 5 to 9)."""

from __future__ import annotations

from typing import Any

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import MAX_REFINEMENT_STEPS, Parameters
from gpusift.stages.feature_lists import (
    KEYPOINTS,
    LIST_BLOCK,
    USABLE_CANDIDATES,
    USABLE_KEYPOINTS,
    allocate,
    sum_counts,
)
from gpusift.stages.levels import ScaleSpace
from gpusift.stages.workspace import Step, Workspace

BLOCK = (128,)
KEYS_PER_BLOCK = 128


def steps(work: Workspace) -> list[Step]:
    """Launches that refine the candidates, and list those that are keypoints in `lists.keypoints`, in their order.

    A keypoint is dropped if the mask is zero at the pixel nearest to its position.
    """
    device, lists, parameters = work.device, work.lists, work.parameters
    usable, rule = lists.counts[USABLE_CANDIDATES], parameters.rule
    blocks = min(-(-lists.capacity // KEYS_PER_BLOCK), work.list_grid[0])
    refine_all = device.prepare(
        "refine",
        (blocks, 1, lists.batch),
        BLOCK,
        *work.gaussian_levels,
        lists.keys,
        usable,
        lists.capacity,
        KEYS_PER_BLOCK,
        device.asarray(parameters.scalespace_sigmas(len(work.space.shapes)), device.dtype),
        parameters.n_scales,
        parameters.delta_min,
        *work.image_shape,
        MAX_REFINEMENT_STEPS,
        rule.largest_offset,
        int(rule.moves_in_scale),
        rule.accepted_offset,
        parameters.final_c_dog,
        -parameters.edge_threshold if rule.saddles else 0.0,
        parameters.edge_threshold,
        rule.margin,
        rule.border,
        *work.mask,
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
        refine_all,
        sum_counts(device, lists, lists.accepted, usable, lists.starts, lists.offsets, KEYPOINTS),
        device.prepare("keep_accepted", work.list_grid, LIST_BLOCK, *kept),
    ]


def refine(
    device: Device, space: ScaleSpace, keys: Any, parameters: Parameters, image_shape: tuple[int, int]
) -> Features:
    """The candidates of one image that are keypoints, with positions between samples; orientations are zero.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    keys : (N,) array of int64
        Candidates, packed as `extrema.find` gives them.
    parameters : Parameters
        n_scales, sigma_min, c_dog, c_edge, upsampling, precise_upscale and extremum_rule are used.
    image_shape : (int, int)
        Rows and columns of the input image.

    Returns
    -------
    Features
        In the order of the candidates.
    """
    n = len(keys)
    lists = allocate(device, parameters, 1, max(n, 1), space.n_rows)
    lists.keys[0, :n] = keys
    lists.counts[USABLE_CANDIDATES] = n
    device.program(steps(Workspace(device, parameters, space, lists, image_shape)))()
    kept = lists.keypoints[0, : int(lists.counts[USABLE_KEYPOINTS, 0])]
    positions, sigmas, responses = lists.positions[0][kept], lists.sigmas[0][kept], lists.responses[0][kept]
    orientations = device.xp.zeros(len(kept), device.dtype)
    return Features(positions, sigmas, lists.scales[0][kept], lists.octaves[0][kept], orientations, responses)
