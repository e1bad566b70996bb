"""OpenCV's parameters of SIFT, checked and translated to gpusift's."""

# ruff: noqa: N803 - the names are OpenCV's

from __future__ import annotations

import math
import operator
from typing import Any

from gpusift.parameters import MAX_SCALES, Parameters

INIT_SIGMA = 0.5  # blur that the image is assumed to have, input pixels (SIFT_INIT_SIGMA)
LEAST_BLUR = 0.1  # of the enlarged image, samples: for a `sigma` that the image's own blur reaches
ALL_OCTAVES = 32  # more than any image has
ANY_EDGE = 1e12  # edgeThreshold that keeps every edge


def translated(
    nfeatures: int, nOctaveLayers: int, contrastThreshold: float, edgeThreshold: float, sigma: float
) -> dict[str, Any]:
    """Return the arguments of `gpusift.SIFT` that have the effect of OpenCV's parameters."""
    per_c_dog = Parameters(n_scales=nOctaveLayers, c_dog=1).final_c_dog
    return {
        "n_octaves": ALL_OCTAVES,
        "n_scales": nOctaveLayers,
        "sigma_min": sigma,
        "sigma_in": min(INIT_SIGMA, math.sqrt(max(sigma**2 - LEAST_BLUR**2, 0)) / 2),
        "c_dog": max(contrastThreshold, 0) / nOctaveLayers / per_c_dog,
        "c_edge": edgeThreshold if edgeThreshold > 0 else ANY_EDGE,
        "max_keypoints": nfeatures if nfeatures > 0 else None,
        "descriptor_layout": "ubc",
    }


def checked(name: str, value: Any) -> int | float:
    """Return a parameter as a number of its kind; errors call it by OpenCV's name."""
    whole = name in ("nfeatures", "nOctaveLayers")
    try:
        number = operator.index(value) if whole else float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if name == "nOctaveLayers" and not 1 <= number <= MAX_SCALES:
        raise ValueError(f"nOctaveLayers must be between 1 and {MAX_SCALES}, got {value!r}")
    if name == "sigma" and number <= 0:
        raise ValueError(f"sigma must be greater than 0, got {value!r}")
    return number
