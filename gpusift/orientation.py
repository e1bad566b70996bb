"""Reference orientations of the keypoints (Otero & Delbracio 2014, Alg. 11)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpusift.device import Device
from gpusift.features import Features
from gpusift.parameters import N_SMOOTHINGS, Parameters
from gpusift.scale_space import ScaleSpace

BLOCK = (32, 2)


def assign(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Features:
    """The keypoints with their orientations; one with several is repeated, after all the first ones.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    features : Features
        N keypoints.
    parameters : Parameters
        n_bins, lambda_ori, c_max, upright and descriptor_layout matter here.

    Returns
    -------
    Features
        N keypoints with their first orientation, in order of its bin, then the further ones, keypoint by keypoint. With
        `upright`, the N keypoints with one orientation for all.
    """
    xp, n = device.xp, len(features)
    if n == 0:
        return features
    if parameters.upright:
        return replace(features, orientations=xp.full(n, parameters.upright_orientation, device.dtype))
    counts = xp.empty(n, np.int32)
    angles = xp.empty((n, parameters.n_bins), device.dtype)
    device.launch(
        "assign_orientations",
        (n,),
        BLOCK,
        space.levels,
        space.octaves,
        features.positions,
        features.sigmas,
        features.octaves,
        features.scales,
        n,
        parameters.delta_min,
        parameters.lambda_ori,
        parameters.n_bins,
        N_SMOOTHINGS,
        parameters.c_max,
        parameters.bin_centre,
        counts,
        angles,
        sizes={"MAX_BINS": parameters.n_bins},
    )
    most = int(counts.max())
    keypoint, further = xp.nonzero(xp.arange(1, most)[None, :] < counts[:, None])
    order = xp.concatenate((xp.arange(n), keypoint))
    orientations = xp.concatenate((angles[:, 0], angles[keypoint, further + 1]))
    return replace(features[order], orientations=orientations)
