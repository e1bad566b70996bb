"""Reducing an image to a largest side, and what a decoded image says about its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.images.errors import ImageReadError
from gpusift.opencv_package import import_cv2

SCALABLE = ("uint8", "uint16", "int16", "float32", "float64")  # the dtypes that cv2.resize averages


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes
    ----------
    image : (M, N) array
        Grey values: a NumPy array or, if a GPU decoded the file, a CuPy array.
    shape : tuple of int
        Rows and columns of the image in the file, after its orientation is applied and before it is reduced.
    scale : float
        Longer side of `image` divided by the longer side of `shape`; at most 1.
    """

    image: Any
    shape: tuple[int, int]
    scale: float


def reduced(image: Any, max_size: int | None, name: str | os.PathLike[str]) -> Decoded:
    """Reduce an image whose longer side exceeds a limit.

    Parameters
    ----------
    image : (M, N) array
        A NumPy array. A CuPy array is allowed if its longer side is within the limit.
    max_size : int or None
        Limit of the longer side, pixels.
    name : str or path-like
        The file's name in error messages.

    Returns
    -------
    decoded : Decoded

    Raises
    ------
    ImageReadError
        The image must be reduced, and its dtype cannot be.
    """
    shape = (image.shape[0], image.shape[1])
    scale = min(1.0, max_size / max(shape)) if max_size else 1.0
    return Decoded(image if scale == 1 else _average(image, scale, name), shape, scale)


def _average(image: np.ndarray, scale: float, name: str | os.PathLike[str]) -> np.ndarray:
    """Average the pixels of an image down to `scale` times its sides."""
    cv2 = import_cv2()

    if image.dtype not in SCALABLE:
        raise ImageReadError(
            name, f"must be {', '.join(SCALABLE[:-1])} or {SCALABLE[-1]} to be made smaller, but it is {image.dtype}"
        )
    rows, columns = (max(1, round(side * scale)) for side in image.shape)
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
