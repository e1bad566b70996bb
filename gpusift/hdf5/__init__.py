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

The group's attribute `gpusift` has JSON with the attributes of `gpusift.features.Provenance`. Positions are without
the bias of upsampling. The descriptor bytes themselves are in the `.npz` files (`gpusift.npz`); `read` gives them to
within 1.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpusift.features import Features
from gpusift.hdf5.layout import (
    Columns,
    hloc_arrays,
    hloc_data,
    hloc_matches,
    pair_name,
    root_sift,
)
from gpusift.hdf5.matching import match_file
from gpusift.hdf5.reading import names_in, read
from gpusift.hdf5.writing import write_group
from gpusift.storage import transaction

__all__ = [
    "SUFFIXES",
    "Columns",
    "hloc_arrays",
    "hloc_data",
    "hloc_matches",
    "match_file",
    "names_in",
    "pair_name",
    "read",
    "recover",
    "root_sift",
    "write",
    "write_group",
    "write_matches",
]

SUFFIXES = (".h5", ".hdf5")


def write(
    path: str | os.PathLike[str],
    name: str,
    features: Features,
    image_shape: Sequence[int],
    normalization: str | None = None,
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
        As for `hloc_arrays`.
    """
    import h5py

    arrays = hloc_data(features, image_shape, normalization)
    with h5py.File(path, "a", libver="latest") as file:
        if name in file:
            del file[name]
        write_group(file, name, arrays, features.provenance)


def write_matches(
    path: str | os.PathLike[str],
    name_a: str,
    name_b: str,
    features_a: Features,
    features_b: Features,
    matches: Any,
    normalization: str | None = None,
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
        As for `hloc_matches`.

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
