"""The result for one image: keypoints with their descriptors, as arrays."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpusift.provenance import Provenance
from gpusift.storage.atomic import replacing

Reals = NDArray[np.float32] | NDArray[np.float64]

# The attributes of `Features` that are arrays.
REQUIRED = ("positions", "sigmas", "scales", "octaves", "orientations", "responses")
ARRAYS = (*REQUIRED, "descriptors", "affine_shapes")


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Keypoints of one image, in scikit-image's order.

    The order is by octave, row, column and scale. Keypoints with more than one orientation appear again after all
    others, in the same order. The arrays are all of NumPy or all of CuPy. An index, a slice, a mask or an array of
    indices gives the `Features` of those keypoints.

    Attributes
    ----------
    positions : (N, 2) array of float
        Sub-pixel row and column, in pixels of the input image.
    sigmas : (N,) array of float
        Scale (the Gaussian's standard deviation), in pixels of the input image.
    scales : (N,) array of int32
        Index of the scale within the octave, from 1.
    octaves : (N,) array of int32
        Index of the octave, from 0.
    orientations : (N,) array of float
        Direction of the gradient, radians in (-pi, pi]: (cos, sin) points along (row, column). Zero where not assigned.
    responses : (N,) array of float
        Difference of Gaussians, interpolated at the keypoint; negative for bright blobs, positive for dark ones.
    descriptors : (N, D) array of uint8 or None
        Descriptors, if they were computed.
    affine_shapes : (N, 2, 2) array of float or None
        With `affine_shape`: symmetric matrices S by (row, column), whose smaller eigenvalue is 1. The offset u from a
        keypoint in normalized coordinates, in sigmas, is at sigma * S u in the image; the orientation is that of
        normalized coordinates.
    provenance : Provenance or None
        Layout, normalization and pooling of the descriptors, upsampling and bias of the positions, where known: `SIFT`
        says so, and files keep it. Features that do not fit are not compared.
    """

    positions: Reals
    sigmas: Reals
    scales: NDArray[np.int32]
    octaves: NDArray[np.int32]
    orientations: Reals
    responses: Reals
    descriptors: NDArray[np.uint8] | None = None
    affine_shapes: Reals | None = None
    provenance: Provenance | None = None

    @property
    def keypoints(self) -> NDArray[np.int64]:
        """(N, 2) array of int64: the positions rounded to pixels, as (row, column)."""
        with on_device_of(self.positions):
            return self.positions.round().astype("int64")

    @property
    def angles(self) -> Reals:
        """(N,) array of float: the orientations in degrees, in [0, 360), from the x axis (columns) towards the y axis.

        This is clockwise in the picture, the convention of OpenCV, VLFeat and COLMAP.
        """
        with on_device_of(self.orientations):
            degrees = (90 - self.orientations.astype("float64") * (180 / np.pi)) % 360
            degrees = degrees.astype(self.orientations.dtype)
            return degrees * (degrees < 360)  # float32 may round up to 360

    def __repr__(self) -> str:
        module = "CuPy" if _is_cupys(self.positions) else "NumPy"
        described = "no descriptors"
        if self.descriptors is not None:
            described = f"descriptors of {self.descriptors.shape[1]} values"
        return f"<Features: {len(self)} keypoints, {described}, {self.positions.dtype}, {module}>"

    def __len__(self) -> int:
        return int(self.positions.shape[0])

    def __getitem__(self, index: Any) -> Features:
        rows = rows_of(index, len(self))
        return self._map(lambda array: array[rows])

    def to_host(self) -> Features:
        """The same features as NumPy arrays, copied from the GPU if they are on one.

        Features as SIFT computes them, next to each other in memory, are copied at once.
        """
        arrays = self.arrays()
        with on_device_of(self.positions):
            together = _bytes_of_all(list(arrays.values())) if _is_cupys(self.positions) else None
            if together is None:
                return self._map(on_host)
            first, memory = together
            host = memory.get()
        placed: dict[str, Any] = {name: _placed(host, array, array.data.ptr - first) for name, array in arrays.items()}
        return replace(self, **placed)

    def arrays(self) -> dict[str, Any]:
        """The arrays by their names, without those that are None."""
        values = {name: getattr(self, name) for name in ARRAYS}
        return {name: value for name, value in values.items() if value is not None}

    def as_npz(self) -> dict[str, Any]:
        """What `.npz` files hold: the arrays, on the host, and the provenance, if it is known, as JSON."""
        known = {} if self.provenance is None else {"provenance": np.array(self.provenance.as_json())}
        return {**self.to_host().arrays(), **known}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the features to a file of NumPy's `.npz` format, which `load` and `numpy.load` read.

        Parameters
        ----------
        path : str or path-like
            The file, whatever its suffix. It is replaced if it exists, and appears whole or not at all; its folder is
            made if there is none.

        Raises
        ------
        OSError
            If the file cannot be written. An earlier one is unchanged then.
        """
        arrays = self.as_npz()
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Features:
        """The features of a file that `save`, `gpusift.npz.save` or `gpusift extract` wrote; arrays of NumPy.

        Raises
        ------
        ValueError
            If the file does not hold features.
        OSError
            If it cannot be read.
        """
        with open(path, "rb") as file:
            data = np.load(file, allow_pickle=False)
            missing = [name for name in REQUIRED if name not in getattr(data, "files", ())]
            if missing:
                raise ValueError(f"{os.fspath(path)} must hold features, but has no {', '.join(missing)}")
            provenance = Provenance.of_json(str(data["provenance"])) if "provenance" in data else None
            return cls(**{name: data.get(name) for name in ARRAYS}, provenance=provenance)

    @classmethod
    def concatenate(cls, several: Sequence[Features]) -> Features:
        """The keypoints of several features, one after the other.

        Parameters
        ----------
        several : sequence of Features
            At least one; all on the host or all on one GPU, all with descriptors of one length or all without, all of
            one provenance.

        Raises
        ------
        ValueError
            If they are none, or not alike.
        """
        several = list(several)
        if not several:
            raise ValueError("features must be at least one to be concatenated, got none")
        kinds = {(_is_cupys(each.positions), tuple(each.arrays()), _width(each), each.provenance) for each in several}
        if len(kinds) > 1:
            raise ValueError(
                "features must be all on the host or all on a GPU, of one provenance, with descriptors of one length "
                f"or without, got {', '.join(f'{each!r} ({each.provenance})' for each in several)}"
            )
        with on_device_of(several[0].positions):
            xp = _module_of(several[0].positions)
            names = several[0].arrays()
            joined = {name: xp.concatenate([getattr(each, name) for each in several]) for name in names}
            return replace(several[0], **joined)

    def with_provenance(self, provenance: Provenance | None) -> Features:
        """The same features, known to be computed so."""
        return replace(self, provenance=provenance)

    def unbiased(self) -> Features:
        """The same keypoints without the bias of upsampling, as far as it is known."""
        if self.provenance is None or not self.provenance.bias:
            return self
        return self.shifted(-self.provenance.bias).with_provenance(replace(self.provenance, bias=0.0))

    def normalization(self, given: str | None = None) -> str:
        """The normalization of the descriptors: the one that is known, or given; "l2" if there is neither.

        Raises
        ------
        ValueError
            Another one is known than the one that is given.
        """
        known = None if self.provenance is None else self.provenance.normalization
        if None not in (known, given) and known != given:
            raise ValueError(f"normalization must be that of the features, {known!r}, or not given, got {given!r}")
        return given or known or "l2"

    def with_descriptors(self, descriptors: NDArray[np.uint8]) -> Features:
        """The same keypoints with these descriptors."""
        return replace(self, descriptors=descriptors)

    def shifted(self, distance: float) -> Features:
        """The same keypoints, shifted down and to the right by this many input pixels."""
        with on_device_of(self.positions):
            return replace(self, positions=self.positions + self.positions.dtype.type(distance)) if distance else self

    def _map(self, function: Any) -> Features:
        with on_device_of(self.positions):
            return replace(self, **{name: function(array) for name, array in self.arrays().items()})


def rows_of(index: Any, n: int) -> Any:
    """An index into `n` rows that keeps the first axis: a number as a slice of one row; raises an IndexError."""
    if not isinstance(index, (int, np.integer)):
        return index
    number = range(n)[index]
    return slice(number, number + 1)


def on_device_of(array: Any) -> AbstractContextManager[Any]:
    """A context in which the GPU that an array lies on, if it lies on one, is the current device."""
    return array.device if _is_cupys(array) else nullcontext()


def on_host(array: Any) -> Any:
    """The array as NumPy's if it is CuPy's, in order with the stream that is current on its GPU; others unchanged."""
    with on_device_of(array):  # CuPy copies in the current stream of the device that is current
        return array.get() if _is_cupys(array) else array


def _bytes_of_all(arrays: Sequence[Any]) -> tuple[int, Any] | None:
    """The bytes of a GPU's memory that hold these arrays and nothing else, and their address; None if there are none.

    Such arrays are contiguous views of one array of bytes.
    """
    owner = arrays[0].base
    if owner is None or owner.dtype != np.uint8 or owner.ndim != 1:
        return None
    if not all(array.base is owner and array.flags.c_contiguous and array.size for array in arrays):
        return None
    first = min(array.data.ptr for array in arrays)
    end = max(array.data.ptr + array.nbytes for array in arrays)
    if end - first != sum(array.nbytes for array in arrays):
        return None
    begin = owner.data.ptr
    return first, owner[first - begin : end - begin]


def _placed(host: np.ndarray, array: Any, start: int) -> np.ndarray:
    """The bytes of `host` from `start` on, as an array like this one."""
    return host[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


def _is_cupys(array: Any) -> bool:
    return hasattr(array, "get")


def _module_of(array: Any) -> Any:
    """NumPy or CuPy, which an array of it has loaded."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def _width(features: Features) -> int | None:
    return None if features.descriptors is None else int(features.descriptors.shape[1])
