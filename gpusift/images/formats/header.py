"""A file format, what a file of it declares, and the error for a declaration that makes no sense."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gpusift.images.codec import imdecode

# Rows, columns and, where the format leaves their number open, samples of a pixel. The first entry is the image itself;
# the others are further structures that a decoder allocates, in pixels.
Sizes = Iterator[tuple[int, ...]]


class HeaderError(ValueError):
    """The bytes do not begin with a valid header of a known image format."""


def one_scan(data: bytes) -> int:
    """Return 1: a decoder of the format goes over the pixels once."""
    return 1


@dataclass(frozen=True)
class Format:
    """An image format.

    Attributes
    ----------
    name : str
        Its name in messages and options.
    magic : bytes
        Regular expression of what its files begin with.
    sizes : callable or None
        Reads the sizes that a file declares; see `Sizes`. None if gpusift cannot read them.
    scans : callable
        Counts how often a decoder goes over a file's pixels.
    decode : callable
        Decodes a file; see `gpusift.images.codec.imdecode`.
    is_bounded : bool
        Whether the header bounds a decoder's work and memory. A format without such a bound must be allowed by name.
    """

    name: str
    magic: bytes
    sizes: Callable[[bytes], Sizes] | None
    scans: Callable[[bytes], int] = one_scan
    decode: Callable[[bytes, bool], np.ndarray] = imdecode
    is_bounded: bool = True

    def matches(self, data: bytes) -> bool:
        """Return whether a file is of this format."""
        return re.match(self.magic, data, re.DOTALL) is not None


@dataclass(frozen=True)
class Header:
    """What a file declares.

    Attributes
    ----------
    format : Format
        Its format.
    rows, columns : int
        Size of the image; 0 if gpusift cannot read it.
    pixels : int
        Pixels of the image, or of the largest other structure that the decoder allocates.
    scans : int
        How often the decoder goes over the pixels.
    """

    format: Format
    rows: int
    columns: int
    pixels: int
    scans: int = 1
