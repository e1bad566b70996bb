"""Functions in place of OpenCV's C++ classes that call a detector: they cannot call `gpusift.opencv.SIFT`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gpusift.opencv.arrays import as_umat, checked_mask, on_host

if TYPE_CHECKING:
    from gpusift.opencv.keypoints import KeyPoints
    from gpusift.opencv.sift import SIFT

# Blur before an image is tilted, by its tilt (Yu and Morel 2011, ASIFT: An Algorithm for Fully Affine Invariant
# Comparison, section 2).
ANTI_ALIASING = 0.8
LEAST_SIGMA = 0.01


def image_features(sift: SIFT, image: Any, mask: Any = None) -> Any:
    """Features of an image for OpenCV's stitching, as `cv2.detail.computeImageFeatures2`.

    Parameters
    ----------
    sift : SIFT
        What computes.
    image, mask
        As for `SIFT.detectAndCompute`.

    Returns
    -------
    cv2.detail.ImageFeatures
        For `cv2.detail.BestOf2NearestMatcher` and the estimators after it. `img_idx` is 0: set it for each image.
    """
    keypoints, descriptors = sift.detectAndCompute(image, mask)
    # OpenCV's own function makes the object: the descriptors of one that Python makes cannot be set in OpenCV 4.
    features = cv2.detail.computeImageFeatures2(cv2.SIFT.create(1), np.zeros((32, 32), np.uint8))
    rows, columns = on_host(image).shape[:2]
    features.img_size, features.keypoints = (columns, rows), keypoints
    if descriptors is not None:
        features.descriptors = as_umat(descriptors)
    return features


def bow_descriptors(sift: SIFT, image: Any, vocabulary: Any, mask: Any = None) -> np.ndarray | None:
    """Describe an image by the visual words of its features, as `cv2.BOWImgDescriptorExtractor`.

    The vocabulary may be of `cv2.BOWKMeansTrainer` (OpenCV 4), `cv2.kmeans` or any other clustering of descriptors.

    Parameters
    ----------
    sift : SIFT
        What computes.
    image : array
        As for `SIFT.detectAndCompute`.
    vocabulary : (K, 128) array
        Descriptors that are the words.
    mask : array, optional
        As for `SIFT.detectAndCompute`.

    Returns
    -------
    (1, K) float32 array or None
        The fraction of the features whose nearest word is each of the words; None if there are no features.

    Raises
    ------
    ValueError
        The vocabulary has another shape.
    """
    words = np.asarray(on_host(vocabulary), np.float32)
    if words.ndim != 2 or words.shape[1] != sift.descriptorSize() or not len(words):
        raise ValueError(f"vocabulary must be (K, {sift.descriptorSize()}) with a word or more, got {words.shape}")
    _, descriptors = sift.detectAndCompute(image, mask)
    if descriptors is None:
        return None
    matches = cv2.BFMatcher(sift.defaultNorm()).match(on_host(descriptors).astype(np.float32), words)
    counts = np.bincount([match.trainIdx for match in matches], minlength=len(words))
    return (counts / len(matches)).astype(np.float32)[None]


def affine_features(
    sift: SIFT,
    image: Any,
    mask: Any = None,
    *,
    max_tilt: int = 5,
    min_tilt: int = 0,
    tilt_step: float = math.sqrt(2),
    rotate_step_base: float = 72,
) -> tuple[KeyPoints, np.ndarray | None]:
    """Features of simulated views of an image, as `cv2.AffineFeature` (ASIFT, Yu and Morel 2011).

    Parameters
    ----------
    sift : SIFT
        What computes.
    image, mask
        As for `SIFT.detectAndCompute`.
    max_tilt, min_tilt : int, optional
        Largest and smallest power of `tilt_step` that the image is tilted by.
    tilt_step : float, optional
        Ratio of a tilt to the one before.
    rotate_step_base : float, optional
        Degrees between rotations, for a tilt of 1; divided by the tilt.

    Returns
    -------
    keypoints : tuple of cv2.KeyPoint
        Of all views, at their positions in the image. Size and angle are those in the view; `class_id` is its number.
    descriptors : (N, 128) array or None
        None if there are no keypoints.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """
    if not 0 <= min_tilt <= max_tilt or not tilt_step > 1 or not rotate_step_base > 0:
        raise ValueError(
            "tilts must have 0 <= min_tilt <= max_tilt, tilt_step > 1 and rotate_step_base > 0, got "
            f"{min_tilt}, {max_tilt}, {tilt_step} and {rotate_step_base}"
        )
    pixels, wanted = on_host(image), checked_mask(mask)
    if wanted is None:
        wanted = np.full(pixels.shape[:2], 255, np.uint8)
    keypoints: list[cv2.KeyPoint] = []
    described: list[np.ndarray] = []
    for number, (tilt, degrees) in enumerate(_views(min_tilt, max_tilt, tilt_step, rotate_step_base)):
        view, view_mask, to_view = _simulate(pixels, wanted.astype(np.uint8), tilt, degrees)
        points, descriptors = sift.detectAndCompute(view, view_mask)
        if descriptors is not None:
            _move_back(points, to_view, number)
            keypoints += points
            described.append(descriptors)
    return tuple(keypoints), np.concatenate(described) if described else None


def _views(min_tilt: int, max_tilt: int, tilt_step: float, rotate_step_base: float) -> Iterator[tuple[float, float]]:
    """Yield tilt and rotation, in degrees, of each view, as OpenCV chooses them."""
    for power in range(min_tilt, max_tilt + 1):
        tilt = tilt_step**power
        step = rotate_step_base / tilt
        n_rotations = 1 if power == 0 else math.ceil(180 / step - 1e-9)
        yield from ((tilt, number * step) for number in range(n_rotations))


def _simulate(image: np.ndarray, mask: np.ndarray, tilt: float, degrees: float) -> tuple[np.ndarray, np.ndarray, Any]:
    """Rotate an image by an angle, then compress its columns by a tilt.

    Returns
    -------
    view : array
        The view.
    mask : (M, N) uint8 array
        Where the view shows what the mask allows.
    to_view : (2, 3) array
        Takes (x, y, 1) of the image to x, y of the view.
    """
    rows, columns = image.shape[:2]
    to_view = np.eye(2, 3)
    view = image
    if degrees:
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]]) @ rotation.T
        left, top, width, height = cv2.boundingRect(np.rint(corners).astype(np.int32))
        to_view = np.column_stack([rotation, (-left, -top)])
        view = cv2.warpAffine(view, to_view, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if tilt != 1:
        view = cv2.GaussianBlur(view, (0, 0), ANTI_ALIASING * math.sqrt(tilt * tilt - 1), sigmaY=LEAST_SIGMA)
        view = cv2.resize(view, None, fx=1 / tilt, fy=1, interpolation=cv2.INTER_NEAREST)
        to_view[0] /= tilt
    if degrees or tilt != 1:
        mask = cv2.warpAffine(mask, to_view, view.shape[1::-1], flags=cv2.INTER_NEAREST)
    return view, mask, to_view


def _move_back(points: KeyPoints, to_view: np.ndarray, number: int) -> None:
    """Move keypoints of a view to their positions in the image, and number them by the view."""
    to_image = cv2.invertAffineTransform(to_view)
    for point in points:
        x, y = to_image @ (*point.pt, 1)
        point.pt, point.class_id = (float(x), float(y)), number
