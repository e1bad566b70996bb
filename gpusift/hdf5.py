"""Features and matches in HDF5 files with hloc's layout, which hloc reads.

`features.h5` has a group for each image, named like the image: a name with slashes makes nested groups. In it, for N
features with descriptors of D values:

=============  ==================  ================================================================
dataset        shape, dtype        meaning
=============  ==================  ================================================================
`keypoints`    (N, 2) float32      x (column) and y (row) in pixels of the image, the centre of the
                                   upper left pixel at (0, 0); attribute `uncertainty`: 1 pixel
`descriptors`  (D, N) float16      RootSIFT: square roots of the descriptor bytes' fractions of
                                   their sum; each column has length 1, as hloc's nearest neighbours,
                                   which compare scalar products, need. They are COLMAP's with
                                   `SIFT.colmap`; hloc's own `sift` takes the roots once more
`scores`       (N,) float32        absolute value of the difference of Gaussians at the keypoint
`scales`       (N,) float32        sigma in pixels of the image
`oris`         (N,) float32        degrees in [0, 360), from the x axis towards the y axis (clockwise
                                   as seen), as OpenCV, VLFeat and COLMAP have it
`image_size`   (2,) int64          width and height
=============  ==================  ================================================================

The descriptor bytes themselves are in the `.npz` files (`gpusift.npz`).

In `matches.h5` there is a group per pair of images, `<first>/<second>` with `-` for each slash in the two names. In it:

==================  ===============  ==============================================================
dataset             shape, dtype     meaning
==================  ===============  ==============================================================
`matches0`          (N,) int16       for each keypoint of the first image the index of that of the
                                     second, or -1; int32 where the second has more than 32767
`matching_scores0`  (N,) float16     (1 + c) / 2, where c is the cosine of the two RootSIFT
                                     descriptors, as hloc's nearest neighbours score; 0 for none
==================  ===============  ==============================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.matching.matches import match_indices
from gpusift.parameters import NORMALIZATIONS
from gpusift.storage import transaction

SUFFIXES = (".h5", ".hdf5")

CHUNK = 2**16  # descriptors that are converted at once: a large image has millions

# Of datasets; the uncertainty is hloc's default for detectors that state none, in pixels.
ATTRIBUTES = {"keypoints": {"uncertainty": 1.0}}


def hloc_arrays(features: Features, image_shape: Sequence[int], normalization: str = "l2") -> dict[str, np.ndarray]:
    """Convert features to hloc's names, shapes and conventions.

    Parameters
    ----------
    features : Features
        The N features, on any device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that made them.

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


def hloc_data(features: Features, image_shape: Sequence[int], normalization: str) -> dict[str, np.ndarray | Columns]:
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
    host = features.to_host()
    data: dict[str, np.ndarray | Columns] = {
        "keypoints": host.positions[:, ::-1].astype(np.float32),
        "scores": np.abs(host.responses).astype(np.float32),
        "scales": host.sigmas.astype(np.float32),
        "oris": host.angles.astype(np.float32) % 360,  # float32 may round up to 360
        "image_size": np.array([image_shape[1], image_shape[0]], dtype=np.int64),
    }
    if host.descriptors is not None:
        descriptors = host.descriptors
        columns = Columns(descriptors.shape[::-1], lambda chunk: root_sift(descriptors[chunk], normalization).T)
        data["descriptors"] = columns if len(descriptors) > CHUNK else columns.whole()
    return data


def hloc_matches(
    features_a: Features, features_b: Features, matches: Any, normalization: str = "l2"
) -> dict[str, np.ndarray]:
    """Convert matches to hloc's names, shapes and conventions.

    Parameters
    ----------
    features_a, features_b : Features
        Of the two images, with descriptors, on any device.
    matches : Matches or (Q, 2) array of int
        Indices into the one and the other; at most one match for each feature of the first.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that made the features.

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
        root_sift(features.to_host()[indices].arrays()["descriptors"], normalization)
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


def write(
    path: str | os.PathLike[str],
    name: str,
    features: Features,
    image_shape: Sequence[int],
    normalization: str = "l2",
) -> None:
    """Write one image's features to a file; they replace those that it has under that name.

    Parameters
    ----------
    path : str or path-like
        The file, made if it does not exist. It is closed again, so that it is complete between two calls.
    name : str
        The image's name, as hloc calls it: its path relative to the folder of all images.
    features : Features
        The N features, on any device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that made the features.
    """
    import h5py

    arrays = hloc_data(features, image_shape, normalization)
    with h5py.File(path, "a", libver="latest") as file:
        if name in file:
            del file[name]
        write_group(file, name, arrays)


def write_matches(
    path: str | os.PathLike[str],
    name_a: str,
    name_b: str,
    features_a: Features,
    features_b: Features,
    matches: Any,
    normalization: str = "l2",
) -> None:
    """Write the matches of one pair of images to a file; they replace those that it has of the pair in either order.

    Parameters
    ----------
    path : str or path-like
        The file, made if it does not exist. It is closed again, so that it is complete between two calls.
    name_a, name_b : str
        The images' names, as for `write`.
    features_a, features_b : Features
        All their features, in the order in which `write` wrote them; on any device.
    matches : Matches or (Q, 2) array of int
        Indices into the one and the other.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that made the features.

    Raises
    ------
    ValueError
        As `hloc_matches`.
    """
    import h5py

    arrays = hloc_matches(features_a, features_b, matches, normalization)
    with h5py.File(path, "a", libver="latest") as file:
        for name in (pair_name(name_a, name_b), pair_name(name_b, name_a)):
            if name in file:
                del file[name]
        write_group(file, pair_name(name_a, name_b), arrays)


def recover(path: str | os.PathLike[str]) -> None:
    """Complete a commit in which `gpusift extract` was killed, to read the file before the next run does the same.

    Parameters
    ----------
    path : str or path-like
        The HDF5 file. If the journal of a commit is at its end, the commit is completed; else it is not changed.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    transaction.recover(Path(os.path.realpath(path)))


def write_group(file: Any, name: str, arrays: Mapping[str, np.ndarray | Columns]) -> None:
    """Write the datasets of `hloc_arrays` or `hloc_matches` to an open file; all of them or none.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    name : str
        The group, which has none of these datasets; it may exist, because of names that continue with a slash.
    arrays : mapping
        The datasets, or what `hloc_data` returns.

    Raises
    ------
    ValueError
        The file cannot have a group of this name, or has such datasets in it.
    """
    group, done = file.require_group(name), []
    try:
        for key, array in arrays.items():
            is_whole = isinstance(array, np.ndarray)
            options = {"data": array} if is_whole else {"shape": array.shape, "dtype": array.dtype}
            data = group.create_dataset(key, **options)
            done.append(key)
            data.attrs.update(ATTRIBUTES.get(key, {}))
            if isinstance(array, Columns):
                for columns in array.slices():
                    data[:, columns] = array.convert(columns).astype(array.dtype, order="C")
    except BaseException:  # a full disk or Ctrl-C must not leave half an image behind
        with suppress(Exception):
            for key in done:
                del group[key]
            if not len(group):
                del file[name]
        raise
