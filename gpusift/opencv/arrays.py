"""Images, masks and descriptors as OpenCV's Python interface passes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

SEVERAL = (list, tuple)  # what holds several images


def on_host(array: Any) -> Any:
    """Return the array of a `cv2.UMat`, or anything else as it is."""
    return array.get() if isinstance(array, cv2.UMat) else array


def grey_of(image: Any) -> np.ndarray:
    """Return the (M, N) uint8 image that OpenCV's SIFT computes on."""
    image = on_host(image)
    if not isinstance(image, np.ndarray):
        hint = "; cv2.imread returns None for a file that it cannot read" if image is None else ""
        raise TypeError(f"image must be a NumPy array of uint8, got {type(image).__name__}{hint}")
    if image.dtype != np.uint8:
        raise TypeError(f"image must be of uint8, 0 black and 255 white, got {image.dtype}; convert it first")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(f"image must be (rows, columns) or (rows, columns, 3 or 4), got shape {image.shape}")
    if image.size == 0:
        raise ValueError(f"image must have at least one pixel, got shape {image.shape}")
    return image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)


def checked_mask(mask: Any) -> np.ndarray | None:
    """Return the mask as an array, if there is one."""
    mask = on_host(mask)
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.bool_):
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask must be a NumPy array of uint8 or bool, zero where no keypoint is wanted, got {kind}")
    return mask[..., 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask


def require_as_many(name: str, values: Any, images: Sequence[Any]) -> None:
    """Raise ValueError unless there is a value for each image."""
    got = len(values) if isinstance(values, SEVERAL) else type(values).__name__
    if got != len(images):
        raise ValueError(f"{name} must be a list or tuple of one for each of the {len(images)} images, got {got}")


def filled(values: np.ndarray | None, out: Any) -> np.ndarray | None:
    """Return the descriptors, in the caller's array if it has their shape and dtype."""
    if values is None or (np.shape(out), getattr(out, "dtype", None)) != (values.shape, values.dtype):
        return values
    out[...] = values
    return out


def as_given(values: np.ndarray | None, *arguments: Any) -> Any:
    """Return the descriptors, as a `cv2.UMat` if one of the arguments is one."""
    if values is not None and any(isinstance(argument, cv2.UMat) for argument in arguments):
        return as_umat(values)
    return values


def as_umat(values: Any) -> cv2.UMat:
    """Return an array as a `cv2.UMat`."""
    return values if isinstance(values, cv2.UMat) else cv2.UMat(values)
