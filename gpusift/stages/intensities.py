"""Images as intensities, scaled as `skimage.util.img_as_float` does."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.devices import Device

LARGEST = 1e15  # of floats: beyond it they would overflow float32 when squared
BLOCK = (128,)

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


def require_image(image: Any) -> tuple[int, int]:
    """The shape of an image; TypeError or ValueError if it is not a 2-D array of real numbers."""
    if image.dtype.kind not in "buif":
        raise TypeError(f"image must be an array of booleans, integers or floats, got dtype {image.dtype}")
    if image.ndim != 2:
        hint = "; convert a colour image to grey first, e.g. with skimage.color.rgb2gray" if image.ndim == 3 else ""
        raise ValueError(f"image must be 2-D (rows, columns), got shape {tuple(image.shape)}{hint}")
    if image.size == 0:
        raise ValueError(f"image must have at least one pixel, got shape {tuple(image.shape)}")
    return tuple(image.shape)


def as_known(image: Any) -> Any:
    """The image in a dtype that the kernel reads: booleans as bytes, half precision as single, others as double."""
    if image.dtype.kind == "b":
        return image.view(np.uint8)
    if image.dtype.kind == "f" and image.dtype.name not in DTYPES:
        with np.errstate(over="ignore"):  # infinity is refused later
            return image.astype(np.float32 if image.dtype.itemsize < 4 else np.float64)
    return image


def load_image(device: Device, image: Any, is_bool: bool, out: Any, unfit: Any) -> None:
    """Writes an image's intensities.

    Unsigned integers of b bits are divided by 2^b - 1, signed ones by 2^(b-1) - 1 and cut at -1; floats stay.

    Parameters
    ----------
    device : Device
        The device of the arrays.
    image : (M, N) array of one of `DTYPES`, C-contiguous
        Its pixels.
    is_bool : bool
        Whether its bytes are booleans.
    out : (M * N,) array of the device's precision
        Where to.
    unfit : (1,) array of int32
        Raised where a float is not finite, or larger than `LARGEST`; see `unfit`.
    """
    rows, cols = image.shape
    unit = 1.0 if is_bool or image.dtype.kind == "f" else 1.0 / np.iinfo(image.dtype).max
    pixels, dtype = image.reshape(-1).view(np.uint8), DTYPES.index(image.dtype.name)
    device.launch("intensities", (rows,), BLOCK, pixels, rows, cols, dtype, unit, LARGEST, out, unfit)


def unfit(image: Any) -> str:
    """What is wrong with an image that has been found unfit."""
    low, high = float(image.min()), float(image.max())
    return (
        f"image must be finite, with values between -{LARGEST:g} and {LARGEST:g}, got values from {low} to {high}; "
        "replace NaN and infinity, e.g. with numpy.nan_to_num"
    )
