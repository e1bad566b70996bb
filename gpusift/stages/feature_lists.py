"""The lists of a batch of images that stay on the device: candidates, keypoints and features, and their lengths."""

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

# The rows of `FeatureLists.counts`.
N_COUNTS = 10
FOUND, UNFIT, CANDIDATES, USABLE_CANDIDATES, KEYPOINTS, USABLE_KEYPOINTS, FEATURES, USABLE_FEATURES = range(8)
TAKEN_KEYPOINTS, TAKEN_FEATURES = range(8, N_COUNTS)


@dataclass(frozen=True, eq=False)
class FeatureLists:
    """Room for the candidates, keypoints and features of B images, `capacity` of each.

    A keypoint is the number of a candidate, and so is a feature, which also has an orientation and a descriptor.

    Attributes
    ----------
    counts : (10, B) array of int32
        Of each image: candidates found; whether a pixel is unfit; then of candidates, keypoints and features how many
        there are, and the same again, or 0 if there is no room for all; and how many keypoints and features blocks have
        taken, 0 between launches.
    row_counts, row_offsets : (B, n_rows) arrays of int32
        Of each row of all octaves: how many candidates it has, and where they begin.
    starts, n_rows : (B,) arrays of int32
        Zero, and the number of rows.
    keys, grouped : (B, capacity) arrays of int64
        The candidates, packed, in order; and grouped by row.
    accepted, offsets, further : (B, capacity) arrays of int32
        Whether a candidate is a keypoint; where something of each entry goes; a keypoint's orientations but one.
    positions : (B, capacity, 2) array
        Of the candidates, and so are `sigmas`, `responses`, and `octaves` and `scales` of int32.
    keypoints, features : (B, capacity) arrays of int32
        Numbers of candidates.
    angles : (B, capacity, n_bins) array
        Of the keypoints.
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
    keypoints: Any
    features: Any
    angles: Any
    orientations: Any
    descriptors: Any

    @property
    def batch(self) -> int:
        """B."""
        return int(self.keys.shape[0])

    @property
    def capacity(self) -> int:
        """Entries of a list."""
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
        Where.
    parameters : Parameters
        n_bins and what the length of a descriptor follows from matter here.
    batch, capacity, n_rows : int
        Images, entries of a list, rows of all octaves.
    memory : callable, optional
        Gives so many bytes; by default the device does.
    """
    fields = _fields(device.dtype, parameters, batch, capacity, n_rows)
    taken = (memory or device.memory)(bytes_of(device.dtype, parameters, batch, capacity, n_rows))
    arrays, start = {}, 0
    for name, (shape, dtype) in fields.items():
        size = _size(shape, dtype)
        arrays[name] = taken[start : start + size].view(dtype).reshape(shape)
        start += _aligned(size)
    # not in the memory given, which others may use between two calls
    arrays["starts"], arrays["n_rows"] = (device.xp.full(batch, number, np.int32) for number in (0, n_rows))
    lists = FeatureLists(**arrays)
    lists.clear()
    return lists


def bytes_of(real: np.dtype, parameters: Parameters, batch: int, capacity: int, n_rows: int) -> int:
    """The memory that lists take, bytes; the parameters are those of `allocate`, and the precision."""
    fields = _fields(real, parameters, batch, capacity, n_rows)
    return sum(_aligned(_size(shape, dtype)) for shape, dtype in fields.values())


def _fields(
    real: np.dtype, parameters: Parameters, batch: int, capacity: int, n_rows: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array that lies in the memory."""
    entries = (batch, capacity)
    integers = ("accepted", "offsets", "further", "octaves", "scales", "keypoints", "features")
    return {
        "counts": ((N_COUNTS, batch), np.int32),
        **dict.fromkeys(("row_counts", "row_offsets"), ((batch, n_rows), np.int32)),
        **dict.fromkeys(("keys", "grouped"), (entries, np.int64)),
        **dict.fromkeys(integers, (entries, np.int32)),
        "positions": ((*entries, 2), real),
        **dict.fromkeys(("sigmas", "responses", "orientations"), (entries, real)),
        "angles": ((*entries, parameters.n_bins), real),
        "descriptors": ((*entries, parameters.n_values), np.uint8),
    }


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def of_features(device: Device, parameters: Parameters, features: Features, capacity: int) -> FeatureLists:
    """FeatureLists of one image with these keypoints, as candidates, keypoints and features."""
    n = len(features)
    lists = allocate(device, parameters, 1, capacity, 1)
    for name in ("positions", "sigmas", "responses", "octaves", "scales", "orientations"):
        getattr(lists, name)[0, :n] = getattr(features, name)
    lists.keypoints[0, :n] = lists.features[0, :n] = device.xp.arange(n, dtype=np.int32)
    lists.counts[CANDIDATES : USABLE_FEATURES + 1] = n
    return lists


def sum_counts(
    device: Device, lists: FeatureLists, counts: Any, lengths: Any, starts: Any, offsets: Any, total: int
) -> Any:
    """The launch that sums counts up; the sum goes to the rows `total` and `total + 1` of `FeatureLists.counts`."""
    arguments = counts, lengths, starts, counts.shape[1], lists.capacity, offsets
    grid = (1, 1, lists.batch)
    return device.prepare("sum_counts", grid, SUM_BLOCK, *arguments, lists.counts[total], lists.counts[total + 1])


def grid_of(device: Device, lists: FeatureLists) -> tuple[int, int, int]:
    """A grid whose blocks share lists of lengths that only the device knows."""
    return (min(lists.capacity, device.n_list_blocks), 1, lists.batch)


def collect(
    device: Device,
    parameters: Parameters,
    lists: FeatureLists,
    counts: np.ndarray,
    descriptors: bool,
    move: float = 0.0,
) -> tuple[Any, list[int]]:
    """All features in one block of memory, image after image.

    Parameters
    ----------
    device, parameters, lists
        As in `allocate`.
    counts : (B,) array of int
        The number of features of each image, as the host knows it.
    descriptors : bool
        Whether they have descriptors.
    move : float
        Added to positions, input pixels.

    Returns
    -------
    block : (S,) array of uint8
        On the device.
    offsets : list of int
        B + 1: where each image's features begin, and where the last ones end; see `features_of`.
    """
    n_values = parameters.n_values if descriptors else 0
    offsets = [0]
    for count in counts:
        size = int(count) * (5 * device.dtype.itemsize + 8 + n_values)
        offsets.append(offsets[-1] + _aligned(size))
    block = device.memory(offsets[-1])
    if offsets[-1]:
        device.launch(
            "collect",
            grid_of(device, lists),
            LIST_BLOCK,
            lists.features,
            lists.counts[USABLE_FEATURES],
            lists.capacity,
            lists.orientations,
            lists.descriptors,
            lists.positions,
            lists.sigmas,
            lists.responses,
            lists.octaves,
            lists.scales,
            move,
            n_values,
            device.asarray(np.array(offsets[:-1])),
            block,
        )
    return block, offsets


def features_of(block: Any, offset: int, n: int, dtype: np.dtype, n_values: int) -> Features:
    """The features of one image, as views of a block that `collect` has filled, or of its copy on the host."""
    start = offset

    def take(shape: tuple[int, ...], kind: Any) -> Any:
        nonlocal start
        size = _size(shape, kind)
        start += size
        return block[start - size : start].view(kind).reshape(shape)

    positions = take((n, 2), dtype)
    sigmas, orientations, responses = (take((n,), dtype) for _ in range(3))
    octaves, scales = take((n,), np.int32), take((n,), np.int32)
    descriptors = take((n, n_values), np.uint8) if n_values else None
    return Features(positions, sigmas, scales, octaves, orientations, responses, descriptors)
