"""Features in one HDF5 file with the layout of hloc's `features.h5`, which hloc reads as its own.

A group per image, called as the image: a name with slashes makes nested groups. In it, for N
features with descriptors of D values:

=============  ==================  ================================================================
dataset        shape, dtype        meaning
=============  ==================  ================================================================
`keypoints`    (N, 2) float32      x (column) and y (row) in pixels of the image, the centre of the
                                   upper left pixel at (0, 0); attribute `uncertainty`: 1 pixel
`descriptors`  (D, N) float16      RootSIFT: square roots of the descriptor bytes' shares in their
                                   sum; each column has length 1, as hloc's nearest neighbours,
                                   which compare scalar products, need (its `sift` writes the same)
`scores`       (N,) float32        absolute value of the difference of Gaussians at the keypoint
`scales`       (N,) float32        sigma in pixels of the image
`oris`         (N,) float32        degrees in [0, 360), from the x axis towards the y axis (clockwise
                                   as seen), as OpenCV, VLFeat and COLMAP have it
`image_size`   (2,) int64          width and height
=============  ==================  ================================================================

The descriptor bytes themselves are in the `.npz` files (`gpusift.npz`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gpusift.features import Features

SUFFIXES = (".h5", ".hdf5")

# hloc's default for detectors that state none, in pixels.
UNCERTAINTY = 1.0


def hloc_arrays(features: Features, image_shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Convert features to hloc's names, shapes and conventions.

    Parameters
    ----------
    features : Features
        The N features, on any device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.

    Returns
    -------
    arrays : dict
        The datasets listed at the head of this module; no `descriptors` if the features have none.
    """
    host = features.to_host()
    arrays = {
        "keypoints": host.positions[:, ::-1].astype(np.float32),
        "scores": np.abs(host.responses).astype(np.float32),
        "scales": host.sigmas.astype(np.float32),
        "oris": orientation_degrees(host.orientations),
        "image_size": np.array([image_shape[1], image_shape[0]], dtype=np.int64),
    }
    if host.descriptors is not None:
        arrays["descriptors"] = root_sift(host.descriptors).T.astype(np.float16)
    return arrays


def orientation_degrees(orientations: np.ndarray) -> np.ndarray:
    """Turn angles from the row axis into angles from the column axis.

    Parameters
    ----------
    orientations : (N,) array of float
        Radians; the direction is cos along rows and sin along columns (scikit-image's convention).

    Returns
    -------
    degrees : (N,) float32 array
        In [0, 360); the direction is cos along columns (x) and sin along rows (y).
    """
    degrees = np.mod(90 - np.rad2deg(orientations.astype(np.float64)), 360).astype(np.float32)
    return np.where(degrees < 360, degrees, np.float32(0))  # float32 may round up to 360


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """Scale descriptors so that their scalar product is the Hellinger kernel.

    Parameters
    ----------
    descriptors : (N, D) array of uint8
        Gradient histograms.

    Returns
    -------
    rooted : (N, D) float32 array
        Rows of length 1 (0 where a descriptor is all zeros).
    """
    total = descriptors.sum(axis=1, dtype=np.float32, keepdims=True)
    return np.sqrt(descriptors / np.maximum(total, 1)).astype(np.float32)


def write(path: str | os.PathLike[str], name: str, features: Features, image_shape: Sequence[int]) -> None:
    """Put one image's features into a file, in place of those it has under that name.

    Parameters
    ----------
    path : str or path-like
        The file, made if there is none. It is closed again, so that it is whole between two calls.
    name : str
        The image's name, as hloc calls it: its path relative to the folder of all images.
    features : Features
        The N features, on any device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.
    """
    import h5py

    arrays = hloc_arrays(features, image_shape)
    with h5py.File(path, "a", libver="latest") as file:
        if name in file:
            del file[name]
        try:
            group = file.create_group(name)
            for key, array in arrays.items():
                group.create_dataset(key, data=array)
            group["keypoints"].attrs["uncertainty"] = UNCERTAINTY
        except BaseException:  # a full disk or Ctrl-C must not leave half an image behind
            with suppress(Exception):
                del file[name]
            raise


class Hdf5File:
    """An hloc features file, filled one image at a time.

    It grows as `<stem>.partial<suffix>` beside its final place, readable after each image, and
    takes that place when finished. An interrupted run leaves the partial file.

    Parameters
    ----------
    path : str or path-like
        The final file; its folder is made if it does not exist.
    overwrite : bool, optional
        Replace `path`, when finished, and an earlier partial file, now.

    Raises
    ------
    FileExistsError
        One of the two is there, and `overwrite` is not set.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.result = Path(path)
        self.partial = self.result.with_name(f"{self.result.stem}.partial{self.result.suffix}")
        for file in (self.result, self.partial):
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file} exists; choose another name, or overwrite it")
        self.result.parent.mkdir(parents=True, exist_ok=True)
        self.partial.unlink(missing_ok=True)

    def write(self, name: str, features: Features, image_shape: Sequence[int]) -> None:
        """Write one image's features, see `gpusift.hdf5.write`."""
        write(self.partial, name, features, image_shape)

    def finish(self) -> None:
        """Give the file its final name; with no image written there is none."""
        if self.partial.exists():
            os.replace(self.partial, self.result)

    def unfinished(self) -> Path:
        """Return where the results of an interrupted run are."""
        return self.partial
