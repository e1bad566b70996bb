"""Images as intensities, scaled as `skimage.util.img_as_float` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.floating_point import default_mode
from gpusift.stages.workspace import Step, Table, Workspace

LARGEST = 1e15  # of floats: the squares of larger ones overflow float32
BLOCK = (128,)

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Image:
    """An image whose shape and dtype have been checked.

    Attributes
    ----------
    pixels : (M, N) array of one of `DTYPES`
        Of NumPy, or of the device.
    is_bool : bool
        Whether the pixels, of uint8, are booleans.
    from_gpu : bool
        Whether the image was passed as an array of a GPU.
    ready : mark or None
        The mark from which on pixels on the device can be read; None if they are on the host.
    """

    pixels: Any
    is_bool: bool = False
    from_gpu: bool = False
    ready: Any = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return tuple(self.pixels.shape)

    @property
    def on_host(self) -> bool:
        """Whether the pixels are an array of NumPy."""
        return isinstance(self.pixels, np.ndarray)


def image_of(array: Any) -> Image:
    """A 2-D array of real numbers as an image: booleans become bytes, half precision single, long double double."""
    if array.dtype.kind == "b":
        return Image(array.view(np.uint8), is_bool=True)
    if array.dtype.kind == "f" and array.dtype.name not in DTYPES:
        with default_mode(), np.errstate(over="ignore"):  # infinity is unfit, as the value itself is
            array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return Image(array)


def steps(work: Workspace) -> list[Step]:
    """The launch that writes the intensities to `ScaleSpace.staging_of` each image, and empties the lists.

    Unsigned integers of b bits are divided by 2^b - 1, signed ones by 2^(b-1) - 1 and cut at -1; floats stay as they
    are. An image with a float that is not finite or larger than `LARGEST` is unfit; see `why_unfit`. There is no launch
    where the first octave is given.
    """
    inputs, space, lists = work.inputs, work.space, work.lists
    if inputs is None or (work.octaves is not None and work.octaves.start):
        return []
    layout, table = inputs.layout, inputs.table
    rows, cols = layout.image_shape
    images = inputs.pixels, layout.image_bytes, table.dtypes, rows, cols, table.units, LARGEST
    out = space.level(0, space.n_levels - 1).samples, space.stride, table.unfit
    emptied = len(lists.counts), lists.counts, space.n_rows, lists.row_counts
    return [work.device.prepare("intensities", (rows, 1, layout.batch), BLOCK, *images, *out, *emptied)]


def write_table(table: Table, images: Sequence[Image]) -> None:
    """Writes what the kernels know of images to a table on the host."""
    table.unfit[:] = 0
    for number, image in enumerate(images):
        dtype = image.pixels.dtype
        table.units[number] = 1.0 if image.is_bool or dtype.kind == "f" else 1.0 / np.iinfo(dtype).max
        table.dtypes[number] = DTYPES.index(dtype.name)


def is_fit(image: Image) -> bool:
    """Whether no pixel of an image is unfit, for images that no kernel reads."""
    return image.pixels.dtype.kind != "f" or bool((abs(image.pixels) <= LARGEST).all())


def why_unfit(image: Image) -> str:
    """What is wrong with an image that has an unfit pixel, and what to do."""
    low, high = float(image.pixels.min()), float(image.pixels.max())
    return (
        f"image must be finite, with values between -{LARGEST:g} and {LARGEST:g}, got values from {low} to {high}; "
        "replace NaN and infinity, e.g. with numpy.nan_to_num"
    )
