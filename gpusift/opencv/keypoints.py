"""Conversion of features to `cv2.KeyPoint`s, and the levels in which keypoints are described; see `gpusift.opencv`."""

from __future__ import annotations

import math
from itertools import repeat
from typing import Any

import cv2
import numpy as np

from gpusift.features import Features
from gpusift.parameters import Parameters

FIRST_OCTAVE = -1  # OpenCV's number of the octave of the image enlarged twice
LAYERS_OFF = 1.0  # layers between a keypoint's size and its level, beyond which the level is not its own

KeyPoints = tuple[cv2.KeyPoint, ...]


def from_features(features: Features, parameters: Parameters) -> KeyPoints:
    """Features as OpenCV's keypoints.

    Parameters
    ----------
    features : Features
        N features, on any device, found with upsampling=2.
    parameters : Parameters
        Those that they were found with: n_scales and sigma_min matter here.

    Returns
    -------
    tuple of cv2.KeyPoint
        In the same order.
    """
    host = features.to_host()
    octaves, scales = host.octaves.astype(np.int64), host.scales.astype(np.int64)
    off = _layers_off(host.sigmas, octaves, scales, parameters)
    part = np.clip(np.rint((off + 0.5) * 255), 0, 255).astype(
        np.int64
    )  # ours may be 0.6 off, OpenCV's are less than 0.5
    packed = (octaves + FIRST_OCTAVE & 255) | scales << 8 | part << 16
    columns = (*host.positions.T[::-1], 2 * host.sigmas, host.angles, np.abs(host.responses), packed)
    return tuple(map(cv2.KeyPoint, *(column.tolist() for column in columns), repeat(-1)))


def levels_of(
    packed: np.ndarray, sigmas: np.ndarray, parameters: Parameters, n_octaves: int
) -> tuple[np.ndarray, np.ndarray]:
    """The levels to describe OpenCV's keypoints in.

    Parameters
    ----------
    packed : (N,) array of int
        `cv2.KeyPoint.octave` of each.
    sigmas : (N,) array of float
        Half of `cv2.KeyPoint.size`, input pixels.
    parameters : Parameters
        n_scales and sigma_min matter here.
    n_octaves : int
        Octaves of the image.

    Returns
    -------
    octaves, scales : (N,) arrays of int
        Octave, from 0, and scale index within it: those packed, if the image has them and their blur is within a layer
        of sigma; the level nearest in blur otherwise.
    """
    octaves = (packed & 255).astype(np.uint8).view(np.int8).astype(np.int64) - FIRST_OCTAVE
    scales = packed >> 8 & 255
    are_there = (octaves >= 0) & (octaves < n_octaves) & (scales < parameters.n_levels)
    are_own = are_there & (np.abs(_layers_off(sigmas, octaves, scales, parameters)) <= LAYERS_OFF)
    nearest_octaves, nearest_scales = parameters.levels_of(sigmas, n_octaves)
    return np.where(are_own, octaves, nearest_octaves), np.where(are_own, scales, nearest_scales)


def checked(keypoints: Any) -> KeyPoints:
    """Keypoints as given, as a tuple.

    Raises
    ------
    TypeError
        If it is not a sequence of `cv2.KeyPoint`.
    ValueError
        If one is not finite, or has no size.
    """
    try:
        kept = tuple(keypoints)
    except TypeError:
        raise TypeError(f"keypoints must be a sequence of cv2.KeyPoint, got {type(keypoints).__name__}") from None
    for index, point in enumerate(kept):
        if not isinstance(point, cv2.KeyPoint):
            raise TypeError(f"keypoints must be cv2.KeyPoint, got {type(point).__name__} at index {index}")
        if not (math.isfinite(sum(point.pt) + point.angle + point.size) and point.size > 0):
            raise ValueError(
                "a keypoint must have a finite pt and angle, and a finite size greater than 0, got "
                f"pt {point.pt}, size {point.size} and angle {point.angle} at index {index}"
            )
    return kept


def _layers_off(sigmas: np.ndarray, octaves: np.ndarray, scales: np.ndarray, parameters: Parameters) -> np.ndarray:
    """(N,) array: layers from a level's blur to a keypoint's sigma."""
    layers = octaves * parameters.n_scales + scales
    return parameters.n_scales * np.log2(sigmas.astype(np.float64) / parameters.first_sigma) - layers
