"""The features of a batch in one block of bytes, which one copy brings to the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.stages.feature_lists import N_COUNTS, USABLE_FEATURES, aligned
from gpusift.stages.workspace import Step, Workspace

BLOCK = (128,)

# The row of the header after those of `FeatureLists.counts`.
UNFIT = N_COUNTS


def steps(work: Workspace) -> list[Step]:
    """The launch that packs the counts and the features into `work.results`.

    The positions of a strip's features keep the bias of upsampling, as `max_keypoints` is applied to all strips later.
    """
    lists, inputs, results = work.lists, work.inputs, work.results
    if inputs is None:
        return []
    end = header_bytes(lists.batch)
    shift = 0.0 if work.octaves is not None else -work.parameters.position_shift
    return [
        work.device.prepare(
            "collect",
            work.list_grid,
            BLOCK,
            lists.counts,
            N_COUNTS,
            lists.counts[USABLE_FEATURES],
            inputs.table.unfit,
            lists.capacity,
            lists.features,
            lists.orientations,
            lists.descriptors,
            lists.positions,
            lists.sigmas,
            lists.responses,
            lists.octaves,
            lists.scales,
            lists.shapes,
            int(work.parameters.affine_shape),
            shift,
            work.parameters.n_values if work.with_descriptors else 0,
            results[:end].view(np.int32),
            results[end:],
        )
    ]


def header_bytes(batch: int) -> int:
    """Bytes of the header, behind which the features of the first image begin."""
    return aligned(4 * (N_COUNTS + 1) * batch)


def entry_bytes(real: np.dtype, n_values: int, *, has_shapes: bool) -> int:
    """Bytes of a feature with a descriptor of so many values, with or without an affine shape."""
    return (9 if has_shapes else 5) * real.itemsize + 8 + n_values


def bytes_of(real: np.dtype, parameters: Parameters, batch: int, entries: int) -> int:
    """Bytes of the results of a batch with so many features for each image."""
    of_entry = entry_bytes(real, parameters.n_values, has_shapes=parameters.affine_shape)
    return header_bytes(batch) + batch * aligned(entries * of_entry)


def header_of(results: np.ndarray, batch: int) -> np.ndarray:
    """(N_COUNTS + 1, batch) array of int32 on the host: the counts of each image, and whether it is unfit."""
    return results[: 4 * (N_COUNTS + 1) * batch].view(np.int32).reshape(-1, batch)


def offsets_of(lengths: np.ndarray, size: int) -> list[int]:
    """Where the features of each image begin behind the header, and where the last ones end, in bytes.

    Parameters
    ----------
    lengths : (B,) array of int
        Number of features of each image.
    size : int
        Bytes of a feature.
    """
    offsets = [0]
    for length in lengths.tolist():
        offsets.append(offsets[-1] + aligned(length * size))
    return offsets


def features_of(real: np.dtype, memory: Any, n: int, n_values: int, *, has_shapes: bool) -> Features:
    """The `n` features of one image: views of bytes, on the device or on the host, which begin with them."""
    start = 0

    def view(shape: tuple[int, ...], kind: Any) -> Any:
        nonlocal start
        size = math.prod(shape) * np.dtype(kind).itemsize
        start += size
        return memory[start - size : start].view(kind).reshape(shape)

    positions = view((n, 2), real)
    sigmas, orientations, responses = (view((n,), real) for _ in range(3))
    shapes = view((n, 2, 2), real) if has_shapes else None
    octaves, scales = view((n,), np.int32), view((n,), np.int32)
    descriptors = view((n, n_values), np.uint8) if n_values else None
    return Features(positions, sigmas, scales, octaves, orientations, responses, descriptors, shapes)


def no_features(device: Device, parameters: Parameters, *, with_descriptors: bool = True) -> Features:
    """The features, none, of an image without an octave, on the device."""
    n_values = parameters.n_values if with_descriptors else 0
    return features_of(device.dtype, device.memory(0), 0, n_values, has_shapes=parameters.affine_shape)
