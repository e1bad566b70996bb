"""Verifying matches: the homography or the epipolar geometry that most of them obey, by OpenCV's USAC."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.matching.matches import matched_points
from gpusift.opencv_package import import_cv2

MODELS = ("homography", "fundamental")
NAMES = {"homography": "homography", "fundamental": "fundamental matrix"}  # in words

# Points that determine each of them; the seven-point method gives up to three matrices, so eight.
LEAST_MATCHES = {"homography": 4, "fundamental": 8}

# A homography with this share of the inliers of a fundamental matrix explains the pair: the scene is flat, or the
# camera only turned, and the fundamental matrix is one of many. COLMAP's TwoViewGeometryOptions::max_H_inlier_ratio.
FLAT_SHARE = 0.8

MAX_ITERATIONS = 10_000
CONFIDENCE = 0.9999


@dataclass(frozen=True, eq=False)
class Geometry:
    """What `verify` found. Coordinates are x (column) and y (row), the centre of the upper left pixel at (0, 0).

    Attributes
    ----------
    model : {"homography", "fundamental"} or None
        None if there is none; `reason` then says why.
    matrix : (3, 3) float64 array or None
        A homography H takes points of the first image to the second, b ~ H a; a fundamental matrix F makes
        b^T F a = 0; with a = (x, y, 1) in the first image and b in the second.
    inliers : (Q,) bool array
        Which of the matches obey it.
    threshold : float
        How far a match may be off, pixels.
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
    """Find the geometry of two views that most matches obey, by MAGSAC (Barath et al., 2020) of OpenCV.

    The same matches give the same result every time.

    Parameters
    ----------
    features_a, features_b : Features
        Of the two images, on any device.
    matches : Matches or (Q, 2) array of int
        Indices into the one and the other.
    model : {"auto", "homography", "fundamental"}, optional
        "auto" takes the homography if it has at least 0.8 times the inliers of the fundamental matrix.
    threshold : float, optional
        How far an inlier may be from where the model wants it, pixels: from its image under a homography; the Sampson
        distance of a fundamental matrix.
    min_inliers : int, optional
        With fewer there is no model: a few matches obey some model by chance. 15 is COLMAP's
        TwoViewGeometryOptions::min_num_inliers.

    Returns
    -------
    geometry : Geometry
        With model None if the matches are too few or obey none.

    Raises
    ------
    ValueError
        If the model is unknown, the threshold not a positive number, or the matches are no pairs of indices into the
        features.
    """
    if model not in ("auto", *MODELS):
        raise ValueError(f"model must be one of 'auto', 'homography', 'fundamental', got {model!r}")
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a positive number of pixels, got {threshold!r}")
    points_a, points_b = matched_points(features_a, features_b, matches)
    models = MODELS if model == "auto" else (model,)
    found = [_fit(name, points_a, points_b, threshold, min_inliers) for name in models]
    if all(geometry.model is None for geometry in found):
        return replace(found[0], reason="; ".join(geometry.reason for geometry in found))
    if len(found) == 2 and found[0].inliers.sum() < FLAT_SHARE * found[1].inliers.sum():
        return found[1]
    return found[0]


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
        found = f"the best {NAMES[model]} has {inliers.sum()} of {n} matches as inliers, which could be chance"
        return Geometry(None, None, none, threshold, f"{found}: {min_inliers} are needed")
    return Geometry(model, matrix, inliers, threshold)
