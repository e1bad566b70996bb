"""Features of a file with hloc's layout, see `gpusift.hdf5`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.parameters import DESCRIPTOR_NORM, Parameters
from gpusift.provenance import Provenance

PROVENANCE = "gpusift"  # attribute of a group with features

NEEDED = ("keypoints", "scales", "oris", "image_size")  # datasets of an image


def names_in(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the images in a file of features, in alphabetical order.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    import h5py

    with h5py.File(path) as file:
        return sorted(_names(file))


def read(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> Iterator[tuple[str, tuple[int, int], Features]]:
    """Read features that `gpusift extract`, `gpusift.hdf5.write` or hloc's `sift` wrote.

    Descriptors are bytes again, to within 1, and of the normalization "root". The files hold neither the sign of
    responses nor the levels of keypoints: responses are not negative, and levels are those nearest to the sigmas, with
    the default `sigma_min` and `n_scales`.

    Parameters
    ----------
    path : str or path-like
        The file.
    names : iterable of str, optional
        The images to read; by default all, in alphabetical order.

    Yields
    ------
    name : str
        The image's name.
    shape : (int, int)
        Rows and columns of the image.
    features : Features
        As NumPy arrays, in float32. Their provenance is None if the file does not have it.

    Raises
    ------
    KeyError
        The file has no such image.
    OSError
        The file cannot be read.
    ValueError
        It holds features that are not SIFT's.
    """
    import h5py

    with h5py.File(path) as file:
        for name in sorted(_names(file)) if names is None else names:
            group = file.get(name)
            if not isinstance(group, h5py.Group) or "keypoints" not in group:
                raise KeyError(f"{os.fspath(path)} has no features of an image {name!r}")
            yield name, *_features(group, f"{os.fspath(path)}, image {name!r}")


def _names(group: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of groups with keypoints; links, which may lead to other files, are not followed."""
    import h5py

    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.HardLink) and isinstance(group[key], h5py.Group):
            if "keypoints" in group[key]:
                yield prefix + key
            yield from _names(group[key], f"{prefix}{key}/")


def _features(group: Any, which: str) -> tuple[tuple[int, int], Features]:
    missing = [name for name in NEEDED if name not in group]
    if missing:
        raise ValueError(f"{which} must have SIFT's features, but has no {', '.join(missing)}")
    keypoints, width, height = group["keypoints"][()].astype(np.float32), *map(int, group["image_size"])
    sigmas, n = group["scales"][()].astype(np.float32), len(keypoints)
    record = group.attrs.get(PROVENANCE)
    provenance = None if record is None else Provenance.of_json(str(record))
    parameters = Parameters() if provenance is None else Parameters(upsampling=provenance.upsampling, sigma_in=0)
    octaves, scales = parameters.levels_of(sigmas, max(parameters.n_octaves_of((height, width)), 1))
    turned = np.deg2rad(90 - group["oris"][()].astype(np.float64))
    features = Features(
        positions=np.ascontiguousarray(keypoints[:, ::-1]),
        sigmas=sigmas,
        scales=scales,
        octaves=octaves,
        orientations=np.arctan2(np.sin(turned), np.cos(turned)).astype(np.float32),
        responses=group["scores"][()].astype(np.float32) if "scores" in group else np.zeros(n, np.float32),
        descriptors=_bytes(group["descriptors"][()], which) if "descriptors" in group else None,
        affine_shapes=_by_row_and_col(group["affine_shapes"][()]) if "affine_shapes" in group else None,
        provenance=provenance,
    )
    lengths = {name: len(array) for name, array in features.arrays().items()}
    if set(lengths.values()) != {n}:
        raise ValueError(f"{which} must have datasets of one length, got {lengths}")
    return (height, width), features


def _by_row_and_col(shapes: np.ndarray) -> np.ndarray:
    """Return (N, 2, 2) matrices by row and column, of those by x and y."""
    return np.ascontiguousarray(shapes[:, ::-1, ::-1], np.float32)


def _bytes(rooted: np.ndarray, which: str) -> np.ndarray:
    """Return (N, D) bytes of (D, N) RootSIFT descriptors of length 1."""
    if rooted.size and not rooted.min() >= 0:
        raise ValueError(f"{which} must have SIFT's descriptors, which are not negative, got {rooted.min()}")
    values = np.rint(rooted.T.astype(np.float32) * DESCRIPTOR_NORM)
    return np.minimum(values, 255).astype(np.uint8)
