"""The scale space: the enlarged image and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    levels: Any
    octaves: Any
    shapes: list[tuple[int, int]]
    n_levels: int

    def octave(self, index: int) -> Any:
        """(n_levels, rows, cols) view of an octave's levels."""
        rows, cols = self.shapes[index]
        size = self.n_levels * rows * pitch(cols)
        start = _offsets(self.shapes, self.n_levels)[index]
        return self.levels[start : start + size].reshape(self.n_levels, rows, pitch(cols))[:, :, :cols]

    def level(self, index: int, level: int) -> Level:
        """One level of an octave, as the kernels take it."""
        rows, cols = self.shapes[index]
        start = _offsets(self.shapes, self.n_levels)[index] + level * rows * pitch(cols)
        return Level(self.levels[start : start + rows * pitch(cols)], rows, cols)


@dataclass(frozen=True, eq=False)
class Level:
    """One level: a flat array of rows, `pitch(cols)` samples apart."""

    samples: Any
    rows: int
    cols: int

    @property
    def image(self) -> Any:
        """(rows, cols) view."""
        return self.samples.reshape(self.rows, pitch(self.cols))[:, : self.cols]


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
    smooth = _ndimage_blur if blur == "ndimage" else _kernel_blur
    for o in range(len(space.shapes)):
        if o == 0:
            enlarged = space.level(0, 1)  # its place is free until level 1 is computed
            _upsample(device, image, parameters.upsampling, enlarged)
            smooth(device, enlarged, parameters.first_blur, space.level(0, 0))
        else:
            _decimate(device, space.level(o - 1, parameters.n_scales), space.level(o, 0))
        for s, sigma in enumerate(parameters.blurs):
            smooth(device, space.level(o, s), sigma, space.level(o, s + 1))
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
    *offsets, size = _offsets(shapes, n_levels)
    table = [(offset, rows, cols, pitch(cols)) for offset, (rows, cols) in zip(offsets, shapes)]
    levels = device.xp.empty(size + ROOM, device.dtype) if workspace is None else workspace
    levels[:ROOM] = levels[size:] = 0
    return ScaleSpace(levels, device.asarray(np.array(table, np.int64).reshape(-1, 4)), shapes, n_levels)


def _offsets(shapes: list[tuple[int, int]], n_levels: int) -> list[int]:
    """Where each octave begins in the buffer, and where the last one ends."""
    return list(accumulate((n_levels * rows * pitch(cols) for rows, cols in shapes), initial=ROOM))


def _upsample(device: Device, image: Any, factor: int, out: Level) -> None:
    rows, cols = image.shape
    device.launch("upsample", (rows,), ROW_BLOCK, image, rows, cols, out.samples, pitch(out.cols), constant=factor)


def _decimate(device: Device, level: Level, out: Level) -> None:
    device.launch(
        "decimate",
        (out.rows,),
        ROW_BLOCK,
        level.samples,
        level.rows,
        level.cols,
        pitch(level.cols),
        out.samples,
        pitch(out.cols),
    )


def _kernel_blur(device: Device, level: Level, sigma: float, out: Level) -> None:
    taps = _taps(sigma, device.dtype)
    radius = len(taps) - 1
    if radius > MAX_RADIUS:
        raise ValueError(
            f"blur='kernel' takes Gaussians of a radius up to {MAX_RADIUS} samples, got {radius} (sigma {sigma:g} "
            "samples); pass blur='ndimage' or smaller sigma_min"
        )
    if radius == 0:
        out.samples[...] = level.samples
        return
    tiles = -(-level.rows // TILES["BLUR_TILE_ROWS"]) * -(-level.cols // TILES["BLUR_TILE_COLS"])
    device.launch(
        "blur",
        (tiles,),
        BLUR_BLOCK,
        level.samples,
        level.rows,
        level.cols,
        pitch(level.cols),
        device.asarray(taps),
        radius,
        out.samples,
        constant=radius,
    )


@cache
def _taps(sigma: float, dtype: np.dtype) -> np.ndarray:
    return gaussian_taps(sigma).astype(dtype) if sigma > 0 else np.ones(1, dtype)


def _ndimage_blur(device: Device, level: Level, sigma: float, out: Level) -> None:
    out.image[...] = device.ndimage.gaussian_filter(level.image, sigma, mode="reflect")
