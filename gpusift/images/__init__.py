"""Reading photographs: every file format that OpenCV decodes, as a 2-D array of grey values.

The rules, each of which a test holds:

- Colour becomes grey by `cv2.cvtColor` at the file's own depth. An alpha channel is dropped.
- The orientation in EXIF data (JPEG, PNG, WebP) and TIFF's own is applied, unless it is switched off. AVIF's rotation
  and mirror belong to the image: they are always applied, and EXIF data have no effect.
- A file with several images (multi-page TIFF, GIF) gives its first one. In a TIFF file, reduced images and masks do not
  count.
- 0 is black, also in a TIFF file that says that 0 is white. Bilevel images become 0 and 255. Values of less than 8 or
  16 bits (PGM, PPM and PAM by their maxval; TIFF, JPEG 2000) are scaled to all 8 or 16 bits. Float images are returned
  unchanged: SIFT expects [0, 1].
"""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np

from gpusift.errors import SMALL_PIXELS
from gpusift.images.errors import DecodeError, ImageReadError
from gpusift.images.formats import HeaderError
from gpusift.images.grey import to_grey
from gpusift.images.limits import DEFAULT_MAX_PIXELS, DEFAULT_MAX_SCANS, check
from gpusift.images.local_files import Found, find_images
from gpusift.images.scaling import Decoded, reduced
from gpusift.sources import Source, fetch

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "DEFAULT_MAX_SCANS",
    "Decoded",
    "Found",
    "ImageReadError",
    "decode",
    "find_images",
    "read_image",
]


def decode(
    data: bytes,
    name: str | os.PathLike[str],
    *,
    exif_orientation: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_size: int | None = None,
    max_scans: int = DEFAULT_MAX_SCANS,
    allow_formats: Collection[str] = (),
) -> Decoded:
    """Decode a photograph to grey values.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str or path-like
        The file's name in error messages.
    exif_orientation : bool, optional
        Turn and mirror the image as its EXIF data (JPEG, PNG, WebP) or its tags (TIFF) say.
    max_pixels : int, optional
        Refuse a file whose header declares more pixels than this, without decoding it.
    max_size : int, optional
        Reduce an image whose longer side has more pixels than this to this many.
    max_scans : int, optional
        Refuse a progressive JPEG whose scans decode more pixels together than this many scans of `max_pixels` do.
    allow_formats : collection of str, optional
        Formats to decode although their headers do not bound the work: "OpenEXR", "JPEG XL".

    Returns
    -------
    decoded : Decoded
        Its image has the file's own depth: uint8, uint16, float32 or float64 (a grey TIFF may also hold int8, int16 or
        32- and 64-bit integers, unless it is reduced).

    Raises
    ------
    ImageReadError
        The file is empty, truncated, broken, not an image, or too large: for `max_pixels`, for the memory, or for
        OpenCV (2**30 pixels, or the environment variable CV_IO_MAX_IMAGE_PIXELS).
    """
    header = check(data, name, max_pixels=max_pixels, max_scans=max_scans, allow_formats=allow_formats)
    try:
        pixels = header.format.decode(data, exif_orientation)
        return reduced(to_grey(pixels, name), max_size, name)
    except (DecodeError, HeaderError) as error:
        raise ImageReadError(name, str(error)) from None
    except MemoryError:
        if header.columns * header.rows <= SMALL_PIXELS:
            raise
        raise ImageReadError(name, f"must fit in memory, but {header.columns} x {header.rows} pixels do not") from None


def read_image(
    path: str | os.PathLike[str], *, exif_orientation: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS
) -> np.ndarray:
    """Read a photograph as grey values.

    Parameters
    ----------
    path : str or path-like
        The file.
    exif_orientation, max_pixels
        As in `decode`.

    Returns
    -------
    image : (M, N) array
        See `decode`.

    Raises
    ------
    OSError
        The file cannot be opened.
    ImageReadError
        The file cannot be decoded; see `decode`.
    """
    data = fetch(Source(os.fspath(path), os.path.abspath(path)))
    return decode(data, path, exif_orientation=exif_orientation, max_pixels=max_pixels).image
