"""A check that a device computes correctly: a small image has the same features, byte for byte, on every device."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpusift.features import Features

RUNS = ("first run", "run that is captured as a CUDA graph", "replay of the CUDA graph")

# SHA-256 of the features of `image()` with SIFT's defaults.
EXPECTED = "576f69ce529d1c57600b8e92db47f8c436c195e8eedee870be9231b9cfeb0e0e"


def fault_of(device: str) -> str | None:
    """Compute a small image, and compare its features with those that every device must give.

    Parameters
    ----------
    device : str
        As for `SIFT`.

    Returns
    -------
    fault : str or None
        What is wrong with the device; None if the features are identical.
    """
    try:
        digests = digests_of(device)
    except Exception as error:  # a device fails in many ways
        return " ".join(f"{type(error).__name__}: {error}".split())
    for run, digest in zip(RUNS, digests, strict=True):
        if digest != EXPECTED:
            return (
                f"the hash of the features must be {EXPECTED[:12]}..., got {digest[:12]}... in the {run}: do not use "
                "its results"
            )
    return None


def image() -> np.ndarray:
    """Return a (60, 80) uint8 image: blobs of several sizes, made of integers, so the same on every machine."""
    rows, cols = np.mgrid[:60, :80]
    total = np.full((60, 80), 100)
    for row, col, size in ((14, 15, 4), (20, 55, 7), (42, 28, 6), (45, 66, 3), (8, 36, 2), (30, 40, 5)):
        squared = (rows - row) ** 2 + (cols - col) ** 2
        total += 130 * size**4 // (size**2 + squared) ** 2 * (1 if (row + col) % 2 else -1)
    return np.clip(total + rows * cols % 7, 0, 255).astype(np.uint8)


def digests_of(device: str) -> list[str]:
    """Return for each of `RUNS` the SHA-256 of the features of `image` in hexadecimal."""
    from gpusift.sift import SIFT

    sift = SIFT(device=device)
    return [_digest(sift.compute(image()).to_host()) for _ in RUNS]


def _digest(features: Features) -> str:
    whole = hashlib.sha256()
    for name, values in features.arrays().items():
        array = np.ascontiguousarray(values)
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return whole.hexdigest()
