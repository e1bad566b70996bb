"""The memory layout of a scale space: the Gaussian levels of all octaves of a batch, in one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.parameters import Parameters

LINE = 16  # samples of a cache line, to a multiple of which rows are padded
MARGIN = 64  # samples before the first level and after the last one, which a host's vectors may read beyond a row
OCTAVE_COLUMNS = 8  # of the table of octaves that the kernels read


@dataclass(frozen=True, eq=False)
class ScaleSpace:
    """The Gaussian levels of all octaves of a batch of images, in one buffer on a device.

    Attributes
    ----------
    levels : (batch * stride,) array
        For each image a margin, the levels of the first octave, one after the other, then those of the next octave, and
        a margin again. Rows of a level are `pitch` samples apart.
    octaves : (n_octaves, 8) array of int64
        The table of octaves that the kernels read (kernels/octave.cuh, Octave), on the device.
    shapes : list of (int, int)
        Rows and columns of each octave's levels.
    n_levels : int
        Levels of an octave.
    offsets : list of int
        Samples from the start of an image's levels to each octave, and to the end of the last one.
    batch : int
        Number of images.
    """

    levels: Any
    octaves: Any
    shapes: list[tuple[int, int]]
    n_levels: int
    offsets: list[int]
    batch: int = 1

    @property
    def stride(self) -> int:
        """Samples from the levels of one image to those of the next."""
        return self.offsets[-1] + MARGIN

    @property
    def n_rows(self) -> int:
        """Number of rows of one level of every octave together."""
        return sum(rows for rows, _ in self.shapes)

    def hold_strip(self, device: Device, index: int, rows: int, start: int, begin: int, end: int) -> None:
        """Declares the levels of an octave to be a strip of larger levels.

        Parameters
        ----------
        device : Device
            The device of the buffer.
        index : int
            Index of the octave.
        rows : int
            Rows of the whole levels.
        start : int
            The row of the whole levels that the strip's first row is.
        begin, end : int
            Candidates are searched in the rows from `begin` to before `end` of the whole levels.
        """
        held, cols = self.shapes[index]
        across = pitch(cols)
        row = (self.offsets[index] - start * across, rows, cols, across, held * across, -begin, begin, end)
        self.octaves[index] = device.asarray(np.array(row, np.int64))

    def position(self, index: int, level: int) -> int:
        """Samples from the start of an image's levels to a level."""
        rows, cols = self.shapes[index]
        return self.offsets[index] + level * rows * pitch(cols)

    def octave(self, index: int, image: int = 0) -> Any:
        """(n_levels, rows, cols) view of the levels of an octave."""
        rows, cols = self.shapes[index]
        start, end = (image * self.stride + offset for offset in self.offsets[index : index + 2])
        return self.levels[start:end].reshape(self.n_levels, rows, pitch(cols))[:, :, :cols]

    def level(self, index: int, level: int, image: int = 0) -> Level:
        """One level of an octave of an image; that of the next image is `stride` samples further on."""
        rows, cols = self.shapes[index]
        start = image * self.stride + self.position(index, level)
        return Level(self.levels[start : start + rows * pitch(cols)], rows, cols, pitch(cols))

    def staging_of(self, image: int, size: int) -> Any:
        """(size,) array for the intensities of an image: the memory of the last level of the first octave.

        That level is computed after the intensities have been read for the last time.
        """
        return self.level(0, self.n_levels - 1, image).samples[:size]


@dataclass(frozen=True, eq=False)
class Level:
    """One level: a flat array of rows that are `pitch` samples apart."""

    samples: Any
    rows: int
    cols: int
    pitch: int

    @property
    def image(self) -> Any:
        """(rows, cols) view."""
        return self.samples.reshape(self.rows, self.pitch)[:, : self.cols]


def pitch(cols: int) -> int:
    """Samples from a row to the next: an odd number of cache lines, so that a column uses all sets of a cache."""
    return (-(-cols // LINE) | 1) * LINE


def stride_of(parameters: Parameters, shapes: list[tuple[int, int]]) -> int:
    """Samples that the scale space of one image takes, with octaves of these shapes."""
    return _offsets(shapes, parameters.n_levels)[-1] + MARGIN


def lay_out(
    device: Device, shapes: list[tuple[int, int]], n_levels: int, batch: int = 1, memory: Any = None
) -> ScaleSpace:
    """A scale space whose levels are not computed yet.

    Parameters
    ----------
    device : Device
        The device of its buffer.
    shapes : list of (int, int)
        Rows and columns of each octave's levels.
    n_levels, batch : int
        Number of levels of an octave, and of images.
    memory : (batch * stride,) array of the device, optional
        The buffer; by default it is allocated.
    """
    offsets = _offsets(shapes, n_levels)
    stride = offsets[-1] + MARGIN
    first_rows = accumulate((rows for rows, _ in shapes), initial=0)
    table = [
        (offset, rows, cols, pitch(cols), rows * pitch(cols), first_row, 0, rows)
        for offset, (rows, cols), first_row in zip(offsets, shapes, first_rows)
    ]
    levels = device.xp.empty(batch * stride, device.dtype) if memory is None else memory
    for image in range(batch):
        for end in (image * stride + MARGIN, (image + 1) * stride):
            levels[end - MARGIN : end] = 0
    octaves = device.asarray(np.array(table, np.int64).reshape(-1, OCTAVE_COLUMNS))
    return ScaleSpace(levels, octaves, shapes, n_levels, offsets, batch)


def from_octaves(device: Device, octaves: Sequence[np.ndarray]) -> ScaleSpace:
    """A scale space from levels that were computed elsewhere.

    Parameters
    ----------
    device : Device
        The device of its buffer.
    octaves : sequence of (n_levels, rows, cols) arrays
        The levels of each octave.
    """
    space = lay_out(device, [octave.shape[1:] for octave in octaves], len(octaves[0]) if octaves else 0)
    for index, octave in enumerate(octaves):
        space.octave(index)[...] = device.asarray(octave, device.dtype)
    return space


def _offsets(shapes: list[tuple[int, int]], n_levels: int) -> list[int]:
    """Samples from the start of an image's levels to each octave, and to the end of the last one."""
    return list(accumulate((n_levels * rows * pitch(cols) for rows, cols in shapes), initial=MARGIN))
