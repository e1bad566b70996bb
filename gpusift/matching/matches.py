"""Matches between the features of two images, as indices and as points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from gpusift.features import Features, on_device_of, on_host, rows_of

AnyMatches = TypeVar("AnyMatches", bound="Matches")


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches between the features of two images, in the order of the first.

    An index, a slice, a mask or an array of indices gives these matches.

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

    def __getitem__(self: AnyMatches, index: Any) -> AnyMatches:
        rows = rows_of(index, len(self))
        return self._map(lambda array: array[rows])

    def to_host(self: AnyMatches) -> AnyMatches:
        """The same matches as NumPy arrays, copied from the GPU if they are on one."""
        return self._map(on_host)

    def _map(self: AnyMatches, function: Callable[[Any], Any]) -> AnyMatches:
        arrays = (getattr(self, each.name) for each in fields(self))
        with on_device_of(self.indices):
            return type(self)(*(None if array is None else function(array) for array in arrays))


@dataclass(frozen=True, eq=False)
class RefinedMatches(Matches):
    """Matches with the position of each keypoint of the first image in the second, as `gpusift.refine` finds it.

    `gpusift.geometry.verify` and `gpusift.plot.draw_matches` use the refined positions; files of matches hold indices
    only. ``refined[refined.refined]`` drops the matches that were left alone, which are wrong more often. `distances`
    is None if the matches were given as indices.

    Attributes
    ----------
    positions : (Q, 2) array of float
        Row and column in the second image, input pixels; those of its keypoint where the match was left alone.
    maps : (Q, 2, 2) array of float
        The local affine map: (row, column) relative to the first keypoint -> relative to `positions`, input pixels.
        Where the match was left alone, the rotation and scale of its keypoints.
    correlations : (Q,) array of float
        Weighted correlation of the two aligned patches; 0 where the match was left alone.
    refined : (Q,) array of bool
        False where the match was left alone: a patch mostly beyond the image's border, one without contrast or
        structure, or an alignment that failed (see `gpusift.refine_matches`).
    """

    positions: Any
    maps: Any
    correlations: Any
    refined: Any


def index_pairs(pairs: Iterable[Sequence[int]], n: int) -> list[tuple[int, int]]:
    """Pairs of images, checked to be two indices of `n` images each; raises a ValueError if not."""
    checked = []
    for k, pair in enumerate(pairs):
        inside = [int(i) for i in pair if isinstance(i, (int, np.integer)) and 0 <= i < n]
        if len(pair) != 2 or len(inside) != 2:
            raise ValueError(f"pairs[{k}] must be two indices of {n} features, got {tuple(pair)}")
        checked.append((inside[0], inside[1]))
    return checked


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
    indices = np.asarray(on_host(matches.indices if isinstance(matches, Matches) else matches))
    if indices.size == 0:
        indices = indices.reshape(0, 2)
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
    """The positions that matches connect; of `RefinedMatches`, the refined ones.

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
    positions_a, positions_b = (features.to_host().positions for features in (features_a, features_b))
    there = matches.to_host().positions if isinstance(matches, RefinedMatches) else positions_b[indices[:, 1]]
    points_a, points_b = (array[:, ::-1].astype(np.float64) for array in (positions_a[indices[:, 0]], there))
    return points_a, points_b
