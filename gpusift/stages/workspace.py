"""The workspace of a plan: the buffers that its stages read and write, and all that their launches depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpusift.devices import Device
from gpusift.parameters import Parameters
from gpusift.stages.feature_lists import FeatureLists, grid_of
from gpusift.stages.levels import ScaleSpace

Step = Callable[[], None]  # a prepared launch, or another operation of the device


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
    mask : array of uint8 of that shape, optional
        Zero where no keypoint is wanted.
    blur : {"auto", "kernel", "ndimage"}
        Our blur, the same bytes on every device, or the array library's filter. "auto" is "kernel".
    octaves : range, optional
        The octaves to compute; by default all. If the first of them is not 0, its first level is given.
    with_descriptors : bool
        Whether the features are described.
    """

    device: Device
    parameters: Parameters
    space: ScaleSpace
    lists: FeatureLists
    image_shape: tuple[int, int]
    mask: Any = None
    blur: str = "auto"
    octaves: range | None = None
    with_descriptors: bool = True

    @property
    def gaussian_levels(self) -> tuple[Any, int, Any]:
        """What every kernel takes to find a level: the samples, the stride of an image, and the table of octaves."""
        return self.space.levels, self.space.stride, self.space.octaves

    @property
    def list_grid(self) -> tuple[int, int, int]:
        """The grid of launches over the lists."""
        return grid_of(self.device, self.lists)

    def list_grid_of(self, block: tuple[int, ...]) -> tuple[int, int, int]:
        """The grid of launches over the lists whose blocks have another number of threads."""
        return grid_of(self.device, self.lists, block)
