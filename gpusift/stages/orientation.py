"""Reference orientations of the keypoints (Otero & Delbracio 2014, Alg. 11)."""

from __future__ import annotations

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import N_SMOOTHINGS, Parameters
from gpusift.stages.feature_lists import (
    FEATURES,
    LIST_BLOCK,
    TAKEN_KEYPOINTS,
    USABLE_FEATURES,
    USABLE_KEYPOINTS,
    FeatureLists,
    collect,
    features_of,
    grid_of,
    of_features,
    sum_counts,
)
from gpusift.stages.scale_space import ScaleSpace, Step

BLOCK = (16, 4)
FEATURES_PER_KEYPOINT = 2  # to make room for at first


def steps(device: Device, space: ScaleSpace, parameters: Parameters, lists: FeatureLists) -> list[Step]:
    """What gives the keypoints orientations and lists them as features; further ones come after all first ones.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    parameters : Parameters
        n_bins, lambda_ori, c_max, upright and descriptor_layout matter here.
    lists : FeatureLists
        With the keypoints.
    """
    counts, grid = lists.counts, grid_of(device, lists)
    length = counts[USABLE_KEYPOINTS]
    if parameters.upright:

        def all_once() -> None:
            lists.features[...] = lists.keypoints
            lists.orientations.fill(parameters.upright_orientation)
            counts[FEATURES : USABLE_FEATURES + 1] = length

        return [all_once]
    of_candidates = lists.positions, lists.sigmas, lists.octaves, lists.scales
    of_parameters = parameters.delta_min, parameters.lambda_ori, parameters.n_bins, N_SMOOTHINGS, parameters.c_max
    keypoints = lists.keypoints, length, lists.capacity
    return [
        device.prepare(
            "assign_orientations",
            grid,
            BLOCK,
            space.levels,
            space.stride,
            space.octaves,
            lists.keypoints,
            length,
            counts[TAKEN_KEYPOINTS],
            lists.capacity,
            *of_candidates,
            *of_parameters,
            parameters.bin_centre,
            lists.further,
            lists.angles,
            sizes={"MAX_BINS": parameters.n_bins},
        ),
        sum_counts(device, lists, lists.further, length, length, lists.offsets, FEATURES),
        device.prepare(
            "spread_orientations",
            grid,
            LIST_BLOCK,
            *keypoints,
            lists.angles,
            parameters.n_bins,
            lists.further,
            lists.offsets,
            counts[USABLE_FEATURES],
            lists.features,
            lists.orientations,
        ),
    ]


def assign(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Features:
    """The keypoints of one image with their orientations; one with several is repeated, after all the first ones.

    Parameters
    ----------
    features : Features
        N keypoints.
    device, space, parameters
        As in `steps`.

    Returns
    -------
    Features
        N keypoints with their first orientation, in order of its bin, then the further ones, keypoint by keypoint. With
        `upright`, the N keypoints with one orientation for all.
    """
    if len(features) == 0:
        return features
    capacity = FEATURES_PER_KEYPOINT * len(features)
    while True:
        lists = of_features(device, parameters, features, capacity)
        device.program(steps(device, space, parameters, lists))()
        n = int(lists.counts[FEATURES, 0])
        if n <= capacity:
            break
        capacity = n
    block, offsets = collect(device, parameters, lists, device.to_host(lists.counts[FEATURES]), descriptors=False)
    return features_of(block, offsets[0], n, device.dtype, 0)
