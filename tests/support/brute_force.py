"""Brute-force matching in NumPy, the reference for kernels/matching.cu, and a hash of searches."""

import hashlib

import numpy as np

from gpusift.matching import nearest


def best_two(first, second, mask=None):
    """Distances to the nearest and the second nearest neighbour, and the nearest's index; infinity and -1 for none.

    Squared distances are exact, as the inputs are integers, or reals that are small multiples of a power of two.
    """
    dtype = np.float64 if first.dtype.kind == "f" else np.int64
    differences = first.astype(dtype)[:, None] - second.astype(dtype)[None]
    squares = (differences**2).sum(axis=2).astype(np.float64)
    if mask is not None:
        squares[~mask] = np.inf
    rows = np.arange(len(first))
    index = squares.argmin(axis=1)
    lowest = squares[rows, index]
    squares[rows, index] = np.inf
    return np.sqrt(lowest), np.sqrt(squares.min(axis=1)), np.where(lowest < np.inf, index, -1)


def search(device, first, second, mask=None, n_splits=None):
    """The results of `best_two` computed by the kernels, copied to the host."""
    m, n = len(first), len(second)
    with device.active():
        sets = nearest.upload(device, [first, second])
        steps = (0, 0, 0) if mask is None else (-m, n, 1)  # the others' rows come after the m queries'
        allowed = None if mask is None else device.asarray(mask.reshape(-1).view(np.uint8))
        jobs = np.array([[0, m, m, n, *steps]])
        queries = device.asarray(np.arange(m, dtype=np.int32))
        found = nearest.best_two(sets, queries, jobs, allowed, n_splits)
        lowest, second_lowest, rows = (device.to_host(each) for each in found)
    return lowest, second_lowest, np.where(rows >= 0, rows - m, -1)


def descriptors(n, width, dtype=np.uint8, seed=0, n_values=256):
    """(n, width) random descriptors with `n_values` different values; reals are multiples of 1/8."""
    values = np.random.default_rng(seed).integers(0, n_values, (n, width))
    return values.astype(np.uint8) if dtype == np.uint8 else (values / 8 - 3).astype(dtype)


def digest(device):
    """SHA-256 of the results of searches of bytes and of inexact reals, with and without a mask."""
    whole = hashlib.sha256()
    for m, n, width in ((150, 70, 128), (3, 300, 5), (140, 33, 137)):
        mask = np.random.default_rng(m).random((m, n)) < 0.7
        pairs = [descriptors(m, width, seed=1, n_values=9), descriptors(n, width, seed=2, n_values=9)]
        rng = np.random.default_rng(3)
        reals = [rng.normal(size=(count, width)).astype(device.dtype) for count in (m, n)]
        for first, second in (pairs, reals):
            for allowed in (None, mask):
                for found in search(device, first, second, allowed, n_splits=2):
                    whole.update(found.tobytes())
    return whole.hexdigest()


def is_distinct(lowest, second_lowest, max_ratio):
    """Whether the nearest is nearer than the second nearest by more than the ratio."""
    if max_ratio == 1:
        return np.full(len(lowest), True)
    with np.errstate(invalid="ignore"):
        return lowest / np.where(second_lowest == 0, np.finfo(float).eps, second_lowest) < max_ratio


def matches(first, second, *, max_ratio=0.8, cross_check=True, max_distance=np.inf, symmetric_ratio=False, mask=None):
    """The expected result of gpusift.match: indices, and distances before they are rounded to float32."""
    if min(len(first), len(second)) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    lowest, second_lowest, index = best_two(first, second, mask)
    keep = (index >= 0) & (lowest < max_distance) & is_distinct(lowest, second_lowest, max_ratio)
    if cross_check:
        *distances, back = best_two(second, first, None if mask is None else mask.T)
        keep &= back[index] == np.arange(len(first))
        if symmetric_ratio:
            keep &= is_distinct(*distances, max_ratio)[index]
    return np.stack((keep.nonzero()[0], index[keep]), axis=1), lowest[keep]
