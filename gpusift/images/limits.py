"""Bounds on the work and memory that a file may ask for, checked against its header before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Collection

from gpusift.images.errors import ImageReadError
from gpusift.images.formats import Header, HeaderError, read_header

# Most pixels that a header may declare.
DEFAULT_MAX_PIXELS = 500_000_000

# Each block of a JPEG's components takes at least one bit, and at most 128 pixels share a block; doubled for arithmetic
# coding. Without this bound OpenCV decodes a few bytes to a grey image of any declared size.
JPEG_PIXELS_PER_BYTE = 2048

# A progressive JPEG may refine its pixels in any number of scans. Photographs have about ten; small images may have
# more, as long as all scans together decode no more pixels than this many scans of `max_pixels`, or of MANY_PIXELS, do.
DEFAULT_MAX_SCANS = 20
MANY_PIXELS = 10_000_000


def check(
    data: bytes,
    name: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_scans: int = DEFAULT_MAX_SCANS,
    allow_formats: Collection[str] = (),
) -> Header:
    """Refuse a file that is not an image, or that exceeds a bound, before it is decoded.

    Parameters
    ----------
    data, name, max_pixels, max_scans, allow_formats
        As in `gpusift.images.decode`.

    Returns
    -------
    header : Header
        What the file declares.

    Raises
    ------
    ImageReadError
        As in `gpusift.images.decode`, except for faults that only decoding shows.
    """
    if not data:
        raise ImageReadError(name, "must be an image file, but it is empty")
    try:
        header = read_header(data)
    except HeaderError as error:
        raise ImageReadError(name, str(error)) from None
    kind, size = header.format, f"{header.columns} x {header.rows}"
    if not kind.is_bounded and kind.name not in allow_formats:
        raise ImageReadError(
            name,
            f"must be of a format whose header bounds the work of decoding it, but it is {kind.name}; if you trust "
            "where it comes from, allow it (allow_formats, --allow-format)",
        )
    if header.pixels > max_pixels:
        plain = header.pixels == header.rows * header.columns
        declared = size if plain else f"structures as large as {header.pixels} pixels"
        raise ImageReadError(
            name, f"must have at most {max_pixels} pixels (max_pixels), but its {kind.name} header declares {declared}"
        )
    if kind.name == "JPEG" and header.pixels > JPEG_PIXELS_PER_BYTE * len(data):
        raise ImageReadError(name, f"must be a whole image, but {len(data)} bytes cannot hold {size} pixels")
    if header.pixels * header.scans > max(max_pixels, MANY_PIXELS) * max_scans:
        raise ImageReadError(name, f"must not have so many scans (max_scans), but {size} pixels come in {header.scans}")
    return header
