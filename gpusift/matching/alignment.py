"""Alignment of the surroundings of matched keypoints (inverse compositional algorithm; Baker & Matthews 2004).

The first image's keypoints give templates; each is aligned with the second image at the keypoint that it matches. So
only one image's scale space is needed at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.stages.levels import ScaleSpace

BLOCK = (16, 8)
TEMPLATE_SAMPLES = 17 * 17  # kernels/alignment.cuh
SPACING = 0.75  # between a template's samples, in sigmas of its keypoint
N_STEPS = 10
MAX_SHIFT = 1.5  # of a position, in sigmas of its keypoint
MIN_CORRELATION = 0.6


@dataclass(frozen=True, eq=False)
class Templates:
    """Patches around the keypoints of an image, on a device.

    Attributes
    ----------
    values : (N, 3, TEMPLATE_SAMPLES) array of real
        The samples, and their derivatives by row and by column.
    inside : (N, TEMPLATE_SAMPLES) array of uint8
        1 for samples inside the margin of the image (kernels/alignment.cuh), otherwise 0.
    sigmas, orientations : (N,) arrays of real
        Those of the keypoints, input pixels and radians.
    shapes : (N, 2, 2) array of real, or None
        Affine shapes of the keypoints, if they have some.
    """

    values: Any
    inside: Any
    sigmas: Any
    orientations: Any
    shapes: Any = None

    def __getitem__(self, part: slice) -> Templates:
        return Templates(*(None if array is None else array[part] for array in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Alignment:
    """Templates aligned with an image, on a device.

    Attributes
    ----------
    positions : (N, 2) array of real
        Row and column where the templates' keypoints are in this image, input pixels; those of the keypoints that they
        match where the alignment failed.
    maps : (N, 2, 2) array of real
        From (row, column) around the first keypoint to those around the second, both in input pixels; rotation and
        scale of the two keypoints where the alignment failed.
    correlations : (N,) array of real
        Weighted correlation of the aligned patches; 0 where the alignment failed.
    aligned : (N,) array of bool
    """

    positions: Any
    maps: Any
    correlations: Any
    aligned: Any

    def __getitem__(self, part: slice) -> Alignment:
        return Alignment(self.positions[part], self.maps[part], self.correlations[part], self.aligned[part])


def joined(device: Device, several: Sequence[Templates]) -> Templates:
    """Templates one after the other."""
    if len(several) == 1:
        return several[0]
    with device.active():
        of_fields = [[getattr(each, field.name) for each in several] for field in fields(Templates)]
        known = (None if any(array is None for array in arrays) else arrays for arrays in of_fields)
        return Templates(*(None if arrays is None else device.xp.concatenate(arrays) for arrays in known))


def sample(device: Device, space: ScaleSpace, features: Features, parameters: Parameters) -> Templates:
    """Samples the templates of keypoints.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        The levels of the image.
    features : Features
        N keypoints, on the device, with the positions of `space` (see `Parameters.position_shift`); with affine shapes,
        if they have some.
    parameters : Parameters
        Those of the features.
    """
    n, xp = len(features), device.xp
    values = xp.empty((n, 3, TEMPLATE_SAMPLES), device.dtype)
    inside = xp.empty((n, TEMPLATE_SAMPLES), np.uint8)
    if n:
        keypoints = *_finer_levels(xp, features, parameters), features.positions, features.sigmas
        sizes = n, parameters.delta_min, SPACING
        device.launch(
            "sample_templates", _grid(device, n), BLOCK, space.levels, space.octaves, *keypoints, *sizes, values, inside
        )
    return Templates(values, inside, features.sigmas, features.orientations, features.affine_shapes)


def align(
    device: Device, space: ScaleSpace, templates: Templates, features: Features, parameters: Parameters
) -> Alignment:
    """Aligns templates with an image.

    Parameters
    ----------
    device, space, parameters
        As for `sample`; `space` is that of the second image.
    templates : Templates
        Of N keypoints of the first image.
    features : Features
        The N keypoints that they match, as for `sample`.
    """
    n, xp = len(features), device.xp
    positions, maps = xp.empty((n, 2), device.dtype), xp.empty((n, 4), device.dtype)
    correlations, aligned = xp.empty(n, device.dtype), xp.empty(n, np.int32)
    if n:
        shapes = templates.shapes, features.affine_shapes
        has_shapes = all(each is not None for each in shapes)
        device.launch(
            "align_templates",
            _grid(device, n),
            BLOCK,
            space.levels,
            space.octaves,
            *_finer_levels(xp, features, parameters),
            features.positions,
            features.sigmas,
            features.orientations - templates.orientations,
            *(device.xp.empty(0, device.dtype) if each is None else each for each in shapes),
            templates.values,
            templates.inside,
            n,
            parameters.delta_min,
            SPACING,
            N_STEPS,
            MAX_SHIFT,
            MIN_CORRELATION,
            positions,
            maps,
            correlations,
            aligned,
            constant=int(has_shapes),
        )
    maps = (maps / templates.sigmas[:, None]).reshape(n, 2, 2)
    return Alignment(positions, maps, correlations, aligned.astype(bool))


def _finer_levels(xp: Any, features: Features, parameters: Parameters) -> tuple[Any, Any]:
    """Octave and scale of the levels with half the keypoints' blur, or of the finest level.

    They show more detail than the keypoints' own levels, and give more matches within 1 pixel (bench/NOTES.md).
    """
    level = xp.maximum((features.octaves - 1) * parameters.n_scales + features.scales, 0)
    octaves = xp.minimum(xp.maximum(level - 1, 0) // parameters.n_scales, features.octaves)
    return octaves.astype(np.int32), (level - octaves * parameters.n_scales).astype(np.int32)


def _grid(device: Device, n: int) -> tuple[int]:
    return (min(n, 16 * device.n_blocks),)
