"""Validation of images, masks and keypoints as users pass them, and their conversion to the device's arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.devices.arrays import is_on_gpu
from gpusift.features import Features, on_host
from gpusift.parameters import MAX_SIDE, Parameters
from gpusift.pipeline.outcomes import Unfit
from gpusift.pipeline.plan import Plans
from gpusift.stages.intensities import Image, image_of

LARGEST = 1e9  # absolute value of a keypoint's numbers, whose squares must be finite in float32


def open_image(plans: Plans, image: Any) -> Image | Unfit:
    """An image as users pass it; unfit unless it is a 2-D array of real numbers that the kernels can index.

    Whether the values of floats are finite is not checked here, but by the kernel that reads them.
    """
    device, largest = plans.device, MAX_SIDE // plans.parameters.upsampling
    if image is None or isinstance(image, (str, bytes)):
        return Unfit(TypeError, f"image must be a 2-D array, got {type(image).__name__}")
    if getattr(image, "requires_grad", False):
        return Unfit(
            ValueError, "image must be without a gradient, got a tensor with requires_grad=True; pass image.detach()"
        )
    if str(getattr(image, "dtype", "")) == "torch.bfloat16":
        return Unfit(TypeError, "image must be of a dtype of NumPy, got a tensor of torch.bfloat16; pass image.float()")
    from_gpu = is_on_gpu(image)
    try:
        array = device.from_gpu(image, "image") if from_gpu else _native(_from_host(image))
    except (TypeError, ValueError) as error:
        return Unfit(type(error), str(error))
    if array.dtype.kind not in "buif":
        return Unfit(TypeError, f"image must be an array of booleans, integers or floats, got dtype {array.dtype}")
    if array.ndim != 2:
        hint = "; convert a colour image to grey first, e.g. with skimage.color.rgb2gray" if array.ndim == 3 else ""
        return Unfit(ValueError, f"image must be 2-D (rows, columns), got shape {tuple(array.shape)}{hint}")
    if array.size == 0:
        return Unfit(ValueError, f"image must have at least one pixel, got shape {tuple(array.shape)}")
    if max(array.shape) > largest:
        return Unfit(ValueError, f"image must have at most {largest} pixels a side, got shape {tuple(array.shape)}")
    if not from_gpu:
        return image_of(array)
    with device.active():
        return replace(image_of(array), from_gpu=True, ready=device.mark())


def open_image_of_batch(plans: Plans, image: Any) -> Image | Unfit:
    """An image of a batch, which may also be a (1, M, N) array: that of a (B, 1, M, N) tensor."""
    shape: Any = getattr(image, "shape", ())
    return open_image(plans, image[0] if len(shape) == 3 and shape[0] == 1 else image)


def open_mask(device: Device, mask: Any, image_shape: tuple[int, int]) -> Any:
    """The mask, on the host or on the device as it is given, or None.

    Raises
    ------
    TypeError
        If it does not hold booleans or integers.
    ValueError
        If its shape is not the image's.
    """
    if mask is None:
        return None
    array = device.from_gpu(mask, "mask") if is_on_gpu(mask) else _from_host(mask)
    if array.dtype.kind not in "bui":
        raise TypeError(f"mask must hold booleans or integers, zero where no keypoint is wanted, got {array.dtype}")
    if tuple(array.shape) != tuple(image_shape):
        raise ValueError(f"mask must have the image's shape {tuple(image_shape)}, got {tuple(array.shape)}")
    return array


def open_keypoints(
    device: Device,
    parameters: Parameters,
    image_shape: tuple[int, int],
    positions: Any,
    sigmas: Any,
    orientations: Any = None,
    octaves: Any = None,
    scales: Any = None,
) -> Features:
    """Keypoints of the user's own as `Features` on the device; see `gpusift.SIFT.describe`.

    Raises
    ------
    TypeError
        If an array does not hold real numbers.
    ValueError
        If a shape is wrong, a value is not finite, a sigma is not positive, or only one of octaves and scales is given.
    """
    points = _numbers("positions", positions, (-1, 2))
    n = len(points)
    blurs = _numbers("sigmas", sigmas, (n,))
    if n and blurs.min() <= 0:
        raise ValueError(f"sigmas must be greater than 0, got {blurs.min()}")
    if (octaves is None) != (scales is None):
        raise ValueError("octaves and scales must be given both or neither")
    if octaves is None:
        in_octave, in_scale = parameters.levels_of(blurs, parameters.n_octaves_of(image_shape))
    else:
        in_octave = _numbers("octaves", octaves, (n,)).astype(np.int32)
        in_scale = _numbers("scales", scales, (n,)).astype(np.int32)
    angles = np.zeros(n) if orientations is None else _numbers("orientations", orientations, (n,))
    with device.active():
        return Features(
            positions=device.asarray(points, device.dtype),
            sigmas=device.asarray(blurs, device.dtype),
            scales=device.asarray(in_scale, np.int32),
            octaves=device.asarray(in_octave, np.int32),
            orientations=device.asarray(_within_a_turn(angles), device.dtype),
            responses=device.xp.zeros(n, device.dtype),
        )


def _from_host(array: Any) -> np.ndarray:
    if hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
        return np.from_dlpack(array)
    return np.asarray(array)


def _native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """(N,) or (N, 2) array of float64 on the host, checked; -1 in the shape stands for any length."""
    array = on_host(values) if hasattr(values, "get") and is_on_gpu(values) else _from_host(values)
    if array.dtype.kind not in "uif":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    if array.size == 0 and shape[0] in (-1, 0):
        array = array.reshape((0, *shape[1:]))
    if array.ndim != len(shape) or any(side not in (-1, got) for side, got in zip(shape, array.shape)):
        wanted = ", ".join("N" if side == -1 else str(side) for side in shape)
        raise ValueError(f"{name} must have the shape ({wanted}{',' * (len(shape) == 1)}), got {array.shape}")
    numbers = array.astype(np.float64)
    wrong = numbers[~(np.abs(numbers) <= LARGEST)]
    if wrong.size:
        raise ValueError(f"{name} must be finite and at most {LARGEST:g} in size, got {wrong[0]}")
    return numbers


def _within_a_turn(angles: np.ndarray) -> np.ndarray:
    """Angles in [-pi, pi] as they are, others brought there."""
    return np.where(np.abs(angles) <= np.pi, angles, np.arctan2(np.sin(angles), np.cos(angles)))
