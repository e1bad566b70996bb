"""The way from an image to its features, one line a stage (Otero & Delbracio 2014)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpusift import descriptor, extrema, orientation, refinement, scale_space, selection
from gpusift.device import Device
from gpusift.features import Features
from gpusift.parameters import Parameters

LARGEST_FLOAT = 1e15  # intensities beyond it would overflow float32 when squared


def run(
    device: Device,
    image: Any,
    parameters: Parameters,
    *,
    blur: str = "auto",
    mask: Any = None,
    descriptors: bool = True,
    on_stage: Callable[[str], None] | None = None,
) -> Features:
    """Detects the keypoints of an image and describes them.

    Parameters
    ----------
    device : Device
        Where to run.
    image : (M, N) array
        NumPy's, or of the device; any dtype that `skimage.util.img_as_float` takes.
    parameters : Parameters
        scikit-image's.
    blur : {"auto", "kernel", "ndimage"}
        How to blur; see `scale_space.build`.
    mask : (M, N) array, optional
        Of the device. Zero where no keypoint is wanted.
    descriptors : bool
        Whether to compute them.
    on_stage : callable, optional
        Called with each stage's name when it has ended on the device, for measurements.

    Returns
    -------
    Features
        On the device; of length zero if there are none.
    """

    def ended(stage: str) -> None:
        if on_stage:
            device.synchronize()
            on_stage(stage)

    with device.active():
        intensities = as_intensities(device, image)
        ended("upload")
        with device.workspace(scale_space.size_of(parameters, image.shape)) as workspace:
            space = scale_space.build(device, intensities, parameters, blur, workspace)
            ended("scale space")
            candidates = extrema.find(device, space, parameters)
            ended("extrema")
            keypoints = refinement.refine(device, space, candidates, parameters, image.shape)
            if mask is not None:
                keypoints = selection.in_mask(device, keypoints, mask, parameters)
            keypoints = selection.strongest(device, keypoints, parameters, image.shape)
            ended("refinement")
            features = orientation.assign(device, space, keypoints, parameters)
            features = selection.strongest(device, features, parameters, image.shape)
            ended("orientation")
            if descriptors:
                features = features.with_descriptors(descriptor.describe(device, space, features, parameters))
                ended("descriptor")
        return features.moved(-parameters.position_shift)


def describe(
    device: Device, image: Any, features: Features, parameters: Parameters, *, blur: str = "auto", assign: bool = False
) -> Features:
    """Describes given keypoints in an image.

    Parameters
    ----------
    device, image, parameters, blur
        As for `run`.
    features : Features
        Keypoints, on the device, in its precision.
    assign : bool
        Whether to assign their orientations first; a keypoint may then be there several times.

    Raises
    ------
    ValueError
        If a keypoint lies in an octave or at a scale that the image does not have.
    """
    with device.active():
        intensities = as_intensities(device, image)
        with device.workspace(scale_space.size_of(parameters, image.shape)) as workspace:
            space = scale_space.build(device, intensities, parameters, blur, workspace)
            if len(features):
                _require_levels(features, len(space.shapes), parameters.n_scales)
            placed = features.moved(parameters.position_shift)
            if assign:
                placed = orientation.assign(device, space, placed, parameters)
                features = placed.moved(-parameters.position_shift)
            return features.with_descriptors(descriptor.describe(device, space, placed, parameters))


def _require_levels(features: Features, n_octaves: int, n_scales: int) -> None:
    if n_octaves == 0:
        raise ValueError("the image is too small for an octave, so no keypoint can be described in it")
    octave, scale = int(features.octaves.max()), int(features.scales.max())
    if octave >= n_octaves or int(features.octaves.min()) < 0:
        raise ValueError(
            f"a keypoint's octave must be one of this image's {n_octaves} octaves, got {octave}: the keypoints are of "
            "a larger image; select those with a smaller octave"
        )
    if scale > n_scales + 2 or int(features.scales.min()) < 0:
        raise ValueError(f"a keypoint's scale must be between 0 and n_scales + 2 = {n_scales + 2}, got {scale}")


def as_intensities(device: Device, image: Any) -> Any:
    """An image as intensities on the device, in its precision, scaled as `skimage.util.img_as_float` does.

    Unsigned integers of b bits are divided by 2^b - 1, signed ones by 2^(b-1) - 1 and cut at -1; floats stay.

    Raises
    ------
    TypeError
        If it is not an array of real numbers.
    ValueError
        If it is not 2-D, is empty, or holds NaN, infinity or values too large to square.
    """
    require_image(image)
    kind = image.dtype.kind
    xp = device.xp
    image = device.asarray(image)
    if kind in "ui":
        image = xp.multiply(image, 1.0 / np.iinfo(image.dtype).max, dtype=np.float64)
        if kind == "i":
            image = xp.maximum(image, -1.0, out=image)
    elif kind == "f":
        _require_finite(float(image.min()), float(image.max()))
    return device.asarray(image, device.dtype)


def require_image(image: Any) -> tuple[int, int]:
    """The shape of an image; TypeError or ValueError if it is not a 2-D array of real numbers."""
    kind = image.dtype.kind
    if kind not in "buif":
        raise TypeError(f"image must be an array of booleans, integers or floats, got dtype {image.dtype}")
    if image.ndim != 2:
        hint = "; convert a colour image to grey first, e.g. with skimage.color.rgb2gray" if image.ndim == 3 else ""
        raise ValueError(f"image must be 2-D (rows, columns), got shape {tuple(image.shape)}{hint}")
    if image.size == 0:
        raise ValueError(f"image must have at least one pixel, got shape {tuple(image.shape)}")
    return tuple(image.shape)


def _require_finite(low: float, high: float) -> None:
    if not -LARGEST_FLOAT <= low <= high <= LARGEST_FLOAT:
        raise ValueError(
            f"image must be finite, with values between -{LARGEST_FLOAT:g} and {LARGEST_FLOAT:g}, got values from "
            f"{low} to {high}; replace NaN and infinity, e.g. with numpy.nan_to_num"
        )
