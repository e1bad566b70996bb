"""Brute-force matching of descriptors (Lowe 2004, section 7.1), with scikit-image's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Largest number of distances held at once: 32 MiB in float64.
BLOCK_SIZE = 1 << 22
# Every integer up to these is exact in the type.
EXACT_FLOAT32 = 1 << 24
EXACT_FLOAT64 = 1 << 53
# Metrics that scale by statistics of both whole sets, so rows cannot be taken in blocks.
WHOLE_SET_METRICS = frozenset({"s", "se", "seuclidean", "mah", "mahal", "mahalanobis"})


def match_descriptors(
    descriptors1: ArrayLike,
    descriptors2: ArrayLike,
    metric: str | Callable[..., float] | None = None,
    p: float = 2,
    max_distance: float = np.inf,
    cross_check: bool = True,
    max_ratio: float = 1.0,
) -> NDArray[np.int64]:
    """Match each descriptor of one set with the nearest of another.

    The result is that of ``skimage.feature.match_descriptors``, to the last element. Among
    descriptors that are equally near, the one with the lowest index is taken.

    Descriptors that hold integers (SIFT's do) are compared through one matrix product, which is
    exact and many times faster than the distances taken one by one. Memory does not grow with the
    product of the two numbers of descriptors.

    Parameters
    ----------
    descriptors1 : (M, P) array
        Descriptors of the first image. CuPy arrays are copied to the host.
    descriptors2 : (N, P) array
        Descriptors of the second image.
    metric : str or callable, optional
        A metric of `scipy.spatial.distance.cdist`. By default ``"hamming"`` for bool descriptors,
        ``"euclidean"`` for all others.
    p : float, optional
        The order of the norm for ``metric="minkowski"``.
    max_distance : float, optional
        Matches must be nearer than this.
    cross_check : bool, optional
        Whether each descriptor of a match must be the nearest to the other.
    max_ratio : float, optional
        Below 1, the distance to the nearest descriptor over that to the second nearest of the
        second set must be smaller than this; 0.8 is usual for SIFT.

    Returns
    -------
    matches : (Q, 2) int64 array
        Indices into the first and the second set, in the order of the first. Empty if either set is
        empty.

    Raises
    ------
    TypeError
        If descriptors are not real numbers.
    ValueError
        If descriptors are not 2-D, hold NaN, or differ in length.

    Examples
    --------
    >>> import numpy as np
    >>> from gpusift import match_descriptors
    >>> a = np.array([[0, 0], [9, 9], [50, 50]], dtype=np.uint8)
    >>> b = np.array([[8, 9], [1, 0]], dtype=np.uint8)
    >>> match_descriptors(a, b)
    array([[0, 1],
           [1, 0]])
    """
    first = _as_descriptors(descriptors1, "descriptors1")
    second = _as_descriptors(descriptors2, "descriptors2")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "Descriptor length must equal. Got descriptors1 of shape "
            f"{first.shape} and descriptors2 of shape {second.shape}."
        )
    if metric is None:
        metric = "hamming" if first.dtype == bool else "euclidean"
    if not len(first) or not len(second):
        return np.empty((0, 2), dtype=np.int64)

    exact_dtype = _exact_dtype(first, second) if metric == "euclidean" else None
    if exact_dtype is not None:
        blocks = _integer_blocks(first.astype(exact_dtype), second.astype(exact_dtype))
    else:
        blocks = _cdist_blocks(first, second, metric, p)

    nearest1 = np.empty(len(first), dtype=np.int64)
    best1 = np.empty(len(first))
    second_best1 = np.empty(len(first))
    nearest2 = np.zeros(len(second), dtype=np.int64)
    best2 = np.full(len(second), np.inf)
    for start, distances in blocks:
        rows = np.arange(len(distances))
        block = slice(start, start + len(distances))
        nearest1[block] = nearest = np.argmin(distances, axis=1)
        best1[block] = distances[rows, nearest]
        if cross_check:
            _update_nearest(nearest2, best2, start, distances)
        if max_ratio < 1:
            distances[rows, nearest] = np.inf
            second_best1[block] = distances[rows, np.argmin(distances, axis=1)]
    if exact_dtype is not None:
        best1, second_best1 = np.sqrt(best1), np.sqrt(second_best1)

    indices = np.arange(len(first))
    keep = np.ones(len(first), dtype=bool)
    if cross_check:
        keep &= nearest2[nearest1] == indices
    if max_distance < np.inf:
        keep &= best1 < max_distance
    if max_ratio < 1:
        second_best1[second_best1 == 0] = np.finfo(np.float64).eps
        with np.errstate(invalid="ignore"):
            keep &= best1 / second_best1 < max_ratio
    return np.column_stack((indices[keep], nearest1[keep]))


def _as_descriptors(descriptors: Any, name: str) -> NDArray[Any]:
    """The descriptors on the host, checked."""
    if hasattr(descriptors, "__cuda_array_interface__") and hasattr(descriptors, "get"):
        descriptors = descriptors.get()
    array = np.asarray(descriptors)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"{name} must hold real numbers, got dtype {array.dtype}; pass the descriptors attribute of a SIFT object"
        )
    if array.ndim != 2:
        raise ValueError(f"{name} must be 2-D, one row a descriptor, got an array of shape {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        row = int(np.flatnonzero(np.isnan(array).any(axis=1))[0])
        raise ValueError(f"{name} must not hold NaN, got one in row {row}; drop such descriptors")
    return array


def _exact_dtype(first: NDArray[Any], second: NDArray[Any]) -> type[np.floating] | None:
    """The smallest type in which a matrix product gives exact squared distances, or None.

    With integers of magnitude m and P elements, no term or partial sum of |a|² + |b|² - 2 a.b
    exceeds 4 P m² (2 P m² where none is negative). SIFT's uint8 fit float32 up to P = 129.
    """
    largest = 0
    negative = False
    for array in (first, second):
        if not array.size:
            return None
        low, high = array.min(), array.max()
        if array.dtype.kind == "f" and not (
            np.isfinite(low) and np.isfinite(high) and np.array_equal(array, np.rint(array))
        ):
            return None
        largest = max(largest, int(high), -int(low))
        negative |= bool(low < 0)
    bound = (4 if negative else 2) * first.shape[1] * largest**2
    if bound <= EXACT_FLOAT32:
        return np.float32
    # Roots of different integers differ in float64 only below 2**51.
    return np.float64 if bound <= EXACT_FLOAT64 // 4 else None


def _integer_blocks(first: NDArray[Any], second: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Exact squared distances of blocks of rows, each with the index of its first row."""
    squares2 = np.einsum("ij,ij->i", second, second)
    minus_twice = -2 * second.T
    rows = max(1, BLOCK_SIZE // len(second))
    for start in range(0, len(first), rows):
        block = first[start : start + rows]
        distances = block @ minus_twice
        distances += np.einsum("ij,ij->i", block, block)[:, np.newaxis]
        distances += squares2
        yield start, distances


def _cdist_blocks(
    first: NDArray[Any], second: NDArray[Any], metric: str | Callable[..., float], p: float
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Distances of blocks of rows by SciPy, each with the index of its first row."""
    from scipy.spatial.distance import cdist

    # SciPy raises an error for p with any other metric.
    options = {"p": p} if metric == "minkowski" else {}
    rows = max(1, BLOCK_SIZE // len(second))
    if isinstance(metric, str) and metric.lower() in WHOLE_SET_METRICS:
        rows = len(first)
    for start in range(0, len(first), rows):
        yield start, cdist(first[start : start + rows], second, metric=metric, **options)


def _update_nearest(nearest: NDArray[np.int64], best: NDArray[Any], start: int, distances: NDArray[Any]) -> None:
    """Let the rows of a block that are nearer to a column than all before take their place."""
    # A contiguous copy: argmin along the other axis is six times slower.
    candidates = np.argmin(np.ascontiguousarray(distances.T), axis=1)
    values = distances[candidates, np.arange(distances.shape[1])]
    # Like argmin: the first NaN (a zero vector under "cosine", say) comes before all numbers.
    nearer = (values < best) | (np.isnan(values) & ~np.isnan(best))
    nearest[nearer] = candidates[nearer] + start
    best[nearer] = values[nearer]
