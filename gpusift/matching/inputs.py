"""Descriptors and masks as users pass them, checked and brought to the device that compares them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gpusift.devices import Device, get_device
from gpusift.devices.arrays import gpu_of, is_on_gpu

EXACT = 2**53  # integers up to it are exact in float64


def device_of(name: str, arrays: dict[str, Any]) -> tuple[Device, bool]:
    """The device to match on, and whether an array is on a GPU."""
    on_gpu = [array for array in arrays if is_on_gpu(arrays[array])]
    if name == "auto" and on_gpu:
        name = f"cuda:{gpu_of(arrays[on_gpu[0]])}"
    return get_device(name), bool(on_gpu)


def descriptor_array(device: Device, descriptors: Any, name: str, finite: bool = False) -> Any:
    """The descriptors as an array of NumPy, or of the device if they are on it; checked."""
    array = _array(device, descriptors, name)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"{name} must hold real numbers, got dtype {array.dtype}; pass the descriptors attribute of a SIFT object"
        )
    if array.ndim != 2:
        raise ValueError(f"{name} must be 2-D, one row a descriptor, got an array of shape {array.shape}")
    if array.dtype.kind == "f" and array.size:
        low, high = float(array.min()), float(array.max())  # NaN if any is
        if np.isnan(low) or (finite and not -np.inf < low <= high < np.inf):
            what, wrong = ("NaN", array != array) if np.isnan(low) else ("infinity", abs(array) == np.inf)
            row = int(wrong.any(axis=1).nonzero()[0][0])
            raise ValueError(f"{name} must not hold {what}, got one in row {row}; drop such descriptors")
    return array


def _array(device: Device, given: Any, name: str) -> Any:
    if not is_on_gpu(given):
        array = np.asarray(given)
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return device.from_gpu(given, name)


def mask_array(device: Device, given: Any, name: str, shape: tuple[int, int]) -> Any:
    """The mask as uint8 on the device, or None."""
    if given is None:
        return None
    array = device.asarray(_array(device, given, name))
    if array.dtype != bool:
        raise TypeError(f"{name} must hold booleans, True where two features may match, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, one row a feature of the first, got {array.shape}")
    return array.view(np.uint8)


def require_alike(arrays: dict[str, Any]) -> None:
    """Raises TypeError if the arrays, by their names, differ in dtype, and ValueError if they differ in width."""
    for (name, first), (other_name, other) in product(list(arrays.items())[:1], arrays.items()):
        if other.dtype != first.dtype:
            raise TypeError(
                f"descriptors must be of one dtype, got {first.dtype} in {name} and {other.dtype} in {other_name}"
            )
        if other.shape[1] != first.shape[1]:
            raise ValueError(
                f"descriptors must have one length, got {first.shape[1]} in {name} and {other.shape[1]} in {other_name}"
            )


def as_bytes(arrays: list[Any], largest_width: int) -> list[Any] | None:
    """Descriptors of integers as uint8, less the smallest if they do not fit otherwise; None if they never fit."""
    if not 0 < arrays[0].shape[1] <= largest_width:
        return None
    if all(array.dtype == np.uint8 for array in arrays):
        return arrays
    low, high = min(array.min().item() for array in arrays), max(array.max().item() for array in arrays)
    if not -EXACT <= low <= high <= EXACT or high - low > 255:
        return None
    if any(array.dtype.kind == "f" and bool((array != array.round()).any()) for array in arrays):
        return None
    if low >= 0 and high <= 255:
        return [array.astype(np.uint8) for array in arrays]
    return [(array.astype(np.int64) - int(low)).astype(np.uint8) for array in arrays]
