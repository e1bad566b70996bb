"""Nearest and second nearest neighbours of descriptors, by brute force on a device (Lowe 2004, section 7.1)."""

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
LEAST_OTHERS = 256  # neighbours that a block compares: a block for fewer costs more than it saves
LARGEST_WIDTH = 16384  # of descriptors of bytes: their squared distances must fit into 32 bits
MOST_QUERIES = 1 << 20  # in one search

NO_DISTANCE = 2**31 - 1  # squared distance of bytes where there is no neighbour; that of reals is infinity


@dataclass(frozen=True)
class Sets:
    """The descriptors of several images, on a device, row after row.

    Attributes
    ----------
    device : Device
        The device of the arrays, in the precision of the descriptors if they are reals.
    values : (N, n_words) array of int32, or (N, width) array of real
        The descriptors: of bytes, four in a word and padded with zeros, or of reals.
    squares : (N,) array of int32 or None
        Squared lengths of descriptors of bytes.
    firsts : (n_sets + 1,) array of int64
        Row of the first descriptor of each set, and N; on the host.
    """

    device: Device
    values: Any
    squares: Any
    firsts: NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """Which nearest neighbours are matches: the parameters of `gpusift.matching.match`.

    Their ranges are not checked here, as `gpusift.matching.match_descriptors` accepts what scikit-image accepts.
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
    """The two nearest neighbours of each query.

    Parameters
    ----------
    sets : Sets
        The descriptors.
    queries : (Q,) array of int32
        Rows of the descriptors whose neighbours are searched, on the device.
    jobs : (n_jobs, 7) array of int64
        Which queries are compared with which descriptors: index of the first query, number of queries, row of the first
        neighbour, number of neighbours, and the mask: the offset in `allowed` of (row 0, row 0), the stride of a
        query's row and that of a neighbour's row; both strides are zero without a mask. The two numbers are not zero.
        Each query is in one job.
    allowed : flat array of uint8, optional
        The masks of all jobs. Zero where two descriptors must not match.
    n_splits : int, optional
        Into how many slices the neighbours are split, to occupy a device that has more blocks than the queries need.

    Returns
    -------
    nearest, second : (Q,) arrays of float64
        Euclidean distances; infinite where there is no neighbour.
    rows : (Q,) array of int32
        Row of the nearest neighbour, the lowest of equally near ones; -1 if there is none.
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
    if n_splits > 1:  # of equally near neighbours, that of the first slice has the lowest row
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
        Indices of sets, none of them empty.
    rules : Rules
        Which nearest neighbours are matches.
    masks : sequence of (M, N) array of uint8 or None, optional
        The mask of each pair, on the device: zero where two descriptors must not match. None if all may.
    on_host : bool
        Whether to copy the matches to the host.

    Returns
    -------
    list of (indices, distances)
        Arrays (Q, 2) of int64 and (Q,) of float32 for each pair, in the order of the first set.
    """
    ends = np.cumsum(np.diff(sets.firsts)[pairs].sum(axis=1))
    cuts = np.unique(np.searchsorted(ends, np.arange(MOST_QUERIES, ends[-1] if len(ends) else 0, MOST_QUERIES)))
    matches = []
    for start, stop in zip([0, *cuts], [*cuts, len(pairs)]):
        of_pairs = None if masks is None else masks[start:stop]
        if start < stop:
            indices, distances, ends_of_pairs = _match_at_once(sets, pairs[start:stop], of_pairs, rules)
            if on_host:
                indices, distances = sets.device.to_host(indices), sets.device.to_host(distances)
            matches += [(indices[first:end], distances[first:end]) for first, end in pairwise(ends_of_pairs)]
    return matches


def _match_at_once(
    sets: Sets, pairs: NDArray[np.int64], masks: Sequence[Any] | None, rules: Rules
) -> tuple[Any, Any, NDArray[np.int64]]:
    """`match` in one search in each direction: indices, distances, and the bounds of each pair's matches.

    Slots number the descriptors of all pairs: `slots` has the first slot of each pair's first set, `slots_back` that of
    its second set.
    """
    xp, asarray = sets.device.xp, sets.device.asarray
    (first_row, second_row), (m, n) = sets.firsts[:-1][pairs].T, np.diff(sets.firsts)[pairs].T
    slots, slots_back = _sums(m), _sums(n)
    allowed, mask = _joined(xp, masks, first_row, second_row, m, n)
    queries = asarray(np.repeat(first_row - slots[:-1], m) + np.arange(slots[-1]), np.int32)
    jobs = np.stack((slots[:-1], m, second_row, n, mask[0], mask[1], mask[2]), axis=1)
    nearest, second, rows = best_two(sets, queries, jobs, allowed)
    keep = rows >= 0
    if rules.max_distance < np.inf:
        keep &= nearest < rules.max_distance
    if rules.max_ratio < 1:
        keep &= is_distinct(xp, nearest, second, rules.max_ratio)
    kept = xp.flatnonzero(keep)
    pair = xp.searchsorted(asarray(slots), kept, side="right") - 1
    second_index = rows[kept] - asarray(second_row)[pair]
    if rules.cross_check:
        back = np.stack((first_row, m, mask[0], mask[2], mask[1]), axis=1)
        slot_back = second_index + asarray(slots_back)[pair]
        nearest_of = _nearest_of_slots(sets, slot_back, slots_back, second_row, back, allowed, rules)
        mutual = nearest_of[slot_back] == queries[kept]
        kept, pair, second_index = kept[mutual], pair[mutual], second_index[mutual]
    indices = xp.stack((kept - asarray(slots)[pair], second_index), axis=1)
    return indices, nearest[kept].astype(np.float32), _bounds(sets.device, kept, asarray(slots))


def _nearest_of_slots(
    sets: Sets,
    wanted: Any,
    slots: NDArray[np.int64],
    first_rows: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    allowed: Any,
    rules: Rules,
) -> Any:
    """For each slot of `wanted` the row of its nearest neighbour; -1 for others, and where the ratio test fails.

    Parameters
    ----------
    sets, allowed, rules
        As in `match` and `best_two`.
    wanted : (Q,) array of int
        Slots, on the device.
    slots : (P + 1,) array of int64
        The first slot of each pair, and the number of slots.
    first_rows : (P,) array of int64
        The row of each pair's first slot.
    neighbours : (P, 5) array of int64
        The last five columns of the jobs of `best_two`, for each pair.
    """
    xp, asarray = sets.device.xp, sets.device.asarray
    is_wanted = xp.zeros(int(slots[-1]), bool)
    is_wanted[wanted] = True
    queried = xp.flatnonzero(is_wanted)
    nearest_row = xp.full(int(slots[-1]), -1, np.int32)
    if len(queried):
        pair = xp.searchsorted(asarray(slots), queried, side="right") - 1
        bounds = _bounds(sets.device, queried, asarray(slots))
        jobs = np.column_stack((bounds[:-1], np.diff(bounds), neighbours))[np.diff(bounds) > 0]
        queries = (queried - asarray(slots)[pair] + asarray(first_rows)[pair]).astype(np.int32)
        nearest, second, rows = best_two(sets, queries, np.ascontiguousarray(jobs), allowed)
        if rules.symmetric_ratio and rules.max_ratio < 1:
            rows = xp.where(is_distinct(xp, nearest, second, rules.max_ratio), rows, -1)
        nearest_row[queried] = rows
    return nearest_row


def is_distinct(xp: Any, nearest: Any, second: Any, max_ratio: float) -> Any:
    """Whether the nearest is nearer than the second by more than the ratio, in scikit-image's arithmetic."""
    with np.errstate(invalid="ignore"):
        return nearest / xp.where(second == 0, np.finfo(np.float64).eps, second) < max_ratio


def _tasks(jobs: NDArray[np.int64], n_splits: int, n: int) -> NDArray[np.int64]:
    """(n_tasks, 8) array: the task of each block. The results of slice s of the neighbours begin at s * n."""
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
    """The masks of all pairs as one flat array, and for each pair the offset of rows (0, 0) and the strides of both."""
    if masks is None or all(mask is None for mask in masks):
        return None, 3 * [np.zeros_like(m)]
    flat = [mask.reshape(-1) for mask in masks if mask is not None]
    is_masked = np.array([mask is not None for mask in masks])
    begins = _sums(np.where(is_masked, m * n, 0))[:-1]
    columns = (begins - first_row * n - second_row, n, np.ones_like(n))
    return xp.concatenate(flat) if len(flat) > 1 else flat[0], [np.where(is_masked, each, 0) for each in columns]


def _bounds(device: Device, slots: Any, firsts: Any) -> NDArray[np.int64]:
    """Where the slots of each pair begin in a sorted array of slots, and where they end; on the host."""
    if not len(slots):
        return np.zeros(len(firsts), np.int64)
    return device.to_host(device.xp.searchsorted(slots, firsts))


def _roots(xp: Any, squares: Any, none: float) -> Any:
    return xp.where(squares == none, np.inf, xp.sqrt(squares.astype(np.float64)))


def _sums(counts: Any) -> NDArray[np.int64]:
    """The sum of the counts before each one, and of all."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
