"""The scale space: the enlarged image and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from gpusift.devices import TILES, Device
from gpusift.parameters import MAX_FUSED_RADIUS, MAX_RADIUS, Parameters, gaussian_taps

BLURS = ("auto", "kernel", "ndimage")

LINE = 16  # samples to a multiple of which rows are padded
ROOM = 64  # samples before the first level and after the last, which a host's vectors may read beyond a row
BLUR_BLOCK = (64, 4)
ROW_BLOCK = (128,)  # one block per row
OCTAVE_COLUMNS = 8  # of the table that the kernels read


@dataclass(frozen=True, eq=False)
class ScaleSpace:
    """All octaves' Gaussian levels of the images of a batch, in one buffer on a device.

    Attributes
    ----------
    levels : (batch * stride,) array
        For each image room, the levels of the first octave, one after the other, then the next octave's, and room
        again. A level's rows are `pitch` samples apart.
    octaves : (n_octaves, 8) array of int64
        What the kernels must know of each octave (kernels/octave.cuh, Octave); on the device.
    shapes : list of (int, int)
        Rows and columns of each octave's levels.
    n_levels : int
        Levels of an octave.
    offsets : list of int
        Where each octave of an image begins in `levels`, and where the last one ends.
    batch : int
        Images.
    """

    levels: Any
    octaves: Any
    shapes: list[tuple[int, int]]
    n_levels: int
    offsets: list[int]
    batch: int = 1

    @property
    def stride(self) -> int:
        """Samples from an image's levels to the next one's."""
        return self.offsets[-1] + ROOM

    @property
    def n_rows(self) -> int:
        """Rows of all octaves."""
        return sum(rows for rows, _ in self.shapes)

    def hold_strip(self, device: Device, index: int, rows: int, start: int, begin: int, end: int) -> None:
        """Says that an octave's levels are those rows from `start` on of levels of so many `rows`.

        Candidates are to be looked for in the rows from `begin` to before `end`.
        """
        held, cols = self.shapes[index]
        offset, across = self.offsets[index] - start * pitch(cols), pitch(cols)
        row = (offset, rows, cols, across, held * across, -begin, begin, end)
        self.octaves[index] = device.asarray(np.array(row, np.int64))

    def octave(self, index: int, image: int = 0) -> Any:
        """(n_levels, rows, cols) view of an octave's levels."""
        rows, cols = self.shapes[index]
        start, end = (image * self.stride + offset for offset in self.offsets[index : index + 2])
        return self.levels[start:end].reshape(self.n_levels, rows, pitch(cols))[:, :, :cols]

    def level(self, index: int, level: int, image: int = 0) -> Level:
        """One level of an octave of an image; the next image's is `stride` samples further on."""
        rows, cols = self.shapes[index]
        size = rows * pitch(cols)
        start = image * self.stride + self.offsets[index] + level * size
        return Level(self.levels[start : start + size], rows, cols, pitch(cols))

    def staging_of(self, image: int, size: int) -> Any:
        """(size,) array for an image's intensities: where its first octave's last level goes, long afterwards."""
        return self.level(0, self.n_levels - 1, image).samples[:size]


@dataclass(frozen=True, eq=False)
class Level:
    """One level: a flat array of rows, `pitch` samples apart."""

    samples: Any
    rows: int
    cols: int
    pitch: int

    @property
    def image(self) -> Any:
        """(rows, cols) view."""
        return self.samples.reshape(self.rows, self.pitch)[:, : self.cols]


Step = Callable[[], None]


def pitch(cols: int) -> int:
    """Samples from a row to the next: an odd number of cache lines, so that a column falls on all sets of a cache."""
    return (-(-cols // LINE) | 1) * LINE


def stride_of(parameters: Parameters, shapes: list[tuple[int, int]]) -> int:
    """Samples that a scale space of octaves of these shapes takes."""
    return _offsets(shapes, parameters.n_levels)[-1] + ROOM


def lay_out(
    device: Device, shapes: list[tuple[int, int]], n_levels: int, batch: int = 1, memory: Any = None
) -> ScaleSpace:
    """A scale space that is yet to be computed.

    Parameters
    ----------
    device : Device
        Where.
    shapes : list of (int, int)
        Rows and columns of each octave's levels.
    n_levels, batch : int
        Levels of an octave; images.
    memory : (batch * stride,) array of the device, optional
        Where the levels go; by default new memory.
    """
    offsets = _offsets(shapes, n_levels)
    stride = offsets[-1] + ROOM
    first_rows = accumulate((rows for rows, _ in shapes), initial=0)
    table = [
        (offset, rows, cols, pitch(cols), rows * pitch(cols), first_row, 0, rows)
        for offset, (rows, cols), first_row in zip(offsets, shapes, first_rows)
    ]
    levels = device.xp.empty(batch * stride, device.dtype) if memory is None else memory
    for image in range(batch):
        for end in (image * stride + ROOM, (image + 1) * stride):
            levels[end - ROOM : end] = 0
    octaves = device.asarray(np.array(table, np.int64).reshape(-1, OCTAVE_COLUMNS))
    return ScaleSpace(levels, octaves, shapes, n_levels, offsets, batch)


def steps(
    device: Device,
    space: ScaleSpace,
    parameters: Parameters,
    image_shape: tuple[int, int],
    blur: str = "auto",
    octaves: range | None = None,
) -> list[Step]:
    """What computes a scale space, when the intensities are at the images' `ScaleSpace.staging_of`.

    Parameters
    ----------
    device : Device
        The device of `space`.
    space : ScaleSpace
        Whose levels to compute.
    parameters : Parameters
        upsampling, n_octaves, n_scales, sigma_min and sigma_in matter here.
    image_shape : (int, int)
        Rows and columns of the images.
    blur : {"auto", "kernel", "ndimage"}
        Our kernels, the same bytes everywhere, or the array library's filter. "auto" is "kernel".
    octaves : range, optional
        Which octaves; by default all. If not from 0 on, the first one's first level is there already.

    Raises
    ------
    ValueError
        If a blur is too wide for the kernel.
    """
    octaves = range(len(space.shapes)) if octaves is None else octaves
    if blur == "ndimage":
        return _ndimage_steps(device, space, parameters, image_shape, octaves)
    taps = [_taps_on(device, sigma) for sigma in parameters.blurs]
    found = [] if octaves.start else _first_level(device, space, parameters, image_shape)
    for o in octaves:
        for s, of_level in enumerate(taps):
            to_next = s + 1 == parameters.n_scales and o + 1 in octaves
            found.append(_blur(device, space, (o, s), of_level, to_next))
    return found


def build(device: Device, image: Any, parameters: Parameters, blur: str = "auto") -> ScaleSpace:
    """The scale space of one image, an (M, N) array of intensities on the device."""
    shape = tuple(image.shape)
    space = lay_out(device, parameters.octave_shapes(shape), parameters.n_levels)
    if space.shapes:
        space.staging_of(0, image.size)[...] = image.reshape(-1)
        device.program(steps(device, space, parameters, shape, blur))()
    return space


def from_octaves(device: Device, octaves: Sequence[np.ndarray]) -> ScaleSpace:
    """A scale space from levels computed elsewhere.

    Parameters
    ----------
    device : Device
        Where to put it.
    octaves : sequence of (n_levels, rows, cols) arrays
        The levels of each octave.
    """
    space = lay_out(device, [octave.shape[1:] for octave in octaves], len(octaves[0]) if octaves else 0)
    for index, octave in enumerate(octaves):
        space.octave(index)[...] = device.asarray(octave, device.dtype)
    return space


def _offsets(shapes: list[tuple[int, int]], n_levels: int) -> list[int]:
    """Where each octave begins in the buffer, and where the last one ends."""
    return list(accumulate((n_levels * rows * pitch(cols) for rows, cols in shapes), initial=ROOM))


def _first_level(device: Device, space: ScaleSpace, parameters: Parameters, image_shape: tuple[int, int]) -> list[Step]:
    """Enlarges the images and blurs them to the first level, in one kernel if the blur is narrow, or in two."""
    rows, cols = image_shape
    taps = _taps_on(device, parameters.first_blur)
    radius, first = len(taps) - 1, space.level(0, 0)
    image = space.level(0, space.n_levels - 1).samples
    if 1 <= radius <= MAX_FUSED_RADIUS:
        arguments = image, rows, cols, space.stride, parameters.upsampling, taps, radius, first.samples, first.pitch
        return [device.prepare("first_level", _tiles(space, 0), BLUR_BLOCK, *arguments, constant=radius)]
    enlarged = space.level(0, 1) if radius else first  # level 1's place is free until it is computed
    found = [_upsample(device, space, parameters.upsampling, image_shape, enlarged)]
    return [*found, _blur(device, space, (0, 1), taps, to=(0, 0))] if radius else found


def _upsample(device: Device, space: ScaleSpace, factor: int, image_shape: tuple[int, int], out: Level) -> Step:
    image = space.level(0, space.n_levels - 1).samples
    arguments = image, *image_shape, space.stride, out.samples, out.pitch
    return device.prepare("upsample", (out.rows, 1, space.batch), ROW_BLOCK, *arguments, constant=factor)


def _blur(
    device: Device,
    space: ScaleSpace,
    at: tuple[int, int],
    taps: Any,
    to_next: bool = False,
    to: tuple[int, int] | None = None,
) -> Step:
    """Blurs a level to the one after it, or to another, and, if wanted, on to the next octave's first."""
    octave, s = at
    level, out = space.level(octave, s), space.level(*(to or (octave, s + 1)))
    following = space.level(octave + 1, 0) if to_next else out
    radius = len(taps) - 1
    return device.prepare(
        "blur",
        _tiles(space, octave),
        BLUR_BLOCK,
        level.samples,
        level.rows,
        level.cols,
        level.pitch,
        space.stride,
        taps,
        radius,
        out.samples,
        following.samples,
        following.pitch if to_next else 0,
        constant=radius,
    )


def _tiles(space: ScaleSpace, octave: int) -> tuple[int, int, int]:
    rows, cols = space.shapes[octave]
    return (-(-rows // TILES["BLUR_TILE_ROWS"]) * -(-cols // TILES["BLUR_TILE_COLS"]), 1, space.batch)


def _decimate(device: Device, space: ScaleSpace, octave: int, s: int) -> Step:
    level, out = space.level(octave, s), space.level(octave + 1, 0)
    arguments = level.samples, level.rows, level.cols, level.pitch, space.stride, out.samples, out.pitch
    return device.prepare("decimate", (out.rows, 1, space.batch), ROW_BLOCK, *arguments)


def _taps_on(device: Device, sigma: float) -> Any:
    """A Gaussian's weights for our kernel, on the device; sigma in samples."""
    taps = _taps(sigma, device.dtype)
    radius = len(taps) - 1
    if radius > MAX_RADIUS:
        raise ValueError(
            f"blur='kernel' takes Gaussians of a radius up to {MAX_RADIUS} samples, got {radius} (sigma {sigma:g} "
            "samples); pass blur='ndimage' or smaller sigma_min"
        )
    return device.asarray(taps)


@cache
def _taps(sigma: float, dtype: np.dtype) -> np.ndarray:
    return gaussian_taps(sigma).astype(dtype) if sigma > 0 else np.ones(1, dtype)


def _ndimage_steps(
    device: Device, space: ScaleSpace, parameters: Parameters, image_shape: tuple[int, int], octaves: range
) -> list[Step]:
    """The same by the array library's filter, image after image."""

    def blur(sigma: float, at: tuple[int, int], to: tuple[int, int]) -> Step:
        def run() -> None:
            for image in range(space.batch):
                level, out = space.level(*at, image), space.level(*to, image)
                out.image[...] = device.ndimage.gaussian_filter(level.image, sigma, mode="reflect")

        return run

    found: list[Step] = []
    if octaves.start == 0:
        found.append(_upsample(device, space, parameters.upsampling, image_shape, space.level(0, 1)))
        found.append(blur(parameters.first_blur, (0, 1), (0, 0)))
    for o in octaves:
        found += [blur(sigma, (o, s), (o, s + 1)) for s, sigma in enumerate(parameters.blurs)]
        if o + 1 in octaves:
            found.append(_decimate(device, space, o, parameters.n_scales))
    return found
