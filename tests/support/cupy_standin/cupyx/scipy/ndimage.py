"""Filters of images."""

from __future__ import annotations

import numpy as np
from cupy import _evaluate
from standin.lacks import lacks


@lacks("order", "output", "mode", "cval", "radius", "axes")
def gaussian_filter(input, sigma, order=0, output=None, mode="reflect", cval=0.0, truncate=4.0, radius=None, axes=None):
    """A Gaussian blur, with weights and sums in the image's precision, as CuPy's generated kernel has them."""
    if sigma <= 1e-15:
        return input.copy()
    half = int(truncate * sigma + 0.5)
    offsets = np.arange(-half, half + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * offsets**2)
    weights = (weights / weights.sum()).astype(input.dtype)

    def blur(image: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            padded = np.pad(image, [(half, half) if a == axis else (0, 0) for a in (0, 1)], mode="symmetric")
            length = image.shape[axis]
            summed = np.zeros_like(image)
            for number, weight in enumerate(weights):
                summed += weight * padded.take(range(number, number + length), axis)
            image = summed
        return image

    return _evaluate.whole("gaussian_filter", blur, input)
