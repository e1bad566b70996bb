"""The scale space: the enlarged image and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from gpusift.devices import TILES, Device
from gpusift.parameters import MAX_FUSED_RADIUS, MAX_RADIUS, Parameters, gaussian_taps
from gpusift.stages import blur_order, feature_lists
from gpusift.stages.blur_order import Blur
from gpusift.stages.levels import Level, ScaleSpace, lay_out
from gpusift.stages.workspace import Step, Workspace

BLURS = ("auto", "kernel", "ndimage")

ALIGNED = 4  # samples that a thread copies at once
MAX_BLUR_THREADS = 224  # of a block of `first_level`
ROW_BLOCK = (128,)  # one block for each row


def steps(work: Workspace) -> list[Step]:
    """Launches that compute the levels from the intensities, which are at `ScaleSpace.staging_of` each image.

    Raises
    ------
    ValueError
        If a blur is too wide for the kernel.
    """
    octaves = range(len(work.space.shapes)) if work.octaves is None else work.octaves
    if work.blur == "ndimage":
        return _ndimage_steps(work, octaves)
    taps = [_checked_taps(sigma, work.device.dtype) for sigma in work.parameters.blurs]
    blurs = blur_order.chain(octaves, taps, work.parameters.n_scales)
    return [*([] if octaves.start else _first_level(work)), _blur(work, blurs)]


def build(device: Device, image: Any, parameters: Parameters, blur: str = "auto") -> ScaleSpace:
    """The scale space of one image, an (M, N) array of intensities on the device."""
    shape = tuple(image.shape)
    space = lay_out(device, parameters.octave_shapes(shape), parameters.n_levels)
    if space.shapes:
        space.staging_of(0, image.size)[...] = image.reshape(-1)
        lists = feature_lists.allocate(device, parameters, 1, 1, space.n_rows)
        device.program(steps(Workspace(device, parameters, space, lists, shape, blur=blur)))()
    return space


def _first_level(work: Workspace) -> list[Step]:
    """Enlarges the images and blurs them to the first level: one kernel if the blur is narrow, otherwise two."""
    device, space, factor = work.device, work.space, work.parameters.upsampling
    rows, cols = _held_shape(work)
    taps = _checked_taps(work.parameters.first_blur, device.dtype)
    radius, first = len(taps) - 1, space.level(0, 0)
    image = space.level(0, space.n_levels - 1).samples
    if 1 <= radius <= MAX_FUSED_RADIUS:
        centre, on_device = work.parameters.sample_centre, device.asarray(taps)
        arguments = image, rows, cols, space.stride, factor, centre, on_device, radius, first.samples, first.pitch
        block = _blur_block(-(-_copied_cols(radius) // (factor * TILES["ENLARGED_SPAN"])))
        return [device.prepare("first_level", _tiles(space, 0), block, *arguments, constant=radius)]
    enlarged = space.level(0, 1) if radius else first  # the memory of level 1 is free until that is computed
    upsample = _upsample(device, space, work.parameters, (rows, cols), enlarged)
    return [upsample, _blur(work, [Blur(octave=0, level=1, to=0, taps=taps)])] if radius else [upsample]


def _held_shape(work: Workspace) -> tuple[int, int]:
    """Rows and columns of the images that are held: those of a strip, or of the whole image."""
    return work.space.shapes[0][0] // work.parameters.upsampling, work.image_shape[1]


def _upsample(
    device: Device, space: ScaleSpace, parameters: Parameters, image_shape: tuple[int, int], out: Level
) -> Step:
    image = space.level(0, space.n_levels - 1).samples
    arguments = image, *image_shape, space.stride, parameters.sample_centre, out.samples, out.pitch
    grid = out.rows, 1, space.batch
    return device.prepare("upsample", grid, ROW_BLOCK, *arguments, constant=parameters.upsampling)


def _blur(work: Workspace, blurs: list[Blur]) -> Step:
    """The launch of some blurs."""
    device, space = work.device, work.space
    order = blur_order.order_of(space, blurs, device.blur_piece, device.blur_blocks)
    radii = sorted({blur.radius for blur in blurs}, reverse=True)
    return device.prepare(
        "blur",
        (len(order.pieces),),
        device.blur_block,
        space.levels,
        space.stride,
        device.asarray(order.blurs),
        device.asarray(order.pieces),
        len(order.pieces),
        *device.blur_piece,
        device.asarray(order.taps),
        device.xp.zeros(1, np.int64),
        order.n_bands,
        device.xp.zeros((space.batch, order.n_bands), np.int32),
        sizes={"BLUR_RADII": ",".join(map(str, radii))},
    )


def _tiles(space: ScaleSpace, octave: int) -> tuple[int, int, int]:
    rows, cols = space.shapes[octave]
    return (-(-rows // TILES["BLUR_TILE_ROWS"]) * -(-cols // TILES["BLUR_TILE_COLS"]), 1, space.batch)


def _copied_cols(radius: int) -> int:
    """Columns of a tile with its halo, of whole copies."""
    return TILES["BLUR_TILE_COLS"] + 2 * -(-radius // ALIGNED) * ALIGNED


def _blur_block(across: int) -> tuple[int, int]:
    """A block whose threads side by side take a row of a tile with its halo at once."""
    return (across, max(1, MAX_BLUR_THREADS // across))


def _decimate(device: Device, space: ScaleSpace, octave: int, s: int) -> Step:
    level, out = space.level(octave, s), space.level(octave + 1, 0)
    arguments = level.samples, level.rows, level.cols, level.pitch, space.stride, out.samples, out.pitch
    return device.prepare("decimate", (out.rows, 1, space.batch), ROW_BLOCK, *arguments)


def _checked_taps(sigma: float, dtype: np.dtype) -> np.ndarray:
    """A Gaussian's weights for our kernel; sigma in samples."""
    taps = _taps(sigma, dtype)
    radius = len(taps) - 1
    if radius > MAX_RADIUS:
        raise ValueError(
            f"blur='kernel' takes Gaussians of a radius up to {MAX_RADIUS} samples, got {radius} (sigma {sigma:g} "
            "samples); pass blur='ndimage' or smaller sigma_min"
        )
    return taps


@cache
def _taps(sigma: float, dtype: np.dtype) -> np.ndarray:
    if sigma == 0:
        return np.ones(1, dtype)
    taps = gaussian_taps(sigma)
    return _scipy_taps(sigma, len(taps) - 1) if dtype == np.float64 else taps.astype(dtype)


def _scipy_taps(sigma: float, radius: int) -> np.ndarray:
    """The weights that SciPy's filter applies, to the last bit: its answer to an impulse, from the centre on."""
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    return np.asarray(gaussian_filter1d(impulse, sigma, mode="constant"))[radius:]


def _ndimage_steps(work: Workspace, octaves: range) -> list[Step]:
    """The same by the array library's filter, image after image."""
    device, space, parameters = work.device, work.space, work.parameters

    def blur(sigma: float, at: tuple[int, int], to: tuple[int, int]) -> Step:
        def run() -> None:
            for image in range(space.batch):
                level, out = space.level(*at, image), space.level(*to, image)
                device.gaussian_filter(level.image, sigma, out.image)

        return run

    operations: list[Step] = []
    if octaves.start == 0:
        operations.append(_upsample(device, space, parameters, _held_shape(work), space.level(0, 1)))
        operations.append(blur(parameters.first_blur, (0, 1), (0, 0)))
    for o in octaves:
        operations += [blur(sigma, (o, s), (o, s + 1)) for s, sigma in enumerate(parameters.blurs)]
        if o + 1 in octaves:
            operations.append(_decimate(device, space, o, parameters.n_scales))
    return operations
