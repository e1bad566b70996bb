"""Batches: images of one shape that are computed together, taken from a list or from a stream of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gpusift.pipeline.outcomes import Unfit
from gpusift.pipeline.plan import Plans
from gpusift.stages.intensities import Image


class Batch(NamedTuple):
    """Images to be computed together: of one shape, and all on the host or all on the device.

    Attributes
    ----------
    numbers : list of int
        The number of each among all images.
    images : list of Image, or list of Unfit
        The images. Those that are unfit make batches of their own.
    mask : (M, N) array, optional
        On the host or the device, for all of them. Zero where no keypoint is wanted.
    """

    numbers: list[int]
    images: list[Any]
    mask: Any = None

    @property
    def is_unfit(self) -> bool:
        """Whether the images are unfit."""
        return isinstance(self.images[0], Unfit)


def by_shape(
    plans: Plans, images: Sequence[Image | Unfit], batch_size: int | None = None, mask: Any = None
) -> Iterator[Batch]:
    """Batches of images in any order.

    Parameters
    ----------
    plans : Plans
        Of a device.
    images : sequence of Image or Unfit
        All images.
    batch_size : int, optional
        Images of a batch, at most. By default as many as suit the device.
    mask : (M, N) array, optional
        On the host or the device, for all images.
    """
    groups: dict[Any, list[int]] = {}
    for number, image in enumerate(images):
        groups.setdefault(kind_of(image), []).append(number)
    for numbers in groups.values():
        size = size_of(plans, images[numbers[0]], batch_size)
        for first in range(0, len(numbers), size):
            chunk = numbers[first : first + size]
            yield Batch(chunk, [images[number] for number in chunk], mask)


def of_neighbours(
    plans: Plans, images: Iterable[Image | Unfit], batch_size: int | None = None, n_streams: int = 1
) -> Iterator[Batch]:
    """Batches of neighbours of one kind, in the order of the images, which are taken as they are needed.

    Parameters
    ----------
    plans : Plans
        Of a device.
    images : iterable of Image or Unfit
        Any number of them.
    batch_size : int, optional
        Images of a batch, at most. By default as many as suit the device when so many batches are computed at once.
    n_streams : int
        Batches that are computed at once.
    """
    numbers: list[int] = []
    batch: list[Any] = []
    for number, image in enumerate(images):
        if batch and kind_of(batch[0]) != kind_of(image):
            yield Batch(numbers, batch)
            numbers, batch = [], []
        numbers.append(number)
        batch.append(image)
        if len(batch) >= size_of(plans, image, batch_size, n_streams):
            yield Batch(numbers, batch)
            numbers, batch = [], []
    if batch:
        yield Batch(numbers, batch)


def kind_of(image: Image | Unfit) -> Any:
    """What the images of a batch have in common."""
    return Unfit if isinstance(image, Unfit) else (image.shape, image.on_host)


def size_of(plans: Plans, image: Image | Unfit, batch_size: int | None, n_streams: int = 1) -> int:
    """Images of a batch with this one, at most; by default as many as suit the device with so many batches at once."""
    if isinstance(image, Unfit):
        return 1
    return batch_size or max(1, plans.batch_size(image.shape) // n_streams)
