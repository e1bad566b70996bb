"""The scale space: the enlarged image and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from gpusift.device import TILES, Device
from gpusift.parameters import MAX_RADIUS, Parameters, gaussian_taps

BLURS = ("auto", "kernel", "ndimage")

LINE = 16  # samples to a multiple of which rows are padded
ROOM = 64  # samples before the first level and after the last, which a host's vectors may read beyond a row
BLUR_BLOCK = (64, 4)
ROW_BLOCK = (128,)  # one block per row


@dataclass(frozen=True, eq=False)
class ScaleSpace:
    """All octaves' Gaussian levels, in one buffer on a device.

    Attributes
    ----------
    levels : (S,) array
        Room, the levels of the first octave, one after the other, then the next octave's, and room again. A level's
        rows are `pitch` samples apart.
    octaves : (n_octaves, 4) array of int64
        Offset in `levels`, rows, columns and pitch of each octave; on the device.
    shapes : list of (int, int)
        Rows and columns of each octave's levels.
    n_levels : int
        Levels of an octave.
    offsets : list of int
        Where each octave begins in `levels`, and where the last one ends.
    """

    levels: Any
    octaves: Any
    shapes: list[tuple[int, int]]
    n_levels: int
    offsets: list[int]

    def octave(self, index: int) -> Any:
        """(n_levels, rows, cols) view of an octave's levels."""
        rows, cols = self.shapes[index]
        start, end = self.offsets[index : index + 2]
        return self.levels[start:end].reshape(self.n_levels, rows, pitch(cols))[:, :, :cols]

    def level(self, index: int, level: int) -> Level:
        """One level of an octave, as the kernels take it."""
        rows, cols = self.shapes[index]
        size = rows * pitch(cols)
        start = self.offsets[index] + level * size
        return Level(self.levels[start : start + size], rows, cols, pitch(cols))


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


Blur = Callable[[Level, Level], None]


def pitch(cols: int) -> int:
    """Samples from a row to the next: an odd number of cache lines, so that a column falls on all sets of a cache."""
    return (-(-cols // LINE) | 1) * LINE


def size_of(parameters: Parameters, image_shape: tuple[int, int]) -> int:
    """Samples of the buffer that holds the scale space of an image of that shape."""
    return _offsets(parameters.octave_shapes(image_shape), parameters.n_levels)[-1] + ROOM


def build(device: Device, image: Any, parameters: Parameters, blur: str = "auto", workspace: Any = None) -> ScaleSpace:
    """The scale space of an image.

    Parameters
    ----------
    device : Device
        Where to build it.
    image : (M, N) array of the device, in its precision
        Intensities.
    parameters : Parameters
        upsampling, n_octaves, n_scales, sigma_min and sigma_in matter here.
    blur : {"auto", "kernel", "ndimage"}
        Our kernel, the same bytes everywhere, or the array library's filter. "auto" is "kernel".
    workspace : (size_of(parameters, image.shape),) array of the device, optional
        Where to put the levels; by default in new memory.

    Returns
    -------
    ScaleSpace

    Raises
    ------
    ValueError
        If a blur is too wide for the kernel.
    """
    space = _lay_out(device, parameters.octave_shapes(image.shape), parameters.n_levels, workspace)
    blur_by = _ndimage_blur if blur == "ndimage" else _kernel_blur
    first_blur, *blurs = (blur_by(device, sigma) for sigma in (parameters.first_blur, *parameters.blurs))
    for o in range(len(space.shapes)):
        if o == 0:
            enlarged = space.level(0, 1)  # its place is free until level 1 is computed
            _upsample(device, image, parameters.upsampling, enlarged)
            first_blur(enlarged, space.level(0, 0))
        else:
            _decimate(device, space.level(o - 1, parameters.n_scales), space.level(o, 0))
        levels = [space.level(o, s) for s in range(space.n_levels)]
        for blur_to_next, level, following in zip(blurs, levels, levels[1:]):
            blur_to_next(level, following)
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
    space = _lay_out(device, [octave.shape[1:] for octave in octaves], len(octaves[0]) if octaves else 0)
    for index, octave in enumerate(octaves):
        space.octave(index)[...] = device.asarray(octave, device.dtype)
    return space


def _lay_out(device: Device, shapes: list[tuple[int, int]], n_levels: int, workspace: Any = None) -> ScaleSpace:
    offsets = _offsets(shapes, n_levels)
    size = offsets[-1]
    table = [(offset, rows, cols, pitch(cols)) for offset, (rows, cols) in zip(offsets, shapes)]
    levels = device.xp.empty(size + ROOM, device.dtype) if workspace is None else workspace
    levels[:ROOM] = levels[size:] = 0
    return ScaleSpace(levels, device.asarray(np.array(table, np.int64).reshape(-1, 4)), shapes, n_levels, offsets)


def _offsets(shapes: list[tuple[int, int]], n_levels: int) -> list[int]:
    """Where each octave begins in the buffer, and where the last one ends."""
    return list(accumulate((n_levels * rows * pitch(cols) for rows, cols in shapes), initial=ROOM))


def _upsample(device: Device, image: Any, factor: int, out: Level) -> None:
    rows, cols = image.shape
    device.launch("upsample", (rows,), ROW_BLOCK, image, rows, cols, out.samples, out.pitch, constant=factor)


def _decimate(device: Device, level: Level, out: Level) -> None:
    device.launch(
        "decimate",
        (out.rows,),
        ROW_BLOCK,
        level.samples,
        level.rows,
        level.cols,
        level.pitch,
        out.samples,
        out.pitch,
    )


def _kernel_blur(device: Device, sigma: float) -> Blur:
    """Our kernel, for one sigma in samples."""
    taps = _taps(sigma, device.dtype)
    radius = len(taps) - 1
    if radius > MAX_RADIUS:
        raise ValueError(
            f"blur='kernel' takes Gaussians of a radius up to {MAX_RADIUS} samples, got {radius} (sigma {sigma:g} "
            "samples); pass blur='ndimage' or smaller sigma_min"
        )
    on_device = device.asarray(taps)

    def blur(level: Level, out: Level) -> None:
        if radius == 0:
            out.samples[...] = level.samples
            return
        rows, cols = level.rows, level.cols
        tiles = -(-rows // TILES["BLUR_TILE_ROWS"]) * -(-cols // TILES["BLUR_TILE_COLS"])
        arguments = level.samples, rows, cols, level.pitch, on_device, radius, out.samples
        device.launch("blur", (tiles,), BLUR_BLOCK, *arguments, constant=radius)

    return blur


@cache
def _taps(sigma: float, dtype: np.dtype) -> np.ndarray:
    return gaussian_taps(sigma).astype(dtype) if sigma > 0 else np.ones(1, dtype)


def _ndimage_blur(device: Device, sigma: float) -> Blur:
    """The array library's filter, for one sigma in samples."""

    def blur(level: Level, out: Level) -> None:
        out.image[...] = device.ndimage.gaussian_filter(level.image, sigma, mode="reflect")

    return blur
