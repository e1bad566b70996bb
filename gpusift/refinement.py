"""Refinement of candidates to keypoints (Otero & Delbracio 2014, Alg. 5 to 9)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.device import Device
from gpusift.features import Features
from gpusift.parameters import MAX_OFFSET, MAX_REFINEMENT_STEPS, Parameters
from gpusift.scale_space import ScaleSpace

BLOCK = (128,)
KEYS_PER_BLOCK = 128


def refine(
    device: Device, space: ScaleSpace, keys: Any, parameters: Parameters, image_shape: tuple[int, int]
) -> Features:
    """The candidates that are keypoints, with sub-pixel positions; orientations are zero.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    keys : (N,) array of int64
        Candidates, packed as `extrema.find` gives them.
    parameters : Parameters
        n_scales, sigma_min, c_dog and c_edge matter here.
    image_shape : (int, int)
        Rows and columns of the input image.

    Returns
    -------
    Features
        In the candidates' order.
    """
    xp, n = device.xp, int(keys.shape[0])
    accepted = xp.zeros(n, np.uint8)
    positions, sigmas, responses = (xp.empty(shape, device.dtype) for shape in ((n, 2), n, n))
    octaves, scales = xp.empty(n, np.int32), xp.empty(n, np.int32)
    if n:
        device.launch(
            "refine",
            (-(-n // KEYS_PER_BLOCK),),
            BLOCK,
            space.levels,
            space.octaves,
            keys,
            n,
            KEYS_PER_BLOCK,
            device.asarray(parameters.scalespace_sigmas(len(space.shapes)), device.dtype),
            parameters.n_scales,
            parameters.delta_min,
            *image_shape,
            MAX_REFINEMENT_STEPS,
            MAX_OFFSET,
            parameters.final_c_dog,
            parameters.edge_threshold,
            accepted,
            positions,
            sigmas,
            responses,
            octaves,
            scales,
        )
    candidates = Features(positions, sigmas, scales, octaves, xp.zeros(n, device.dtype), responses)
    return candidates[xp.flatnonzero(accepted)]
