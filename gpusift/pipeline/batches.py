"""Many images: batches of equal shapes, computed at once, and a stream of them that overlaps copies and computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpusift import pipeline
from gpusift.features import Features
from gpusift.pipeline.plan import Key, ListsTooLongError, Memory, Plan, Plans, bytes_of
from gpusift.pipeline.results import UnfitImageError, results_on_host
from gpusift.pipeline.strips import LimitTooSmallError
from gpusift.stages import intensities


def compute(plans: Plans, images: Sequence[Any], batch_size: int | None, on_host: bool = False) -> list[Features]:
    """The features of images, in their order; those of one shape are computed at once.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    images : sequence of (M, N) arrays
        NumPy's, or of the device; of any shapes.
    batch_size : int or None
        Images at once, at most; None: as many as suit the device and its memory. When its memory runs out in spite of
        it, half as many.
    on_host : bool
        Whether to copy the features to the host, a batch at a time.

    Raises
    ------
    MemoryError
        If not even one image fits.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, image in enumerate(images):
        key = intensities.require_image(image), isinstance(image, np.ndarray)
        groups.setdefault(key, []).append(number)
    found: list[Any] = [None] * len(images)
    for (shape, _), numbers in groups.items():
        size = batch_size or size_for(plans, shape)
        for first in range(0, len(numbers), size):
            chunk = numbers[first : first + size]
            try:
                of_chunk = _with_less_memory(plans, [images[number] for number in chunk], on_host)
            except UnfitImageError as error:
                raise ValueError(f"image {chunk[error.number]} of the batch: {error}") from None
            for number, features in zip(chunk, of_chunk, strict=True):
                found[number] = features
    return found


def size_for(plans: Plans, shape: tuple[int, int]) -> int:
    """Images of that shape that suit the device and its memory."""
    needed = bytes_of(plans.device, plans.parameters, Key(1, shape))
    fit = plans.memory_limit // needed if plans.memory_limit else needed
    return max(1, min(plans.device.batch_size(needed), fit))


def _with_less_memory(plans: Plans, images: Sequence[Any], on_host: bool) -> list[Features]:
    try:
        return pipeline.run(plans, images, on_host=on_host)
    except LimitTooSmallError:
        raise
    except plans.device.OutOfMemoryError:
        plans.forget()
        if len(images) == 1:
            rows, cols = images[0].shape
            raise MemoryError(
                f"the memory of device {plans.device.name} must hold some 150 bytes for each of the image's {rows} x "
                f"{cols} pixels, and did not; pass memory_limit, smaller images or upsampling=1"
            ) from None
    half = len(images) // 2
    found = _with_less_memory(plans, images[:half], on_host)
    try:
        return found + _with_less_memory(plans, images[half:], on_host)
    except UnfitImageError as error:
        raise UnfitImageError(half + error.number, str(error)) from None


class _Started(NamedTuple):
    """A batch that the device works at."""

    slot: _Slot
    plan: Plan | None
    images: list[Any]
    first: int


class _Slot:
    """A stream and its memory: what one batch at a time has."""

    def __init__(self, plans: Plans) -> None:
        self.stream = plans.device.stream()
        self.memory = Memory(plans.device, plans.parameters, plans.blur, plans.memory_limit)


def stream(
    plans: Plans,
    images: Iterable[Any],
    check: Callable[[Any], Any],
    batch_size: int | None,
    n_streams: int | None = None,
) -> Iterator[Features]:
    """The features of any number of images, on the host, in their order.

    While the device computes a batch, the next one is taken from the iterable and copied to it, and the results of the
    one before are copied back. Neighbours of one shape make a batch.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    images : iterable of arrays
        Taken as they are needed: batch_size * n_streams of them are held at most.
    check : callable
        Makes of each an array of NumPy or of the device; may raise.
    batch_size : int or None
        Images at once, at most; None: as many as suit the device and its memory.
    n_streams : int, optional
        Batches at once; by default the device's number.

    Raises
    ------
    TypeError, ValueError
        If an image is not a finite 2-D array of numbers; says its number. Those before it have been given.
    """
    slots = deque(_Slot(plans) for _ in range(n_streams or plans.device.n_streams))
    started: deque[_Started] = deque()
    try:
        for first, batch, error in _batches(plans, images, check, batch_size, len(slots)):
            if not slots:
                yield from _finish(plans, started[0])
                slots.append(started.popleft().slot)
            if batch:
                started.append(_start(plans, slots.popleft(), batch, first))
            if error:
                break
        while started:
            yield from _finish(plans, started[0])
            started.popleft()
        if error:
            raise type(error)(f"image {first + len(batch)}: {error}") from error
    finally:
        for batch_left in started:
            with plans.device.active(), batch_left.slot.stream:
                plans.device.synchronize()


def _batches(
    plans: Plans, images: Iterable[Any], check: Callable[[Any], Any], batch_size: int | None, n_streams: int
) -> Iterator[tuple[int, list[Any], Exception | None]]:
    """Neighbours of one shape: the number of the first, the images, and the error that the next one raised, if any."""
    batch: list[Any] = []
    number = 0
    for image in images:
        try:
            array = check(image)
            shape = intensities.require_image(array)
        except (TypeError, ValueError) as error:
            yield number - len(batch), batch, error
            return
        size = batch_size or max(1, size_for(plans, shape) // n_streams)
        if batch and (len(batch) >= size or array.shape != batch[0].shape or type(array) is not type(batch[0])):
            yield number - len(batch), batch, None
            batch = []
        batch.append(array)
        number += 1
    yield number - len(batch), batch, None


def _start(plans: Plans, slot: _Slot, images: list[Any], first: int) -> _Started:
    key = Key(len(images), tuple(images[0].shape))
    if not plans.parameters.octave_shapes(key.shape) or plans.exceeds_limit(key):
        return _Started(slot, None, images, first)
    with plans.device.active(), slot.stream:
        plan = slot.memory.plan(key)
        pipeline.load_batch(slot.memory, plan, images)
        plan.run()
    return _Started(slot, plan, images, first)


def _finish(plans: Plans, batch: _Started) -> Iterator[Features]:
    try:
        if batch.plan is None:  # too small for an octave, or too large for the memory
            found = pipeline.run(plans, batch.images, on_host=True)
        else:
            with plans.device.active(), batch.slot.stream:
                found = results_on_host(batch.slot.memory, batch.plan)
    except ListsTooLongError:
        found = pipeline.run(plans, batch.images, on_host=True)
    except UnfitImageError as error:
        if error.number:
            yield from pipeline.run(plans, batch.images[: error.number], on_host=True)
        reason = intensities.unfit(batch.images[error.number])
        raise ValueError(f"image {batch.first + error.number}: {reason}") from None
    yield from found
