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
    of_features,
    sum_counts,
)
from gpusift.stages.levels import ScaleSpace
from gpusift.stages.workspace import Step, Workspace

BLOCK = (4, 8)
FEATURES_PER_KEYPOINT = 2  # for which the first lists of `assign` have room
OF_CANDIDATES = ("positions", "sigmas", "responses", "octaves", "scales")  # lists that features refer to


def steps(work: Workspace) -> list[Step]:
    """Launches that assign orientations to the keypoints and list them as features.

    The first orientations of all keypoints come first, then the further ones, keypoint by keypoint.
    """
    device, lists, parameters = work.device, work.lists, work.parameters
    counts, grid = lists.counts, work.list_grid
    n_keypoints = counts[USABLE_KEYPOINTS]
    if parameters.upright:
        listed = lists.features, lists.orientations, counts[FEATURES], counts[USABLE_FEATURES]
        keypoints = lists.keypoints, n_keypoints, lists.capacity, parameters.upright_orientation
        return [device.prepare("list_upright", grid, LIST_BLOCK, *keypoints, *listed)]
    histograms = device.prepare(
        "assign_orientations",
        work.list_grid_of(BLOCK),
        BLOCK,
        *work.gaussian_levels,
        lists.keypoints,
        n_keypoints,
        counts[TAKEN_KEYPOINTS],
        lists.capacity,
        lists.positions,
        lists.sigmas,
        lists.octaves,
        lists.scales,
        lists.shapes,
        parameters.delta_min,
        parameters.lambda_ori,
        parameters.n_bins,
        N_SMOOTHINGS,
        parameters.c_max,
        parameters.max_orientations or parameters.n_bins,
        parameters.bin_centre,
        lists.further,
        lists.angles,
        constant=int(parameters.affine_shape),
        sizes={"MAX_BINS": parameters.n_bins},
    )
    spread = device.prepare(
        "spread_orientations",
        grid,
        LIST_BLOCK,
        lists.keypoints,
        n_keypoints,
        lists.capacity,
        lists.angles,
        parameters.n_bins,
        lists.further,
        lists.offsets,
        counts[USABLE_FEATURES],
        lists.features,
        lists.orientations,
    )
    return [
        histograms,
        sum_counts(device, lists, lists.further, n_keypoints, n_keypoints, lists.offsets, FEATURES),
        spread,
    ]


def assign(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Features:
    """The keypoints of one image with their orientations; a keypoint with several appears once for each.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    features : Features
        N keypoints, with their shapes if the parameters have `affine_shape`.
    parameters : Parameters
        n_bins, lambda_ori, c_max, max_orientations, upright, affine_shape and
        descriptor_layout are used.

    Returns
    -------
    Features
        N keypoints with their first orientation, the lowest bin first, then the further ones, keypoint by keypoint.
        With `upright`, the N keypoints with one orientation for all.
    """
    if len(features) == 0:
        return features
    capacity = FEATURES_PER_KEYPOINT * len(features)
    while True:
        lists = of_features(device, parameters, features, capacity)
        device.program(steps(Workspace(device, parameters, space, lists, space.shapes[0])))()
        n = int(lists.counts[FEATURES, 0])
        if n <= capacity:
            break
        capacity = n
    of_candidate = lists.features[0, :n]
    arrays = {name: getattr(lists, name)[0][of_candidate] for name in OF_CANDIDATES}
    if parameters.affine_shape:
        arrays["affine_shapes"] = lists.shapes[0][of_candidate]
    return Features(**arrays, orientations=lists.orientations[0, :n])
