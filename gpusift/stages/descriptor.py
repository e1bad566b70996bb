"""Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12)."""

from __future__ import annotations

from typing import Any

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import DESCRIPTOR_NORM, LAYOUTS, SATURATION, Parameters
from gpusift.stages.feature_lists import TAKEN_FEATURES, USABLE_FEATURES, FeatureLists, grid_of, of_features
from gpusift.stages.scale_space import ScaleSpace, Step

BLOCK = (16, 8)


def steps(device: Device, space: ScaleSpace, parameters: Parameters, lists: FeatureLists) -> list[Step]:
    """What computes the descriptors of the features.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    parameters : Parameters
        lambda_descr, n_hist, n_ori, normalization and descriptor_layout matter here.
    lists : FeatureLists
        With the features.
    """
    sums, values = parameters.histogram_sizes
    return [
        device.prepare(
            "describe",
            grid_of(device, lists),
            BLOCK,
            space.levels,
            space.stride,
            space.octaves,
            lists.features,
            lists.counts[USABLE_FEATURES],
            lists.counts[TAKEN_FEATURES],
            lists.capacity,
            lists.orientations,
            lists.positions,
            lists.sigmas,
            lists.octaves,
            lists.scales,
            parameters.delta_min,
            parameters.lambda_descr,
            parameters.n_hist,
            parameters.n_ori,
            SATURATION,
            DESCRIPTOR_NORM,
            int(parameters.normalization == "root"),
            LAYOUTS.index(parameters.descriptor_layout),
            lists.descriptors,
            sizes={"MAX_SUMS": sums, "MAX_VALUES": values},
        )
    ]


def describe(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Any:
    """The descriptors of one image's keypoints.

    Parameters
    ----------
    features : Features
        N keypoints with their orientations.
    device, space, parameters
        As in `steps`.

    Returns
    -------
    descriptors : (N, n_hist * n_hist * n_ori) array of uint8
        Histograms in the order row, column, direction, or as `descriptor_layout` says; zero where the window holds no
        gradient.
    """
    n = len(features)
    lists = of_features(device, parameters, features, max(n, 1))
    if n:
        device.program(steps(device, space, parameters, lists))()
    return lists.descriptors[0, :n]
