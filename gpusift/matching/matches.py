"""Matches between the features of two images, as indices and as points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.features import Features


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches between the features of two images, in the order of the first.

    Attributes
    ----------
    indices : (Q, 2) array of int64
        Index into the first and into the second image's features.
    distances : (Q,) array of float32
        Euclidean distances of the descriptors.
    """

    indices: Any
    distances: Any

    def __len__(self) -> int:
        return int(self.indices.shape[0])

    def to_host(self) -> Matches:
        """The same matches as NumPy arrays, copied from the GPU if they are on one."""
        return Matches(*(each.get() if hasattr(each, "get") else each for each in (self.indices, self.distances)))


def match_indices(features_a: Features, features_b: Features, matches: Any) -> np.ndarray:
    """The indices of matches, checked to be those of features.

    Parameters
    ----------
    features_a, features_b : Features
        The features of the two images, on any device.
    matches : Matches or (Q, 2) array of int
        Indices into both, on any device.

    Returns
    -------
    indices : (Q, 2) int64 array
        On the host.

    Raises
    ------
    ValueError
        If the matches are no pairs of indices into the features.
    """
    indices = getattr(matches, "indices", matches)
    indices = np.asarray(indices.get() if hasattr(indices, "get") else indices)
    counts = len(features_a), len(features_b)
    if indices.ndim != 2 or indices.shape[1] != 2 or (indices.dtype.kind not in "iu" and indices.size):
        raise ValueError(f"matches must be (Q, 2) integers, got shape {indices.shape} of {indices.dtype}")
    if indices.size and (indices.min() < 0 or (indices.max(axis=0) >= counts).any()):
        raise ValueError(
            f"matches must be indices into features of {counts[0]} and {counts[1]} keypoints, got "
            f"{indices.min(axis=0).tolist()} to {indices.max(axis=0).tolist()}; pass the features that were matched"
        )
    return indices.astype(np.int64)


def matched_points(features_a: Features, features_b: Features, matches: Any) -> tuple[np.ndarray, np.ndarray]:
    """The positions that matches connect.

    Parameters
    ----------
    features_a, features_b, matches
        As for `match_indices`.

    Returns
    -------
    points_a, points_b : (Q, 2) float64 arrays
        x (column) and y (row), the centre of the upper left pixel at (0, 0).

    Raises
    ------
    ValueError
        As `match_indices`.
    """
    indices = match_indices(features_a, features_b, matches)
    positions = features_a.to_host().positions[indices[:, 0]], features_b.to_host().positions[indices[:, 1]]
    points_a, points_b = (array[:, ::-1].astype(np.float64) for array in positions)
    return points_a, points_b
