"""The eight orientations of EXIF and TIFF: how a stored image is turned and mirrored to stand upright."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# By the orientation's number (EXIF 2.3, tag 274). Each entry takes an (M, N, ...) array and returns a view.
UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
