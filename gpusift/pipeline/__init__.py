"""The way from images to their features, one line a stage (Otero & Delbracio 2014)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.pipeline import strips
from gpusift.pipeline.plan import Key, ListsTooLongError, Memory, Plan, Plans
from gpusift.pipeline.results import UnfitImageError, results, results_on_host
from gpusift.stages import descriptor, intensities, orientation


def run(
    plans: Plans,
    images: Sequence[Any],
    *,
    mask: Any = None,
    descriptors: bool = True,
    on_host: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> list[Features]:
    """Detects the keypoints of images and describes them.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    images : sequence of (M, N) arrays
        NumPy's, or of the device, of one shape; any dtype that `skimage.util.img_as_float` takes.
    mask : (M, N) array, optional
        Of the device, for all images. Zero where no keypoint is wanted.
    descriptors : bool
        Whether to compute them.
    on_host : bool
        Whether to copy the features to the host, all arrays of all images at once.
    on_stage : callable, optional
        Called with each stage's name when it has ended on the device, for measurements.

    Returns
    -------
    list of Features
        On the device, or on the host; of length zero where there are none. An image's do not depend on the others.

    Raises
    ------
    TypeError
        If an image is not an array of real numbers.
    ValueError
        If it is not 2-D, is empty, or holds NaN, infinity or values too large to square.
    """
    device, parameters = plans.device, plans.parameters
    key = Key(len(images), intensities.require_image(images[0]), mask is not None, descriptors)

    def ended(stage: str) -> None:
        if on_stage:
            device.synchronize()
            on_stage(stage)

    if not parameters.octave_shapes(key.shape):
        for number, image in enumerate(images):
            _require_fit(image, number)
        return _delivered([_none(device, parameters, descriptors) for _ in images], on_host)
    if plans.exceeds_limit(key):
        return _delivered(_in_strips(plans, images, mask, descriptors), on_host)
    with device.active(), plans.memory() as memory:
        plan = memory.plan(key)
        if mask is not None:
            plan.mask[...] = mask != 0
        load_batch(memory, plan, images)
        ended("upload")
        if on_stage:
            for stage in plan.stages:
                plan.run(stage)
                ended(stage)
        else:
            plan.run()
        with suppress(ListsTooLongError), _named(images):
            return results_on_host(memory, plan) if on_host else results(memory, plan)
    return _delivered(_in_strips(plans, images, mask, descriptors), on_host)


def _delivered(several: list[Features], on_host: bool) -> list[Features]:
    return [features.to_host() for features in several] if on_host else several


def _in_strips(plans: Plans, images: Sequence[Any], mask: Any, descriptors: bool) -> list[Features]:
    """The features of images that together, or with lists as long as they need, exceed the memory limit."""
    if len(images) > 1:
        return [features for image in images for features in run(plans, [image], mask=mask, descriptors=descriptors)]
    with _named(images):
        return [strips.run(plans, images[0], mask, descriptors)]


@contextmanager
def _named(images: Sequence[Any]) -> Iterator[None]:
    """Has the error of an unfit image say what is wrong with it."""
    try:
        yield
    except UnfitImageError as error:
        raise UnfitImageError(error.number, intensities.unfit(images[error.number])) from None


def load_batch(memory: Memory, plan: Plan, images: Sequence[Any]) -> None:
    """Brings images to a plan."""
    known = [intensities.as_known(image) for image in images]
    on_host = isinstance(known[0], np.ndarray)
    device = memory.device
    there = device.upload(known, memory.staging) if on_host else [device.asarray(image) for image in known]
    plan.load_images(there, [image.dtype.kind == "b" for image in images])


def describe(plans: Plans, image: Any, features: Features, *, assign: bool = False) -> Features:
    """Describes given keypoints in an image.

    Parameters
    ----------
    plans, image
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
    device, parameters = plans.device, plans.parameters
    key = Key(1, intensities.require_image(image))
    n_octaves = len(parameters.octave_shapes(key.shape))
    with device.active():
        _require_fit(image)
        if len(features):
            _require_levels(features, n_octaves, parameters.n_scales)
        if not n_octaves:
            return features.with_descriptors(device.xp.empty((0, parameters.n_values), np.uint8))
        if plans.exceeds_limit(key):
            raise MemoryError(
                f"memory_limit must hold the whole scale space of an image to describe given keypoints in it, got "
                f"{plans.memory_limit} bytes for {key.shape[0]} x {key.shape[1]} pixels; use a larger limit or none"
            )
        with plans.memory() as memory:
            plan = memory.plan(key)
            load_batch(memory, plan, [image])
            plan.run("scale space")
            shifted = features.shifted(parameters.position_shift)
            if assign:
                shifted = orientation.assign(device, plan.space, shifted, parameters)
                features = shifted.shifted(-parameters.position_shift)
            return features.with_descriptors(descriptor.describe(device, plan.space, shifted, parameters))


def _require_fit(image: Any, number: int = 0) -> None:
    if image.dtype.kind == "f" and not bool((abs(image) <= intensities.LARGEST).all()):
        raise UnfitImageError(number, intensities.unfit(image))


def _none(device: Device, parameters: Parameters, descriptors: bool) -> Features:
    """No features."""
    reals, integers = device.xp.empty(0, device.dtype), device.xp.empty(0, np.int32)
    values = device.xp.empty((0, parameters.n_values), np.uint8) if descriptors else None
    return Features(reals.reshape(0, 2), reals, integers, integers, reals, reals, values)


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
