"""Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.device import Device
from gpusift.features import Features
from gpusift.parameters import DESCRIPTOR_NORM, LAYOUTS, SATURATION, Parameters
from gpusift.scale_space import ScaleSpace

BLOCK = (32, 4)


def describe(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Any:
    """The descriptors of keypoints.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    features : Features
        N keypoints with their orientations.
    parameters : Parameters
        lambda_descr, n_hist, n_ori, normalization and descriptor_layout matter here.

    Returns
    -------
    descriptors : (N, n_hist * n_hist * n_ori) array of uint8
        Histograms in the order row, column, direction, or as `descriptor_layout` says; zero where the window holds no
        gradient.
    """
    n = len(features)
    descriptors = device.xp.empty((n, parameters.n_values), np.uint8)
    cells, values = parameters.histogram_sizes
    if n:
        device.launch(
            "describe",
            (n,),
            BLOCK,
            space.levels,
            space.octaves,
            features.positions,
            features.sigmas,
            features.orientations,
            features.octaves,
            features.scales,
            n,
            parameters.delta_min,
            parameters.lambda_descr,
            parameters.n_hist,
            parameters.n_ori,
            SATURATION,
            DESCRIPTOR_NORM,
            int(parameters.normalization == "root"),
            LAYOUTS.index(parameters.descriptor_layout),
            descriptors,
            sizes={"MAX_SUMS": cells, "MAX_VALUES": values},
        )
    return descriptors
