"""From images to their features, through these modules.

| module | what it does |
|---|---|
| `inputs` | checks an image as the user passes it: an `Image`, or `Unfit` with the reason |
| `batches` | puts images of one shape together |
| `computation` | chooses how a batch is computed: by one plan, in halves, or strip by strip; overlaps batches |
| `key` | what a plan is made for: how many images, of which shape, which part of them |
| `plan` | holds the buffers and the launches of all stages (`gpusift.stages.STAGES`) |
| `strips` | computes an image that exceeds the memory limit, with plans for some of its rows or octaves |
| `results` | reads the outcome for each image: `Features`, or `Unfit` |
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.pipeline import batches, computation
from gpusift.pipeline.computation import Wanted
from gpusift.pipeline.key import Key
from gpusift.pipeline.outcomes import Outcome, Unfit, with_provenance
from gpusift.pipeline.plan import Plans
from gpusift.stages import affine_shape, descriptor, intensities, orientation
from gpusift.stages.collection import no_features
from gpusift.stages.intensities import Image
from gpusift.stages.levels import ScaleSpace


def compute(
    plans: Plans,
    images: Sequence[Image | Unfit],
    batch_size: int | None = None,
    *,
    mask: Any = None,
    descriptors: bool = True,
    on_host: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Detects the keypoints of images and describes them; images of one shape are computed together.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    images : sequence of Image or Unfit
        As `inputs.open_image` gives them; of any shapes.
    batch_size : int, optional
        Images that are computed together, at most. By default as many as suit the device and its memory.
    mask : (M, N) array, optional
        Of integers or booleans, on the host or the device, for all images, which are of this shape then. Zero where no
        keypoint is wanted.
    descriptors : bool
        Whether to compute descriptors.
    on_host : bool
        Whether to copy the features to the host, all those of a batch in one copy.
    on_stage : callable, optional
        Called with each stage's name when it has ended on the device, for measurements.

    Returns
    -------
    list of Features or Unfit
        The outcome for each image. It does not depend on the other images.
    """
    outcomes: list[Any] = [None] * len(images)
    with plans.device.active():
        wanted = Wanted(descriptors, on_host, on_stage)
        for numbers, some in computation.compute(plans, batches.by_shape(plans, images, batch_size, mask), wanted):
            for number, outcome in zip(numbers, some, strict=True):
                outcomes[number] = outcome
    return outcomes


def stream(
    plans: Plans, images: Iterable[Image | Unfit], batch_size: int | None = None, n_streams: int | None = None
) -> Generator[Outcome, None, None]:
    """The outcomes for any number of images, in their order, with the features on the host.

    While the device computes a batch, the next one is taken from the iterable and copied to the device, and the
    features of the previous one are copied back.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    images : iterable of Image or Unfit
        Taken as they are needed. Neighbours of one shape make a batch.
    batch_size : int, optional
        Images of a batch, at most. By default as many as suit the device and its memory.
    n_streams : int, optional
        Batches that are computed at once; by default the number that suits the device.
    """
    n_streams = n_streams or plans.device.n_streams
    neighbours = batches.of_neighbours(plans, images, batch_size, n_streams)
    for _, outcomes in computation.compute(plans, neighbours, Wanted(on_host=True), n_streams):
        yield from outcomes


def describe(plans: Plans, image: Image, features: Features, *, assign: bool = False) -> Outcome:
    """Describes keypoints of the user's own in an image.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    image : Image
        As `inputs.open_image` gives it.
    features : Features
        Keypoints, on the device, in its precision.
    assign : bool
        Whether to assign their orientations first. A keypoint may have several, and appears once for each then.

    Raises
    ------
    ValueError
        If a keypoint lies in an octave or at a scale that the image does not have.
    """
    device, parameters, key = plans.device, plans.parameters, Key.of([image])
    n_octaves = len(parameters.octave_shapes(key.shape))
    with device.active():
        if not intensities.is_fit(image):
            return Unfit(ValueError, intensities.why_unfit(image))
        require_levels(parameters, features, n_octaves)
        if not n_octaves:
            return with_provenance(no_features(device, parameters), parameters)
        with scale_space_of(plans, image) as space:
            if isinstance(space, Unfit):
                return space
            biased = features.shifted(parameters.position_shift)
            biased = affine_shape.estimate(device, space, biased, parameters)
            features = replace(features, affine_shapes=biased.affine_shapes)
            if assign:
                biased = orientation.assign(device, space, biased, parameters)
                features = biased.shifted(-parameters.position_shift)
            described = descriptor.describe(device, space, biased, parameters)
            return with_provenance(features.with_descriptors(described), parameters)


@contextmanager
def scale_space_of(plans: Plans, image: Image) -> Iterator[ScaleSpace | Unfit]:
    """The levels of an image that has an octave, for other uses than finding features; valid within the context.

    Parameters
    ----------
    plans : Plans
        Of a device, which is the current one, parameters and a blur.
    image : Image
        As `inputs.open_image` gives it, with finite values (`intensities.is_fit`).

    Yields
    ------
    ScaleSpace or Unfit
        Unfit if the levels exceed the memory limit.
    """
    key = Key.of([image])
    if plans.exceeds_limit(key):
        reason = (
            f"memory_limit must hold the whole scale space of an image to use given keypoints in it, got "
            f"{plans.memory_limit} bytes for {key.shape[0]} x {key.shape[1]} pixels; use a larger limit or none"
        )
        yield Unfit(MemoryError, reason)
    else:
        with plans.memory(key) as memory:
            plan = memory.plan(key)
            memory.load_batch(plan, [image])
            plan.run_through("scale space")
            yield plan.space


def require_levels(parameters: Parameters, features: Features, n_octaves: int) -> None:
    """Raises a ValueError if a keypoint lies in an octave, or at a scale, that an image of this many octaves lacks."""
    if not len(features):
        return
    if n_octaves == 0:
        raise ValueError("the image is too small for an octave, so it has no keypoint")
    first, last = int(features.octaves.min()), int(features.octaves.max())
    if first < 0 or last >= n_octaves:
        raise ValueError(
            f"a keypoint's octave must be one of this image's {n_octaves} octaves, got {first} to {last}: the "
            "keypoints are of a larger image, or of other parameters; select those whose octaves it has"
        )
    first, last = int(features.scales.min()), int(features.scales.max())
    if first < 0 or last >= parameters.n_levels:
        raise ValueError(
            f"a keypoint's scale must be between 0 and n_scales + 2 = {parameters.n_levels - 1}, got {first} to {last}"
        )
