"""The nearest and the second nearest of descriptors, by brute force on a device (Lowe 2004, section 7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpusift.devices import Device

BLOCK = (32, 4)
QUERIES_PER_BLOCK = 128
LEAST_OTHERS = 256  # of a block: fewer are not worth a block of their own
LARGEST_WIDTH = 16384  # of bytes, whose squared distances are 32-bit integers
MOST_QUERIES = 1 << 20  # of pairs that are searched at once

NO_DISTANCE = 2**31 - 1  # of bytes, where there is no descriptor; of reals it is infinity


@dataclass(frozen=True)
class Sets:
    """The descriptors of several images, on a device, row after row.

    Attributes
    ----------
    device : Device
        Where they are; of their precision, if they are reals.
    values : (N, n_words) array of int32 or (N, width) array of real
        Four bytes a word, zeros where the width is no multiple of four; or reals.
    squares : (N,) array of int32 or None
        Squared lengths of bytes.
    firsts : (n_sets + 1,) array of int64
        First row of each set, and N; on the host.
    """

    device: Device
    values: Any
    squares: Any
    firsts: NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """Which nearest neighbours are matches: the parameters of `gpusift.matching.match`.

    Their ranges are not checked here, as `gpusift.matching.match_descriptors` takes whatever scikit-image takes.
    """

    max_ratio: float = 0.8
    cross_check: bool = True
    max_distance: float = np.inf
    symmetric_ratio: bool = False


def upload(device: Device, descriptors: Sequence[Any]) -> Sets:
    """Copies sets of descriptors to a device, one after the other.

    Parameters
    ----------
    device : Device
        In the precision of the descriptors, if they are reals.
    descriptors : sequence of (N, width) arrays
        NumPy's or the device's, of one width, at least 1; all of uint8, or all of finite reals.
    """
    xp, width = device.xp, descriptors[0].shape[1]
    firsts = _sums([len(each) for each in descriptors])
    n = int(firsts[-1])
    is_bytes = descriptors[0].dtype == np.uint8
    values = xp.zeros((n, -(-width // 4) * 4), np.uint8) if is_bytes else xp.empty((n, width), device.dtype)
    for (first, end), each in zip(pairwise(firsts), descriptors):
        values[first:end, :width] = xp.asarray(each)
    if not is_bytes:
        return Sets(device, values, None, firsts)
    words, squares = values.view(np.int32), xp.empty(n, np.int32)
    if n:
        block = (QUERIES_PER_BLOCK,)
        device.launch("square_lengths", (-(-n // block[0]),), block, words, n, words.shape[1], squares)
    return Sets(device, words, squares, firsts)


def best_two(
    sets: Sets, queries: Any, jobs: NDArray[np.int64], allowed: Any = None, n_splits: int | None = None
) -> tuple[Any, Any, Any]:
    """The best two of others for each query.

    Parameters
    ----------
    sets : Sets
        The descriptors.
    queries : (Q,) array of int32
        Rows to search for, on the device.
    jobs : (n_jobs, 7) array of int64
        Queries, in the list, and what they are compared with: first query, number of queries, first row of the others,
        number of others, and the mask: place of (row 0, row 0) in `allowed`, step of a query's row, step of an
        other's; both steps zero if all may match. No number is zero; each query is in one job.
    allowed : flat array of uint8, optional
        Zero where a pair must not match.
    n_splits : int, optional
        Parts that the others are split into, for a device with more blocks than there are queries to fill.

    Returns
    -------
    nearest, second : (Q,) arrays of float64
        Euclidean distances; infinite where there is none.
    rows : (Q,) array of int32
        Row of the nearest, the lowest of equally near ones; -1 where there is none.
    """
    device, xp, n = sets.device, sets.device.xp, int(queries.shape[0])
    if n_splits is None:
        n_groups = int((-(-jobs[:, 1] // QUERIES_PER_BLOCK)).sum())
        n_splits = max(1, min(device.n_blocks // n_groups, int(jobs[:, 3].max()) // LEAST_OTHERS))
    tasks = device.asarray(_tasks(jobs, n_splits, n))
    none = np.inf if sets.squares is None else NO_DISTANCE
    nearest, second = (xp.full((n_splits, n), none, sets.values.dtype) for _ in range(2))
    rows = xp.full((n_splits, n), -1, np.int32)
    allowed = xp.zeros(1, np.uint8) if allowed is None else allowed
    name, squares = ("nearest_reals", ()) if sets.squares is None else ("nearest_bytes", (sets.squares,))
    n_tasks = int(tasks.shape[0])
    rest = (sets.values.shape[1], queries, tasks, n_tasks, allowed, nearest, second, rows)
    device.launch(name, (n_tasks,), BLOCK, sets.values, *squares, *rest)
    if n_splits > 1:  # of equally near ones the first split has the lowest row
        columns, best = xp.arange(n), nearest.argmin(axis=0)
        first, row = nearest[best, columns], rows[best, columns]
        nearest[best, columns] = second[best, columns]
        return _roots(xp, first, none), _roots(xp, nearest.min(axis=0), none), row
    return _roots(xp, nearest[0], none), _roots(xp, second[0], none), rows[0]


def match(
    sets: Sets,
    pairs: NDArray[np.int64],
    rules: Rules,
    *,
    masks: Sequence[Any] | None = None,
    on_host: bool = False,
) -> list[tuple[Any, Any]]:
    """The matches of pairs of sets.

    Parameters
    ----------
    sets : Sets
        The descriptors.
    pairs : (P, 2) array of int64
        Numbers of sets that are not empty.
    rules : Rules
        Which of the nearest neighbours are matches.
    masks : sequence of (M, N) array of uint8 or None, optional
        For each pair on the device, zero where two descriptors must not match; None if all may.
    on_host : bool
        Whether the matches are wanted there.

    Returns
    -------
    list of (indices, distances)
        For each pair (Q, 2) int64 and (Q,) float32, in the order of the first set.
    """
    ends = np.cumsum(np.diff(sets.firsts)[pairs].sum(axis=1))
    cuts = np.unique(np.searchsorted(ends, np.arange(MOST_QUERIES, ends[-1] if len(ends) else 0, MOST_QUERIES)))
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(pairs)]):
        some = None if masks is None else masks[start:stop]
        if start < stop:
            indices, distances, cuts = _match_some(sets, pairs[start:stop], some, rules)
            if on_host:
                indices, distances = sets.device.to_host(indices), sets.device.to_host(distances)
            found += [(indices[first:end], distances[first:end]) for first, end in pairwise(cuts)]
    return found


def _match_some(
    sets: Sets,
    pairs: NDArray[np.int64],
    masks: Sequence[Any] | None,
    rules: Rules,
) -> tuple[Any, Any, NDArray[np.int64]]:
    """`match` for so many pairs that all fits the memory: indices, distances, and where those of each pair begin.

    Places count the descriptors of all pairs: those of a pair's first set begin at `begins`, its second at `others`.
    """
    xp, asarray = sets.device.xp, sets.device.asarray
    (first_row, second_row), (m, n) = sets.firsts[:-1][pairs].T, np.diff(sets.firsts)[pairs].T
    begins, others = _sums(m), _sums(n)
    allowed, mask = _joined(xp, masks, first_row, second_row, m, n)
    queries = asarray(np.repeat(first_row - begins[:-1], m) + np.arange(begins[-1]), np.int32)
    jobs = np.stack((begins[:-1], m, second_row, n, mask[0], mask[1], mask[2]), axis=1)
    nearest, second, rows = best_two(sets, queries, jobs, allowed)
    keep = rows >= 0
    if rules.max_distance < np.inf:
        keep &= nearest < rules.max_distance
    if rules.max_ratio < 1:
        keep &= is_distinct(xp, nearest, second, rules.max_ratio)
    kept = xp.flatnonzero(keep)
    begins_there, others_there, second_row = (asarray(each) for each in (begins, others, second_row))
    pair = xp.searchsorted(begins_there, kept, side="right") - 1
    second_index = rows[kept] - second_row[pair]
    if rules.cross_check:
        places = second_index + others_there[pair]
        wanted_places = xp.zeros(int(others[-1]), bool)
        wanted_places[places] = True
        wanted = xp.flatnonzero(wanted_places)
        of_pair = xp.searchsorted(others_there, wanted, side="right") - 1
        cuts = _cuts(sets.device, wanted, others_there)
        jobs = np.stack((cuts[:-1], np.diff(cuts), first_row, m, mask[0], mask[2], mask[1]), axis=1)
        back = xp.full(int(others[-1]), -1, np.int32)
        if len(wanted):
            rows_wanted = (wanted - others_there[of_pair] + second_row[of_pair]).astype(np.int32)
            nearest_back, second_back, rows_back = best_two(sets, rows_wanted, jobs[np.diff(cuts) > 0], allowed)
            if rules.symmetric_ratio and rules.max_ratio < 1:
                rows_back = xp.where(is_distinct(xp, nearest_back, second_back, rules.max_ratio), rows_back, -1)
            back[wanted] = rows_back
        mutual = back[places] == queries[kept]
        kept, pair, second_index = kept[mutual], pair[mutual], second_index[mutual]
    indices = xp.stack((kept - begins_there[pair], second_index), axis=1)
    return indices, nearest[kept].astype(np.float32), _cuts(sets.device, kept, begins_there)


def is_distinct(xp: Any, nearest: Any, second: Any, max_ratio: float) -> Any:
    """Whether the nearest is nearer than the second by more than the ratio, in scikit-image's arithmetic."""
    with np.errstate(invalid="ignore"):
        return nearest / xp.where(second == 0, np.finfo(np.float64).eps, second) < max_ratio


def _tasks(jobs: NDArray[np.int64], n_splits: int, n: int) -> NDArray[np.int64]:
    """(n_tasks, 8): what the blocks do. Split s of the others has its results from s * n on."""
    groups = -(-jobs[:, 1] // QUERIES_PER_BLOCK)
    begins = _sums(groups)
    job = np.repeat(jobs, groups, axis=0)[None]
    start = (np.arange(begins[-1]) - np.repeat(begins[:-1], groups))[None] * QUERIES_PER_BLOCK
    split = np.arange(n_splits)[:, None]
    size = -(-job[..., 3] // n_splits)
    columns = (
        job[..., 0] + start,
        np.minimum(QUERIES_PER_BLOCK, job[..., 1] - start),
        job[..., 2] + split * size,
        np.minimum(size, job[..., 3] - split * size),
        job[..., 0] + start + split * n,
        *(job[..., column] for column in (4, 5, 6)),
    )
    tasks = np.stack(np.broadcast_arrays(*columns), axis=-1).reshape(-1, 8)
    return np.ascontiguousarray(tasks[tasks[:, 3] > 0])


def _joined(
    xp: Any, masks: Sequence[Any] | None, first_row: Any, second_row: Any, m: Any, n: Any
) -> tuple[Any, list[NDArray[np.int64]]]:
    """The masks of pairs as one flat array, and for each the place of rows (0, 0) and the steps of both rows."""
    if masks is None or all(mask is None for mask in masks):
        return None, 3 * [np.zeros_like(m)]
    flat = [mask.reshape(-1) for mask in masks if mask is not None]
    is_given = np.array([mask is not None for mask in masks])
    begins = _sums(np.where(is_given, m * n, 0))[:-1]
    places = (begins - first_row * n - second_row, n, np.ones_like(n))
    return xp.concatenate(flat) if len(flat) > 1 else flat[0], [np.where(is_given, each, 0) for each in places]


def _cuts(device: Device, places: Any, begins: Any) -> NDArray[np.int64]:
    """Where the places of each pair begin in a sorted list, and its end; on the host."""
    if not len(places):
        return np.zeros(len(begins), np.int64)
    return device.to_host(device.xp.searchsorted(places, begins))


def _roots(xp: Any, squares: Any, none: float) -> Any:
    return xp.where(squares == none, np.inf, xp.sqrt(squares.astype(np.float64)))


def _sums(counts: Any) -> NDArray[np.int64]:
    """Sums of the counts before each, and of all."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
