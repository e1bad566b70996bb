"""Geometric verification: the homography or fundamental matrix that most matches satisfy, by OpenCV's USAC."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.matching.matches import matched_points
from gpusift.opencv_package import import_cv2

MODELS = ("homography", "fundamental")
NAMES = {"homography": "homography", "fundamental": "fundamental matrix"}  # in messages

# Matches that determine each model; eight, because the seven-point method gives up to three matrices.
LEAST_MATCHES = {"homography": 4, "fundamental": 8}

# A homography with this fraction of the fundamental matrix's inliers explains the pair: the scene is flat, or the
# camera only rotated, and the fundamental matrix is not unique. COLMAP's TwoViewGeometryOptions::max_H_inlier_ratio.
FLAT_FRACTION = 0.8

MAX_ITERATIONS = 10_000
CONFIDENCE = 0.9999


@dataclass(frozen=True, eq=False)
class Geometry:
    """The result of `verify`. Coordinates are x (column) and y (row), the centre of the upper left pixel at (0, 0).

    Attributes
    ----------
    model : {"homography", "fundamental"} or None
        None if no model was found; `reason` then says why.
    matrix : (3, 3) float64 array or None
        With a = (x, y, 1) in the first image and b in the second: a homography H satisfies b ~ H a, a fundamental
        matrix F satisfies b^T F a = 0.
    inliers : (Q,) bool array
        Which of the matches satisfy the model.
    threshold : float
        Largest residual of an inlier, pixels.
    reason : str
        Why there is no model; else empty.
    """

    model: str | None
    matrix: np.ndarray | None
    inliers: np.ndarray
    threshold: float
    reason: str = ""


def verify(
    features_a: Features,
    features_b: Features,
    matches: Any,
    *,
    model: str = "auto",
    threshold: float = 3.0,
    min_inliers: int = 15,
) -> Geometry:
    """Find the two-view geometry that most matches satisfy, by OpenCV's MAGSAC (Barath et al., 2020).

    The result is deterministic.

    Parameters
    ----------
    features_a, features_b : Features
        Of the two images, on any device.
    matches : Matches or (Q, 2) array of int
        Indices into the features of the first and of the second image.
    model : {"auto", "homography", "fundamental"}, optional
        "auto" takes the homography if it has at least 0.8 times the inliers of the fundamental matrix.
    threshold : float, optional
        Largest residual of an inlier, pixels: the distance from the homography's prediction, or the Sampson distance
        of a fundamental matrix.
    min_inliers : int, optional
        A model with fewer inliers is rejected, as a few matches satisfy some model by chance. 15 is COLMAP's
        TwoViewGeometryOptions::min_num_inliers.

    Returns
    -------
    geometry : Geometry
        Its model is None if the matches are too few or satisfy no model.

    Raises
    ------
    ValueError
        The model is unknown, the threshold is not a positive number, or the matches are not pairs of indices into the
        features.
    """
    if model not in ("auto", *MODELS):
        raise ValueError(f"model must be one of 'auto', 'homography', 'fundamental', got {model!r}")
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a positive number of pixels, got {threshold!r}")
    points_a, points_b = matched_points(features_a, features_b, matches)
    models = MODELS if model == "auto" else (model,)
    fitted = [_fit(name, points_a, points_b, threshold, min_inliers) for name in models]
    if all(geometry.model is None for geometry in fitted):
        return replace(fitted[0], reason="; ".join(geometry.reason for geometry in fitted))
    if len(fitted) == 2 and fitted[0].inliers.sum() < FLAT_FRACTION * fitted[1].inliers.sum():
        return fitted[1]
    return fitted[0]


def _fit(model: str, points_a: np.ndarray, points_b: np.ndarray, threshold: float, min_inliers: int) -> Geometry:
    """Fit one model to (Q, 2) points x, y."""
    cv2 = import_cv2()

    least, n = LEAST_MATCHES[model], len(points_a)
    none = np.zeros(n, dtype=bool)
    if n < least:
        return Geometry(None, None, none, threshold, f"a {NAMES[model]} needs {least} matches or more, got {n}")
    if model == "homography":
        matrix, mask = cv2.findHomography(
            points_a, points_b, cv2.USAC_MAGSAC, threshold, maxIters=MAX_ITERATIONS, confidence=CONFIDENCE
        )
    else:
        matrix, mask = cv2.findFundamentalMat(
            points_a, points_b, cv2.USAC_MAGSAC, threshold, CONFIDENCE, MAX_ITERATIONS
        )
    if matrix is None:
        return Geometry(None, None, none, threshold, f"no {NAMES[model]} fits the {n} matches")
    inliers = mask.ravel() != 0
    if inliers.sum() < min_inliers:
        reason = f"the best {NAMES[model]} has {inliers.sum()} of {n} matches as inliers, which could be chance"
        return Geometry(None, None, none, threshold, f"{reason}: {min_inliers} are needed")
    return Geometry(model, matrix, inliers, threshold)
