"""Small pictures with keypoints."""

from __future__ import annotations

import cv2
import numpy as np


def textured(seed: int, shape: tuple[int, int] = (80, 100), sigma: float = 2) -> np.ndarray:
    """Blurred noise, uint8."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random(shape), None, sigma)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def blobs(seed: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Noise with a wider blur, uint8."""
    return textured(seed, shape, sigma=3)
