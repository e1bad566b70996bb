"""Images as intensities, scaled as `skimage.util.img_as_float` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.devices import Device

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
        with np.errstate(over="ignore"):  # infinity is unfit, as the value itself is
            array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return Image(array)


def load_image(device: Device, pixels: Any, is_bool: bool, out: Any, unfit: Any) -> None:
    """Writes the intensities of an image.

    Unsigned integers of b bits are divided by 2^b - 1, signed ones by 2^(b-1) - 1 and cut at -1; floats stay as they
    are.

    Parameters
    ----------
    device : Device
        The device of the arrays.
    pixels : (M, N) array of one of `DTYPES`, C-contiguous
        On the device.
    is_bool : bool
        Whether the pixels are booleans.
    out : (M * N,) array of the device's precision
        The intensities.
    unfit : (1,) array of int32
        Set to 1 if a float is not finite, or larger than `LARGEST`; see `why_unfit`.
    """
    rows, cols = pixels.shape
    unit = 1.0 if is_bool or pixels.dtype.kind == "f" else 1.0 / np.iinfo(pixels.dtype).max
    values, dtype = pixels.reshape(-1).view(np.uint8), DTYPES.index(pixels.dtype.name)
    device.launch("intensities", (rows,), BLOCK, values, rows, cols, dtype, unit, LARGEST, out, unfit)


def is_fit(image: Image) -> bool:
    """Whether no pixel of an image is unfit, for images that `load_image` does not load."""
    return image.pixels.dtype.kind != "f" or bool((abs(image.pixels) <= LARGEST).all())


def why_unfit(image: Image) -> str:
    """What is wrong with an image that has an unfit pixel, and what to do."""
    low, high = float(image.pixels.min()), float(image.pixels.max())
    return (
        f"image must be finite, with values between -{LARGEST:g} and {LARGEST:g}, got values from {low} to {high}; "
        "replace NaN and infinity, e.g. with numpy.nan_to_num"
    )
