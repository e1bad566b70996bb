"""Conversion of features and matches to the datasets of hloc's files, see `gpusift.hdf5`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.matching.matches import match_indices
from gpusift.parameters import NORMALIZATIONS

CHUNK = 2**16  # descriptors that are converted at once: a large image has millions


def hloc_arrays(
    features: Features, image_shape: Sequence[int], normalization: str | None = None
) -> dict[str, np.ndarray]:
    """Convert features to hloc's names, shapes and conventions.

    Parameters
    ----------
    features : Features
        The N features, on any device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that made them; by default the one that they are known to have, or "l2".

    Returns
    -------
    arrays : dict
        The datasets listed at the head of this module; no `descriptors` if the features have none.
    """
    data = hloc_data(features, image_shape, normalization)
    return {key: array.whole() if isinstance(array, Columns) else array for key, array in data.items()}


@dataclass(frozen=True)
class Columns:
    """A float16 dataset that is converted some columns at a time: with millions of features it takes much memory.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    convert : callable
        Returns the columns of a slice, of any dtype.
    """

    shape: tuple[int, int]
    convert: Callable[[slice], np.ndarray]
    dtype = np.float16

    def slices(self) -> Iterator[slice]:
        """Divide the columns."""
        return (slice(first, min(first + CHUNK, self.shape[1])) for first in range(0, self.shape[1], CHUNK))

    def whole(self) -> np.ndarray:
        """Return all columns."""
        array = np.empty(self.shape, self.dtype)
        for columns in self.slices():
            array[:, columns] = self.convert(columns)
        return array


def hloc_data(
    features: Features, image_shape: Sequence[int], normalization: str | None = None
) -> dict[str, np.ndarray | Columns]:
    """Convert features as `hloc_arrays` does, but leave many descriptors to `write_group`, which converts pieces.

    Parameters
    ----------
    features, image_shape, normalization
        As for `hloc_arrays`.

    Returns
    -------
    data : dict
        For `write_group`.
    """
    normalization = features.normalization(normalization)
    host = features.to_host().unbiased()
    data: dict[str, np.ndarray | Columns] = {
        "keypoints": host.positions[:, ::-1].astype(np.float32),
        "scores": np.abs(host.responses).astype(np.float32),
        "scales": host.sigmas.astype(np.float32),
        "oris": host.angles.astype(np.float32) % 360,  # float32 may round up to 360
        "image_size": np.array([image_shape[1], image_shape[0]], dtype=np.int64),
    }
    if host.affine_shapes is not None:
        data["affine_shapes"] = host.affine_shapes[:, ::-1, ::-1].astype(np.float32)
    if host.descriptors is not None:
        descriptors = host.descriptors
        columns = Columns(descriptors.shape[::-1], lambda chunk: root_sift(descriptors[chunk], normalization).T)
        data["descriptors"] = columns if len(descriptors) > CHUNK else columns.whole()
    return data


def hloc_matches(
    features_a: Features, features_b: Features, matches: Any, normalization: str | None = None
) -> dict[str, np.ndarray]:
    """Convert matches to hloc's names, shapes and conventions.

    Parameters
    ----------
    features_a, features_b : Features
        Of the two images, with descriptors, on any device.
    matches : Matches or (Q, 2) array of int
        Indices into the one and the other; at most one match for each feature of the first.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that made the features; by default the one that they are known to have, or "l2".

    Returns
    -------
    arrays : dict
        The datasets listed at the head of this module.

    Raises
    ------
    ValueError
        If features have no descriptors, or the matches are no pairs of indices into the features, or use one of the
        first image's twice.
    """
    if features_a.descriptors is None or features_b.descriptors is None:
        raise ValueError("features must have descriptors, from which the scores come, got None; use SIFT.compute")
    first, second = match_indices(features_a, features_b, matches).T
    if len(np.unique(first)) < len(first):
        raise ValueError(
            f"hloc's layout holds one match a feature of the first image, got {len(first)} for "
            f"{len(np.unique(first))} features; match with cross_check, or drop all but the best"
        )
    descriptors = [
        root_sift(features.to_host()[indices].arrays()["descriptors"], features.normalization(normalization))
        for features, indices in ((features_a, first), (features_b, second))
    ]
    largest = len(features_b) - 1
    arrays = {
        "matches0": np.full(len(features_a), -1, np.int16 if largest <= np.iinfo(np.int16).max else np.int32),
        "matching_scores0": np.zeros(len(features_a), np.float16),
    }
    arrays["matches0"][first] = second
    arrays["matching_scores0"][first] = (1 + np.einsum("ij,ij->i", *descriptors)) / 2
    return arrays


def root_sift(descriptors: np.ndarray, normalization: str = "l2") -> np.ndarray:
    """Scale descriptors so that their scalar product is the Hellinger kernel.

    Parameters
    ----------
    descriptors : (N, D) array of uint8
        Gradient histograms.
    normalization : {"l2", "root"}, optional
        "root" if they hold the square roots already, see `gpusift.SIFT`.

    Returns
    -------
    rooted : (N, D) float32 array
        Rows of length 1 (0 where a descriptor is all zeros).
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {', '.join(map(repr, NORMALIZATIONS))}, got {normalization!r}")
    histograms = descriptors.astype(np.float32)
    if normalization == "root":
        histograms *= histograms
    histograms /= np.maximum(histograms.sum(axis=1, keepdims=True), 1)
    return np.sqrt(histograms, out=histograms)


def pair_name(name_a: str, name_b: str) -> str:
    """Return the group of a pair of images, see the head of this module."""
    return f"{name_a.replace('/', '-')}/{name_b.replace('/', '-')}"
