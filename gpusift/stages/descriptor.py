"""Descriptors of the features (Otero & Delbracio 2014, Alg. 12)."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    return [_plain(work) if work.parameters.pooling is None else _pooled(work)]


def _plain(work: Workspace) -> Step:
    """The launch that describes each feature by one window."""
    return work.device.prepare(
        "describe",
        work.list_grid_of(BLOCK),
        BLOCK,
        *_features(work),
        *_form(work.parameters),
        work.lists.descriptors,
        constant=int(work.parameters.affine_shape),
        sizes=_sizes(work.parameters),
    )


def _pooled(work: Workspace, octaves: range | None = None, carried: Any = None, ends: bool = True) -> Step:
    """The launch that pools the windows of each feature over several sizes.

    Parameters
    ----------
    work : Workspace
        Its parameters have factors of `pooling`.
    octaves : range, optional
        Only windows in these octaves are added; by default all.
    carried : (1, capacity, n_values) array of real, optional
        Sums of windows in other octaves; by default there are none.
    ends : bool
        Whether descriptors are made of the sums. Otherwise the sums are written to `carried`.
    """
    device, parameters = work.device, work.parameters
    n_octaves = len(work.space.shapes)
    levels = parameters.window_levels(n_octaves)
    if octaves is not None:
        elsewhere = (levels[..., 0] < octaves.start) | (levels[..., 0] >= octaves.stop)
        levels[elsewhere, 0] = -1
    return device.prepare(
        "describe_pooled",
        work.list_grid_of(BLOCK),
        BLOCK,
        *_features(work),
        device.asarray(np.array(parameters.pooling, device.dtype)),
        len(parameters.pooling or ()),
        device.asarray(levels),
        n_octaves,
        parameters.n_levels,
        *_form(parameters),
        device.xp.zeros(1, device.dtype) if carried is None else carried,
        int(carried is not None),
        int(ends),
        work.lists.descriptors,
        constant=int(parameters.affine_shape),
        sizes=_sizes(parameters),
    )


def _features(work: Workspace) -> tuple[Any, ...]:
    """The arguments that say where the levels and the features are."""
    lists = work.lists
    return (
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
        lists.shapes,
        work.parameters.delta_min,
    )


def _form(parameters: Parameters) -> tuple[Any, ...]:
    """The arguments that say what a descriptor is."""
    return (
        parameters.lambda_descr,
        parameters.n_hist,
        parameters.n_ori,
        SATURATION,
        DESCRIPTOR_NORM,
        int(parameters.normalization == "root"),
        LAYOUTS.index(parameters.descriptor_layout),
    )


def _sizes(parameters: Parameters) -> dict[str, int]:
    """The sizes of shared arrays. Both kernels are built with them, whichever is launched."""
    sums, values = parameters.histogram_sizes
    return {"MAX_SUMS": sums, "MAX_VALUES": values, "MAX_POOLED": 1 if parameters.pooling is None else values}


def describe(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Any:
    """The descriptors of the keypoints of one image.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The Gaussian levels.
    features : Features
        N keypoints with their orientations, and with their shapes if the parameters have `affine_shape`.
    parameters : Parameters
        lambda_descr, n_hist, n_ori, normalization, descriptor_layout, pooling and affine_shape are used.

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


class PartialDescriptors:
    """Pooled descriptors of the features of an image whose octaves are given in parts.

    The parts come in ascending order of their octaves, and of one octave in any order, so that the windows of a feature
    are added in the order in which one launch for the whole image adds them. The descriptors are the same bytes.

    Parameters
    ----------
    device : Device
        The device.
    features : Features
        N keypoints with their orientations, on the device.
    parameters : Parameters
        As for `describe`, with `pooling`.
    """

    def __init__(self, device: Device, features: Features, parameters: Parameters) -> None:
        self.device, self.features, self.parameters = device, features, parameters
        self._carried = device.xp.zeros((len(features), parameters.n_values), device.dtype)

    def add(self, space: ScaleSpace, octaves: range, chosen: Any) -> None:
        """Adds the windows in these octaves of the features of the indices `chosen`, an array of the device."""
        carried = self.device.asarray(self._carried[chosen])
        self._run(space, octaves, self.features[chosen], carried, ends=False)
        self._carried[chosen] = carried

    def finished(self, space: ScaleSpace) -> Any:
        """(N, n_values) descriptors, when all windows have been added; `space` may be that of any part."""
        return self._run(space, range(0), self.features, self._carried, ends=True)

    def _run(self, space: ScaleSpace, octaves: range, features: Features, carried: Any, *, ends: bool) -> Any:
        n = len(features)
        lists = of_features(self.device, self.parameters, features, max(n, 1))
        if n:
            _pooled(Workspace(self.device, self.parameters, space, lists, space.shapes[0]), octaves, carried, ends)()
        return lists.descriptors[0, :n]
