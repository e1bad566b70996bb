"""Affine shapes of the keypoints (Baumberg 2000; Mikolajczyk & Schmid 2004)."""

from __future__ import annotations

from dataclasses import replace

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import MAX_ELONGATION, SHAPE_TURNS, SHAPE_WINDOW, Parameters
from gpusift.stages.feature_lists import TAKEN_KEYPOINTS, USABLE_KEYPOINTS, of_features
from gpusift.stages.levels import ScaleSpace
from gpusift.stages.workspace import Step, Workspace

BLOCK = (4, 8)


def steps(work: Workspace) -> list[Step]:
    """The launch that estimates the shapes of the keypoints; none without `affine_shape`."""
    lists, parameters = work.lists, work.parameters
    if not parameters.affine_shape:
        return []
    return [
        work.device.prepare(
            "estimate_shapes",
            work.list_grid_of(BLOCK),
            BLOCK,
            *work.gaussian_levels,
            lists.keypoints,
            lists.counts[USABLE_KEYPOINTS],
            lists.counts[TAKEN_KEYPOINTS],
            lists.capacity,
            lists.positions,
            lists.sigmas,
            lists.octaves,
            lists.scales,
            parameters.delta_min,
            SHAPE_WINDOW,
            SHAPE_TURNS,
            MAX_ELONGATION,
            lists.shapes,
        )
    ]


def estimate(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Features:
    """The keypoints of one image with their affine shapes, if the parameters have `affine_shape`.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    features : Features
        N keypoints.
    parameters : Parameters
        affine_shape is used.
    """
    if not parameters.affine_shape:
        return features
    n = len(features)
    lists = of_features(device, parameters, features, max(n, 1))
    if n:
        device.program(steps(Workspace(device, parameters, space, lists, space.shapes[0])))()
    return replace(features, affine_shapes=lists.shapes[0, :n])
