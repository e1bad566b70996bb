"""Grey values of colour images, with OpenCV's weights."""

from __future__ import annotations

import os

import numpy as np

from gpusift.images.errors import ImageReadError
from gpusift.opencv_package import import_cv2

# cv2.cvtColor does not take float64; these are its weights for blue, green and red.
BGR_TO_GREY = (0.114, 0.587, 0.299)


def to_grey(image: np.ndarray, name: str | os.PathLike[str]) -> np.ndarray:
    """Convert an image as OpenCV decodes it to grey values.

    Parameters
    ----------
    image : (M, N) or (M, N, 3) array
        Grey, or blue, green and red.
    name : str or path-like
        The file's name in error messages.

    Returns
    -------
    (M, N) array
        Of the same dtype.

    Raises
    ------
    ImageReadError
        The image has another number of samples in a pixel, or colours of a dtype without a conversion.
    """
    cv2 = import_cv2()

    if image.ndim == 2:
        return image
    if image.shape[2] != 3:
        raise ImageReadError(name, f"must have 1, 3 or 4 samples in a pixel, but it has {image.shape[2]}")
    if image.dtype == np.float64:
        return cv2.transform(image, np.array([BGR_TO_GREY]))
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageReadError(
            name,
            "a colour image must be uint8, uint16, float32 or float64, but this one is "
            f"{image.dtype}; convert it to grey first",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
