"""What an image file declares about itself, and the error for a declaration that makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Rows, columns and, where the format leaves their number open, samples of a pixel. The first entry is the image itself;
# the others are whatever else a decoder allocates, in pixels.
Sizes = Iterator[tuple[int, ...]]


class HeaderError(ValueError):
    """The bytes do not begin with a valid header of a known image format."""


@dataclass(frozen=True)
class Header:
    """What a file declares.

    Attributes
    ----------
    kind : str
        Its format.
    rows, columns : int
        Size of the image.
    pixels : int
        Pixels of the image, or of the largest other structure that the decoder allocates.
    scans : int
        How often the decoder goes over the pixels.
    """

    kind: str
    rows: int
    columns: int
    pixels: int
    scans: int = 1
