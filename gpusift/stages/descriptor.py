"""Descriptors of the features (Otero & Delbracio 2014, Alg. 12)."""

from __future__ import annotations

from typing import Any

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import DESCRIPTOR_NORM, LAYOUTS, SATURATION, Parameters
from gpusift.stages.feature_lists import TAKEN_FEATURES, USABLE_FEATURES, of_features
from gpusift.stages.levels import ScaleSpace
from gpusift.stages.workspace import Step, Workspace

BLOCK = (8, 8)


def steps(work: Workspace) -> list[Step]:
    """The launch that describes the features; none if no descriptors are wanted."""
    if not work.with_descriptors:
        return []
    lists, parameters = work.lists, work.parameters
    sums, values = parameters.histogram_sizes
    return [
        work.device.prepare(
            "describe",
            work.list_grid_of(BLOCK),
            BLOCK,
            *work.gaussian_levels,
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
    """The descriptors of the keypoints of one image.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    features : Features
        N keypoints with their orientations.
    parameters : Parameters
        lambda_descr, n_hist, n_ori, normalization and descriptor_layout are used.

    Returns
    -------
    descriptors : (N, n_hist * n_hist * n_ori) array of uint8
        Histograms in the order row, column, direction, or in that of `descriptor_layout`. Zeros if the window holds no
        gradient.
    """
    n = len(features)
    lists = of_features(device, parameters, features, max(n, 1))
    if n:
        device.program(steps(Workspace(device, parameters, space, lists, space.shapes[0])))()
    return lists.descriptors[0, :n]
