"""The lists of candidates, keypoints and features of a batch of images. They and their lengths stay on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import Parameters

ALIGNMENT = 256  # bytes
LIST_BLOCK = (128,)
SUM_BLOCK = (256,)
SUM_BLOCKS = 16  # each reads all counts before its own

# The rows of `FeatureLists.counts`.
N_COUNTS = 9
FOUND, CANDIDATES, USABLE_CANDIDATES, KEYPOINTS, USABLE_KEYPOINTS, FEATURES, USABLE_FEATURES = range(7)
TAKEN_KEYPOINTS, TAKEN_FEATURES = range(7, N_COUNTS)


@dataclass(frozen=True, eq=False)
class FeatureLists:
    """Lists of the candidates, keypoints and features of B images, with `capacity` entries each.

    A keypoint is stored as the index of its candidate. A feature is stored as the index of its candidate, with an
    orientation and a descriptor of its own.

    Attributes
    ----------
    counts : (9, B) array of int32
        Of each image: the number of candidates that were found; then, for candidates, keypoints and features, their
        number, and the same again, or 0 if it exceeds the capacity; then how many keypoints and features the blocks of
        a running launch have taken, 0 between launches.
    row_counts, row_offsets : (B, n_rows) arrays of int32
        Of each row of all octaves: the number of its candidates, and the index of the first.
    starts, n_rows : (B,) arrays of int32
        Zero, and the number of rows.
    keys, grouped : (B, capacity) arrays of int64
        The packed candidates, in their order, and grouped by row.
    accepted, offsets, further : (B, capacity) arrays of int32
        Whether a candidate is a keypoint; where the entries that follow from an entry are written; the number of
        orientations of a keypoint beyond the first.
    positions : (B, capacity, 2) array
        Of the candidates, as are `sigmas`, `responses` (reals), `octaves` and `scales` (int32).
    shapes : (B, capacity, 2, 2) array
        Affine shapes of the candidates; (B, 0, 2, 2) without `affine_shape`.
    keypoints, features : (B, capacity) arrays of int32
        Indices of candidates.
    angles : (B, capacity, n_bins) array
        The orientations of the keypoints.
    orientations : (B, capacity) array
        Of the features.
    descriptors : (B, capacity, n_values) array of uint8
        Of the features.
    """

    counts: Any
    row_counts: Any
    row_offsets: Any
    starts: Any
    n_rows: Any
    keys: Any
    grouped: Any
    accepted: Any
    offsets: Any
    further: Any
    positions: Any
    sigmas: Any
    responses: Any
    octaves: Any
    scales: Any
    shapes: Any
    keypoints: Any
    features: Any
    angles: Any
    orientations: Any
    descriptors: Any

    @property
    def batch(self) -> int:
        """Number of images."""
        return int(self.keys.shape[0])

    @property
    def capacity(self) -> int:
        """Number of entries of each list."""
        return int(self.keys.shape[1])

    def clear(self) -> None:
        """Empties the lists."""
        self.counts.fill(0)
        self.row_counts.fill(0)


def allocate(
    device: Device,
    parameters: Parameters,
    batch: int,
    capacity: int,
    n_rows: int,
    memory: Callable[[int], Any] | None = None,
) -> FeatureLists:
    """Empty lists.

    Parameters
    ----------
    device : Device
        The device of the lists.
    parameters : Parameters
        n_bins, n_hist, n_ori and affine_shape are used.
    batch, capacity, n_rows : int
        Number of images, of entries of a list, and of rows of all octaves.
    memory : callable, optional
        Returns a number of bytes of the device; by default they are allocated.
    """
    fields = _fields(device.dtype, parameters, batch, capacity, n_rows)
    buffer = (memory or device.memory)(bytes_of(device.dtype, parameters, batch, capacity, n_rows))
    arrays, start = {}, 0
    for name, (shape, dtype) in fields.items():
        size = _size(shape, dtype)
        arrays[name] = buffer[start : start + size].view(dtype).reshape(shape)
        start += aligned(size)
    # Constants have memory of their own: other plans write to the buffer between two runs.
    arrays["starts"], arrays["n_rows"] = (device.xp.full(batch, number, np.int32) for number in (0, n_rows))
    lists = FeatureLists(**arrays)
    lists.clear()
    return lists


def bytes_of(real: np.dtype, parameters: Parameters, batch: int, capacity: int, n_rows: int) -> int:
    """Bytes of the lists that `allocate` makes in the precision `real`."""
    fields = _fields(real, parameters, batch, capacity, n_rows)
    return sum(aligned(_size(shape, dtype)) for shape, dtype in fields.values())


def _fields(
    real: np.dtype, parameters: Parameters, batch: int, capacity: int, n_rows: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array in the buffer."""
    entries = (batch, capacity)
    integers = ("accepted", "offsets", "further", "octaves", "scales", "keypoints", "features")
    return {
        "counts": ((N_COUNTS, batch), np.int32),
        **dict.fromkeys(("row_counts", "row_offsets"), ((batch, n_rows), np.int32)),
        **dict.fromkeys(("keys", "grouped"), (entries, np.int64)),
        **dict.fromkeys(integers, (entries, np.int32)),
        "positions": ((*entries, 2), real),
        "shapes": ((batch, capacity if parameters.affine_shape else 0, 2, 2), real),
        **dict.fromkeys(("sigmas", "responses", "orientations"), (entries, real)),
        "angles": ((*entries, parameters.n_bins), real),
        "descriptors": ((*entries, parameters.n_values), np.uint8),
    }


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def of_features(device: Device, parameters: Parameters, features: Features, capacity: int) -> FeatureLists:
    """Lists of one image in which these features are the candidates, the keypoints and the features."""
    n = len(features)
    lists = allocate(device, parameters, 1, capacity, 1)
    for name in ("positions", "sigmas", "responses", "octaves", "scales", "orientations"):
        getattr(lists, name)[0, :n] = getattr(features, name)
    if features.affine_shapes is not None:
        lists.shapes[0, :n] = features.affine_shapes
    lists.keypoints[0, :n] = lists.features[0, :n] = device.xp.arange(n, dtype=np.int32)
    lists.counts[CANDIDATES : USABLE_FEATURES + 1] = n
    return lists


def sum_counts(
    device: Device, lists: FeatureLists, counts: Any, lengths: Any, starts: Any, offsets: Any, total: int
) -> Any:
    """The launch that writes the sums of the counts before each to `offsets`, and their total to two rows of `counts`.

    These are the rows `total`, and `total + 1`, which holds 0 if the total exceeds the capacity.
    """
    arguments = counts, lengths, starts, counts.shape[1], lists.capacity, offsets
    grid = (min(SUM_BLOCKS, device.n_list_blocks), 1, lists.batch)
    return device.prepare("sum_counts", grid, SUM_BLOCK, *arguments, lists.counts[total], lists.counts[total + 1])


def grid_of(device: Device, lists: FeatureLists, block: tuple[int, ...] = LIST_BLOCK) -> tuple[int, int, int]:
    """A grid for lists whose lengths only the device knows: its blocks stride over the entries.

    Smaller blocks are more, so that the device has as many threads.
    """
    blocks = device.n_list_blocks * max(1, math.prod(LIST_BLOCK) // math.prod(block))
    return (min(lists.capacity, blocks), 1, lists.batch)
