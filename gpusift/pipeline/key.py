"""What a plan is made for: the number of images, their shape, and the part of them that is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpusift.parameters import Parameters
from gpusift.stages.intensities import Image
from gpusift.stages.workspace import Layout


class Strip(NamedTuple):
    """Some octaves of a large image, or some rows of one octave.

    Attributes
    ----------
    first, last : int
        The octaves from `first` to before `last`.
    rows : int
        Rows that are held of each level of octave `first`: all rows, unless it is the only octave.
    start : int
        Index of the first of these rows.
    begin, end : int
        Candidates are searched in the rows from `begin` to before `end`.
    """

    first: int
    last: int
    rows: int
    start: int
    begin: int
    end: int

    @property
    def is_one_octave(self) -> bool:
        """Whether rows of a single octave are held."""
        return self.last == self.first + 1

    def shapes(self, octave_shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Rows and columns that are held of each octave of an image, whose octaves have these shapes."""
        held = {self.first: self.rows}
        within = range(self.first, self.last)
        return [(held.get(o, rows) if o in within else 0, cols) for o, (rows, cols) in enumerate(octave_shapes)]


class Key(NamedTuple):
    """What a plan is made for.

    Attributes
    ----------
    batch : int
        Number of images.
    shape : (int, int)
        Rows and columns of each image.
    mask_bytes : int
        Bytes of an integer of the mask; 0 without a mask.
    descriptors : bool
        Whether to compute descriptors.
    strip : Strip, optional
        The part that is computed; by default the whole images.
    pixel_bytes : int
        Bytes of a pixel, at most.
    """

    batch: int
    shape: tuple[int, int]
    mask_bytes: int = 0
    descriptors: bool = True
    strip: Strip | None = None
    pixel_bytes: int = 1

    @classmethod
    def of(cls, images: Sequence[Image], mask: Any = None, descriptors: bool = True) -> Key:
        """The key for images of one shape."""
        mask_bytes = 0 if mask is None else mask.dtype.itemsize
        pixel_bytes = max(image.pixels.dtype.itemsize for image in images)
        return cls(len(images), images[0].shape, mask_bytes, descriptors, pixel_bytes=pixel_bytes)

    def shapes(self, parameters: Parameters) -> list[tuple[int, int]]:
        """Rows and columns that are held of each octave's levels."""
        whole = parameters.octave_shapes(self.shape)
        return whole if self.strip is None else self.strip.shapes(whole)

    @property
    def octaves(self) -> range | None:
        """The octaves of the strip; None for all of a whole image."""
        return None if self.strip is None else range(self.strip.first, self.strip.last)

    def layout(self, parameters: Parameters) -> Layout:
        """The layout of what is copied to the device for a batch. A strip has the pixels of its first octave."""
        rows = self.shapes(parameters)[0][0] // parameters.upsampling
        return Layout(self.batch, (rows, self.shape[1]), self.pixel_bytes, self.shape, self.mask_bytes)
