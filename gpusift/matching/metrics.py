"""Matching under any metric of SciPy, with scikit-image's result, in blocks of distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpusift.matching.nearest import Rules, is_distinct

# Distances of a block, at most: 32 MiB in float64.
BLOCK_SIZE = 1 << 22
# These scale by statistics of both whole sets, so they cannot be computed in blocks.
WHOLE_SET_METRICS = frozenset({"s", "se", "seuclidean", "mah", "mahal", "mahalanobis"})


def match(
    first: NDArray[Any],
    second: NDArray[Any],
    metric: str | Callable[..., float],
    p: float,
    rules: Rules,
) -> NDArray[np.int64]:
    """The matches of two sets that are not empty; the parameters and the result of `matching.match_descriptors`."""
    nearest1 = np.empty(len(first), dtype=np.int64)
    best1 = np.empty(len(first))
    second_best1 = np.empty(len(first))
    nearest2 = np.zeros(len(second), dtype=np.int64)
    best2 = np.full(len(second), np.inf)
    for start, distances in _blocks(first, second, metric, p):
        rows = np.arange(len(distances))
        block = slice(start, start + len(distances))
        nearest1[block] = nearest = np.argmin(distances, axis=1)
        best1[block] = distances[rows, nearest]
        if rules.cross_check:
            _update_nearest(nearest2, best2, start, distances)
        if rules.max_ratio < 1:
            distances[rows, nearest] = np.inf
            second_best1[block] = distances[rows, np.argmin(distances, axis=1)]
    indices = np.arange(len(first))
    keep = np.ones(len(first), dtype=bool)
    if rules.cross_check:
        keep &= nearest2[nearest1] == indices
    if rules.max_distance < np.inf:
        keep &= best1 < rules.max_distance
    if rules.max_ratio < 1:
        keep &= is_distinct(np, best1, second_best1, rules.max_ratio)
    return np.column_stack((indices[keep], nearest1[keep]))


def _blocks(
    first: NDArray[Any], second: NDArray[Any], metric: str | Callable[..., float], p: float
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Distances of blocks of rows, each with the index of its first row."""
    from scipy.spatial.distance import cdist

    # SciPy raises an error for p with any other metric.
    options = {"p": p} if metric == "minkowski" else {}
    rows = max(1, BLOCK_SIZE // len(second))
    if isinstance(metric, str) and metric.lower() in WHOLE_SET_METRICS:
        rows = len(first)
    for start in range(0, len(first), rows):
        yield start, cdist(first[start : start + rows], second, metric=metric, **options)


def _update_nearest(nearest: NDArray[np.int64], best: NDArray[Any], start: int, distances: NDArray[Any]) -> None:
    """Replaces the nearest row of each column for which a row of this block is nearer."""
    # A contiguous copy: argmin along the other axis is six times slower.
    candidates = np.argmin(np.ascontiguousarray(distances.T), axis=1)
    values = distances[candidates, np.arange(distances.shape[1])]
    # Like argmin: the first NaN (a zero vector under "cosine", say) comes before all numbers.
    nearer = (values < best) | (np.isnan(values) & ~np.isnan(best))
    nearest[nearer] = candidates[nearer] + start
    best[nearer] = values[nearer]
