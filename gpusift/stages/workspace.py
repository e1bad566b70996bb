"""The workspace of a plan: the buffers that its stages read and write, and all that their launches depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpusift.devices import Device
from gpusift.parameters import Parameters
from gpusift.stages.feature_lists import FeatureLists, aligned, grid_of
from gpusift.stages.levels import ScaleSpace

Step = Callable[[], None]  # a prepared launch, or another operation of the device


class Table(NamedTuple):
    """What the kernels know of each image of a batch.

    Attributes
    ----------
    units : (B,) array of float64
        Factor of its integers.
    dtypes : (B,) array of int32
        Number of its dtype.
    unfit : (B,) array of int32
        Not 0 if a pixel is unfit.
    """

    units: Any
    dtypes: Any
    unfit: Any

    @staticmethod
    def bytes_of(batch: int) -> int:
        """Bytes of a table."""
        return 16 * batch

    @classmethod
    def of_bytes(cls, memory: Any, batch: int) -> Table:
        """The table at the beginning of these bytes."""
        units, integers = memory[: 8 * batch], memory[8 * batch : 16 * batch].view(np.int32)
        return cls(units.view(np.float64), integers[:batch], integers[batch:])


@dataclass(frozen=True)
class Layout:
    """The block of bytes that is copied to the device for a batch: a table, a mask and the pixels.

    Attributes
    ----------
    batch : int
        Number of images.
    image_shape : (int, int)
        Rows and columns that are held of each image.
    pixel_bytes : int
        Bytes of a pixel, at most.
    mask_shape : (int, int)
        Rows and columns of the mask.
    mask_bytes : int
        Bytes of an integer of the mask; 0 if there is no mask.
    """

    batch: int
    image_shape: tuple[int, int]
    pixel_bytes: int
    mask_shape: tuple[int, int]
    mask_bytes: int

    @property
    def mask_at(self) -> int:
        """Where the mask begins."""
        return aligned(Table.bytes_of(self.batch))

    @property
    def pixels_at(self) -> int:
        """Where the pixels of the first image begin."""
        return self.mask_at + aligned(self.mask_shape[0] * self.mask_shape[1] * self.mask_bytes)

    @property
    def image_bytes(self) -> int:
        """Bytes from an image's pixels to those of the next image."""
        return aligned(self.image_shape[0] * self.image_shape[1] * self.pixel_bytes)

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return self.pixels_at + self.batch * self.image_bytes


@dataclass(frozen=True, eq=False)
class Inputs:
    """A block of bytes on the device with this layout."""

    layout: Layout
    memory: Any

    @property
    def table(self) -> Table:
        """The table of the images."""
        return Table.of_bytes(self.memory, self.layout.batch)

    @property
    def mask(self) -> Any:
        """The bytes from the mask on."""
        return self.memory[self.layout.mask_at :]

    @property
    def pixels(self) -> Any:
        """The bytes of all pixels."""
        return self.memory[self.layout.pixels_at :]


@dataclass(frozen=True, eq=False)
class Workspace:
    """Buffers for a batch of images of one shape.

    Attributes
    ----------
    device : Device
        The device of the buffers.
    parameters : Parameters
        Of SIFT.
    space : ScaleSpace
        The Gaussian levels.
    lists : FeatureLists
        The candidates, keypoints and features.
    image_shape : (int, int)
        Rows and columns of the input images; of the whole images, if `space` holds a strip of them.
    inputs : Inputs, optional
        The images and the mask, which is zero where no keypoint is wanted.
    results : array of uint8, optional
        Receives the features of all images; see `collection`.
    blur : {"auto", "kernel", "ndimage"}
        Our blur, the same bytes on every device, or the array library's filter. "auto" is "kernel".
    octaves : range, optional
        The octaves to compute, of a strip; by default all of whole images. If the first of them is not 0, its first
        level is given.
    with_descriptors : bool
        Whether the features are described.
    """

    device: Device
    parameters: Parameters
    space: ScaleSpace
    lists: FeatureLists
    image_shape: tuple[int, int]
    inputs: Inputs | None = None
    results: Any = None
    blur: str = "auto"
    octaves: range | None = None
    with_descriptors: bool = True

    @property
    def gaussian_levels(self) -> tuple[Any, int, Any]:
        """What every kernel takes to find a level: the samples, the stride of an image, and the table of octaves."""
        return self.space.levels, self.space.stride, self.space.octaves

    @property
    def mask(self) -> tuple[Any, int]:
        """The bytes of the mask, and the bytes of each of its integers, 0 if there is no mask."""
        if self.inputs is None or self.inputs.layout.mask_bytes == 0:
            return self.device.xp.zeros(1, np.uint8), 0
        return self.inputs.mask, self.inputs.layout.mask_bytes

    @property
    def list_grid(self) -> tuple[int, int, int]:
        """The grid of launches over the lists."""
        return grid_of(self.device, self.lists)

    def list_grid_of(self, block: tuple[int, ...]) -> tuple[int, int, int]:
        """The grid of launches over the lists whose blocks have another number of threads."""
        return grid_of(self.device, self.lists, block)
