"""The scale space: the enlarged image and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpusift.device import TILES, Device
from gpusift.parameters import MAX_RADIUS, Parameters, gaussian_taps

BLURS = ("auto", "kernel", "ndimage")

ROOM = 64  # samples after the last level, which a host's vectors may read beyond the last row
BLUR_BLOCK = (64, 4)
ROW_BLOCK = (128,)  # one block per row


@dataclass(frozen=True, eq=False)
class ScaleSpace:
    """All octaves' Gaussian levels, in one buffer on a device.

    Attributes
    ----------
    levels : (S,) array
        The levels of the first octave, one after the other, then the next octave's, and room at the end.
    octaves : (n_octaves, 3) array of int64
        Offset in `levels`, rows and columns of each octave; on the device.
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
        start = sum(self.n_levels * r * c for r, c in self.shapes[:index])
        return self.levels[start : start + self.n_levels * rows * cols].reshape(self.n_levels, rows, cols)


def build(device: Device, image: Any, parameters: Parameters, blur: str = "auto") -> ScaleSpace:
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

    Returns
    -------
    ScaleSpace

    Raises
    ------
    ValueError
        If a blur is too wide for the kernel.
    """
    space = _allocate(device, parameters.octave_shapes(image.shape), parameters.n_levels)
    if not space.shapes:
        return space
    smooth = _ndimage_blur if blur == "ndimage" else _kernel_blur
    first = space.octave(0)
    enlarged = first[1]  # its place is free until level 1 is computed
    rows, cols = image.shape
    device.launch("upsample", (rows,), ROW_BLOCK, image, rows, cols, enlarged, constant=parameters.upsampling)
    smooth(device, enlarged, parameters.first_blur, first[0])
    for index in range(len(space.shapes)):
        octave = space.octave(index)
        if index > 0:
            _decimate(device, space.octave(index - 1)[parameters.n_scales], octave[0])
        for level, sigma in enumerate(parameters.blurs):
            smooth(device, octave[level], sigma, octave[level + 1])
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
    space = _allocate(device, [octave.shape[1:] for octave in octaves], len(octaves[0]) if octaves else 0)
    for index, octave in enumerate(octaves):
        space.octave(index)[...] = device.asarray(octave, device.dtype)
    return space


def _allocate(device: Device, shapes: list[tuple[int, int]], n_levels: int) -> ScaleSpace:
    sizes = [n_levels * rows * cols for rows, cols in shapes]
    offsets = [sum(sizes[:index]) for index in range(len(sizes))]
    table = np.array([(o, *s) for o, s in zip(offsets, shapes)], np.int64).reshape(-1, 3)
    levels = device.xp.empty(sum(sizes) + ROOM, device.dtype)
    levels[sum(sizes) :] = 0
    return ScaleSpace(levels, device.asarray(table), shapes, n_levels)


def _kernel_blur(device: Device, level: Any, sigma: float, out: Any) -> None:
    taps = _taps(sigma, device.dtype)
    radius = len(taps) - 1
    if radius > MAX_RADIUS:
        raise ValueError(
            f"blur='kernel' takes Gaussians of a radius up to {MAX_RADIUS} samples, got {radius} (sigma {sigma:g} samples); "
            "pass blur='ndimage' or smaller sigma_min"
        )
    if radius == 0:
        out[...] = level
        return
    rows, cols = level.shape
    tiles = -(-rows // TILES["BLUR_TILE_ROWS"]) * -(-cols // TILES["BLUR_TILE_COLS"])
    device.launch(
        "blur", (tiles,), BLUR_BLOCK, level, rows, cols, device.asarray(taps), radius, out, constant=radius
    )


@cache
def _taps(sigma: float, dtype: np.dtype) -> np.ndarray:
    return gaussian_taps(sigma).astype(dtype) if sigma > 0 else np.ones(1, dtype)


def _ndimage_blur(device: Device, level: Any, sigma: float, out: Any) -> None:
    device.ndimage.gaussian_filter(level, sigma, output=out, mode="reflect")


def _decimate(device: Device, level: Any, out: Any) -> None:
    rows, cols = level.shape
    device.launch("decimate", (out.shape[0],), ROW_BLOCK, level, rows, cols, out)
