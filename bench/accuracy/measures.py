"""What the accuracy study measures between two images of a plane.

Points are (x, y): column, row; the centre of the upper left pixel is at (0, 0).

References
----------
.. [1] K. Mikolajczyk, T. Tuytelaars, C. Schmid, A. Zisserman, J. Matas, F. Schaffalitzky, T. Kadir, L. Van Gool. "A
       Comparison of Affine Region Detectors", International Journal of Computer Vision, 2005, vol. 65, pp. 43-72:
       repeatability, overlap error, matching score.
.. [2] M. Dusmanu, I. Rocco, T. Pajdla, M. Pollefeys, J. Sivic, A. Torii, T. Sattler. "D2-Net: A Trainable CNN for Joint
       Description and Detection of Local Features", CVPR 2019: mean matching accuracy.
.. [3] D. DeTone, T. Malisiewicz, A. Rabinovich. "SuperPoint: Self-Supervised Interest Point Detection and Description",
       CVPR Workshops 2018: the error of a homography at the image's corners.
.. [4] J. Sun, Z. Shen, Y. Wang, H. Bao, X. Zhou. "LoFTR: Detector-Free Local Feature Matching with Transformers", CVPR
       2021: the area under the cumulative curve of that error.
.. [5] D. G. Lowe. "Distinctive Image Features from Scale-Invariant Keypoints", International Journal of Computer
       Vision, 2004, vol. 60, pp. 91-110: the ratio of distances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[Any]

MAX_RATIO = 0.8  # of the distances of the nearest and the second nearest descriptor [5]
CORRECT = 3.0  # distance of a correspondence and of a correct match, pixels
THRESHOLDS = tuple(range(1, 11))  # of matching accuracy, pixels [2]
AREA_THRESHOLDS = (1, 3, 5)  # of the corner error, pixels [4]
REGION = 30.0  # radius to which regions are scaled before their overlap is computed, pixels [1]
MAX_OVERLAP_ERROR = 0.4  # [1]
RANSAC = {"method": cv2.USAC_MAGSAC, "ransacReprojThreshold": 3.0, "maxIters": 10_000, "confidence": 0.9999}
ESTIMATES = 5  # of a pair's homography
NO_HOMOGRAPHY = 1e4  # corner error if no homography is found, pixels


@dataclass(frozen=True)
class Features:
    """The features of one image.

    Attributes
    ----------
    points : (N, 2) array of float64
        x and y, pixels; the centre of the upper left pixel is at (0, 0).
    sigmas : (N,) array of float64
        Scale, pixels.
    descriptors : (N, 128) array of uint8
    """

    points: Array
    sigmas: Array
    descriptors: Array

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Features:
        return Features(self.points[index], self.sigmas[index], self.descriptors[index])

    def distinct(self) -> Features:
        """Return one feature for each keypoint: without those that differ in orientation only."""
        _, first = np.unique(np.column_stack((self.points, self.sigmas)), axis=0, return_index=True)
        return self[np.sort(first)]


# (Q, 2) matches -> those that remain, (R, 2), and the (R, 2) points of their first keypoints in the second image
Refine = Callable[[Array], tuple[Array, Array]]


def pair(
    first: Features,
    second: Features,
    homography: Array,
    shapes: tuple[tuple[int, int], tuple[int, int]],
    refine: Refine | None = None,
) -> dict:
    """Measure two images.

    Parameters
    ----------
    first, second : Features
        Their features.
    homography : (3, 3) array
        Maps points of the first to the second.
    shapes : pair of (rows, columns)
        Of the images.
    refine : callable, optional
        Selects matches, and gives their points in the second image; by default all, and those of its keypoints.

    Returns
    -------
    dict
        ``covisible`` (the number of features that lie inside the other image, the smaller of both), ``repeatability``,
        ``overlap_repeatability``, ``matches``, ``matching_score``, ``accuracy`` (fraction of the matches within each of
        `THRESHOLDS`), ``mutual_matches`` and ``mutual_accuracy`` (the same without the ratio test), and
        ``corner_errors``, pixels.
    """
    inside = inside_other(first, homography, shapes[1]), inside_other(second, np.linalg.inv(homography), shapes[0])
    covisible = min(len(side) for side in inside)
    mutual, ratios = mutual_nearest(first.descriptors, second.descriptors)
    matches = mutual[ratios < MAX_RATIO]
    matches, others = refine(matches) if refine else (matches, second.points[matches[:, 1]])
    points = [first.points[matches[:, 0]], others]
    errors = [np.linalg.norm(project(points[0], homography) - points[1], axis=1)]
    errors.append(match_errors(first, second, homography, mutual))
    correct = np.count_nonzero(errors[0] <= CORRECT)
    return {
        "covisible": covisible,
        **repeatability(*(side.distinct() for side in inside), homography),
        "matches": len(matches),
        "matching_score": correct / covisible if covisible else 0.0,
        "accuracy": accuracy(errors[0]),
        "mutual_matches": len(mutual),
        "mutual_accuracy": accuracy(errors[1]),
        "corner_errors": corner_errors(*points, homography, shapes[0]),
    }


def project(points: Array, homography: Array) -> Array:
    """Map (N, 2) points by a homography."""
    mapped = np.column_stack((points, np.ones(len(points)))) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def inside_other(features: Features, homography: Array, shape: tuple[int, int]) -> Features:
    """Return the features that lie inside the other image, whose shape is `shape`."""
    x, y = project(features.points, homography).T
    return features[(x >= 0) & (x <= shape[1] - 1) & (y >= 0) & (y <= shape[0] - 1)]


def repeatability(first: Features, second: Features, homography: Array) -> dict[str, float]:
    """Return the fraction of keypoints that have a counterpart in the other image, one to one [1].

    The fraction is of the smaller number of keypoints. ``repeatability``: within `CORRECT` pixels in the second image,
    at any scale. ``overlap_repeatability``: by regions, circles proportional to sigma, whose overlap error is at most
    `MAX_OVERLAP_ERROR`. A circle mapped by a homography is approximated by the circle of the same area, and both are
    scaled so that the first has a radius of `REGION`.
    """
    fewer = min(len(first), len(second))
    if fewer == 0:
        return {"repeatability": 0.0, "overlap_repeatability": 0.0}
    mapped = project(first.points, homography)
    a, b, distances = neighbours(mapped, second.points, REGION / 2)
    near = distances <= CORRECT
    by_distance = one_to_one(a[near], b[near], distances[near])
    depth = np.column_stack((first.points, np.ones(len(first)))) @ homography[2]
    sigmas = first.sigmas * np.sqrt(np.abs(np.linalg.det(homography) / depth**3))  # the Jacobian's determinant
    overlap_errors = 1 - overlap(REGION, REGION * second.sigmas[b] / sigmas[a], distances)
    alike = overlap_errors <= MAX_OVERLAP_ERROR
    by_overlap = one_to_one(a[alike], b[alike], overlap_errors[alike])
    return {"repeatability": by_distance / fewer, "overlap_repeatability": by_overlap / fewer}


def neighbours(first: Array, second: Array, radius: float) -> tuple[Array, Array, Array]:
    """Return the pairs of points at most `radius` apart: indices of both, and distances."""
    found = cKDTree(first).sparse_distance_matrix(cKDTree(second), radius, output_type="ndarray")
    return found["i"], found["j"], found["v"]


def one_to_one(first: Array, second: Array, costs: Array) -> int:
    """Return the number of pairs that a greedy one-to-one assignment accepts, cheapest first."""
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    for pair_index in np.lexsort((second, first, costs)):
        a, b = int(first[pair_index]), int(second[pair_index])
        if a not in taken_first and b not in taken_second:
            taken_first.add(a)
            taken_second.add(b)
    return len(taken_first)


def overlap(radius: float, others: Array, distances: Array) -> Array:
    """Return the intersection over union of a circle with others, at given distances of their centres."""
    r, s = np.maximum(radius, others), np.minimum(radius, others)
    d = np.clip(distances, r - s, r + s)  # clipped to one circle within the other, and to disjoint circles
    d = np.maximum(d, np.finfo(float).tiny)
    alpha = np.arccos(np.clip((d * d + r * r - s * s) / (2 * d * r), -1, 1))
    beta = np.arccos(np.clip((d * d + s * s - r * r) / (2 * d * s), -1, 1))
    common = r * r * (alpha - np.sin(2 * alpha) / 2) + s * s * (beta - np.sin(2 * beta) / 2)
    return common / (np.pi * (r * r + s * s) - common)


def mutual_nearest(first: Array, second: Array) -> tuple[Array, Array]:
    """Match descriptors that are mutual nearest neighbours, by brute force.

    Parameters
    ----------
    first, second : (N, 128) and (M, 128) arrays of uint8

    Returns
    -------
    matches : (Q, 2) array of int
        Indices into both.
    ratios : (Q,) array of float
        Ratio of the Euclidean distance to that of the second nearest neighbour, in `second` or in `first`, whichever
        ratio is larger. A match passes the ratio test in both directions if this ratio is below the threshold.
    """
    if len(first) == 0 or len(second) < 2:
        return np.empty((0, 2), int), np.empty(0)
    a, b = first.astype(np.float32), second.astype(np.float32)
    # Exact: all values are integers below 2^24.
    squares = (a * a).sum(axis=1)[:, None] + ((b * b).sum(axis=1) - 2 * a @ b.T)
    nearest, index = squares.argmin(axis=1), np.arange(len(a))
    best = squares[index, nearest]
    mutual = best <= squares.min(axis=0)[nearest]
    second_best = np.partition(squares, 1, axis=1)[:, 1]
    if len(a) > 1:
        second_best = np.minimum(second_best, np.partition(squares, 1, axis=0)[1, nearest])
    ratios = np.sqrt(best / np.maximum(second_best, 1))
    return np.column_stack((index, nearest))[mutual], ratios[mutual]


def match_errors(first: Features, second: Features, homography: Array, matches: Array) -> Array:
    """Return the distance of each mapped point from its match, pixels of the second image."""
    return np.linalg.norm(project(first.points[matches[:, 0]], homography) - second.points[matches[:, 1]], axis=1)


def accuracy(errors: Array) -> list[float]:
    """Return the fraction of matches within each of `THRESHOLDS`; 0 without matches [2]."""
    return [float((errors <= threshold).mean()) if len(errors) else 0.0 for threshold in THRESHOLDS]


def corner_errors(first: Array, second: Array, homography: Array, shape: tuple[int, int]) -> list[float]:
    """Return the mean distances between the corners mapped by estimated homographies and by the true one [3].

    `first` and `second` are the (Q, 2) points of matches.

    An estimate depends on the order of the matches, so there are `ESTIMATES` of them, with orders from fixed seeds.
    The unit is pixels of the second image; `NO_HOMOGRAPHY` if no homography is found.
    """
    right, bottom = shape[1] - 1, shape[0] - 1
    corners = np.array([[0, 0], [right, 0], [0, bottom], [right, bottom]], float)
    errors = []
    for seed in range(ESTIMATES):
        estimate = None
        if len(first) >= 4:
            order = np.random.default_rng(seed).permutation(len(first))
            estimate, _ = cv2.findHomography(first[order], second[order], **RANSAC)
        error = NO_HOMOGRAPHY
        if estimate is not None:
            error = np.linalg.norm(project(corners, estimate) - project(corners, homography), axis=1).mean()
        errors.append(float(min(error, NO_HOMOGRAPHY)))
    return errors


def area_under_curve(errors: list[float], threshold: float) -> float:
    """Return the mean, over 0 to `threshold`, of the share of errors below [4]; exactly, not by trapezoids."""
    return float(np.clip(1 - np.array(errors) / threshold, 0, 1).mean()) if errors else 0.0
