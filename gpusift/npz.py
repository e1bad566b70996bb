"""Features in NumPy's `.npz` files, one for each image, which `numpy.load` reads without pickle.

Each file holds the arrays of `Features` by their names (`positions`, `sigmas`, `scales`, `octaves`,
`orientations`, `responses`, and `descriptors` if there are any), on the host and in gpusift's own
conventions (row and column, radians, input pixels), `image_shape`, (2,) int64: rows, columns, and
`provenance`, JSON with the attributes of `gpusift.features.Provenance`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from gpusift.features import Features
from gpusift.storage.atomic import replacing


def save(path: str | os.PathLike[str], features: Features, image_shape: Sequence[int]) -> None:
    """Write one image's features; the file appears whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists; its folder is made if it does not.
    features : Features
        The N features, on any device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.

    Raises
    ------
    OSError
        The file cannot be written; an earlier one is unchanged.
    """
    with replacing(path) as temporary:
        write(temporary, features, image_shape)


def write(path: str | os.PathLike[str], features: Features, image_shape: Sequence[int]) -> None:
    """Write one image's features, as `save` does, but in place: a kill may leave half a file.

    Parameters
    ----------
    path, features, image_shape
        As for `save`; the folder must exist.
    """
    arrays = features.as_npz()
    with open(path, "wb") as file:
        np.savez(file, image_shape=np.array(image_shape[:2], dtype=np.int64), **arrays)


def load(path: str | os.PathLike[str]) -> Features:
    """Read back the features that `save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    features : Features
        As NumPy arrays.
    """
    return Features.load(path)
