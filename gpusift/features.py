"""The result for one image: keypoints with their descriptors, as arrays."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
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
    """

    positions: Any
    sigmas: Any
    scales: Any
    octaves: Any
    orientations: Any
    responses: Any
    descriptors: Any = None

    @property
    def keypoints(self) -> Any:
        """(N, 2) array of int64: the positions rounded to pixels, as (row, column)."""
        with on_device_of(self.positions):
            return self.positions.round().astype("int64")

    @property
    def angles(self) -> Any:
        """(N,) array of float: the orientations in degrees, in [0, 360), from the x axis (columns) towards the y axis.

        This is clockwise in the picture, the convention of OpenCV, VLFeat and COLMAP.
        """
        with on_device_of(self.orientations):
            degrees = (90 - self.orientations.astype("float64") * (180 / np.pi)) % 360
            degrees = degrees.astype(self.orientations.dtype)
            return degrees * (degrees < 360)  # float32 may round up to 360

    def __len__(self) -> int:
        return int(self.positions.shape[0])

    def __getitem__(self, index: Any) -> Features:
        if isinstance(index, (int, np.integer)):
            index = range(len(self))[index]  # an IndexError if there is no such keypoint
            index = slice(index, index + 1)
        return self._map(lambda array: array[index])

    def to_host(self) -> Features:
        """The same features as NumPy arrays, copied from the GPU if they are on one."""
        return self._map(lambda array: array.get() if hasattr(array, "get") else array)

    def with_descriptors(self, descriptors: Any) -> Features:
        """The same keypoints with these descriptors."""
        return replace(self, descriptors=descriptors)

    def shifted(self, distance: float) -> Features:
        """The same keypoints, shifted down and to the right by this many input pixels."""
        with on_device_of(self.positions):
            return replace(self, positions=self.positions + self.positions.dtype.type(distance)) if distance else self

    def _map(self, function: Any) -> Features:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        with on_device_of(self.positions):
            return Features(**{name: None if value is None else function(value) for name, value in values})


def on_device_of(array: Any) -> AbstractContextManager[Any]:
    """A context in which the GPU that an array lies on, if it lies on one, is the current device."""
    return array.device if hasattr(array, "get") else nullcontext()
