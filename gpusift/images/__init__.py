"""Reading photographs: every file format that OpenCV decodes, as a 2-D array of grey values.

The rules, each of which a test holds:

- Colour becomes grey by `cv2.cvtColor` at the file's own depth. An alpha channel is dropped (8-bit TIFF with alpha
  arrives from the decoder with its colours already multiplied by it).
- EXIF orientation is applied to JPEG, PNG and WebP, unless it is switched off. The orientation tag of a TIFF file
  belongs to TIFF itself, and OpenCV always applies it.
- A file with several images (multi-page TIFF, GIF) gives its first one.
- Bilevel images become 0 and 255. Float images are returned unchanged: SIFT expects [0, 1].
"""

from __future__ import annotations

import os

import numpy as np

from gpusift.images.errors import ImageReadError
from gpusift.images.grey import to_grey
from gpusift.images.limits import DEFAULT_MAX_PIXELS, check
from gpusift.images.local_files import Found, find_images
from gpusift.images.scaling import Decoded, reduced
from gpusift.sources import Source, fetch

__all__ = ["DEFAULT_MAX_PIXELS", "Decoded", "Found", "ImageReadError", "decode", "find_images", "read_image"]


def decode(
    data: bytes,
    name: str | os.PathLike[str],
    *,
    exif_orientation: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_size: int | None = None,
) -> Decoded:
    """Decode a photograph to grey values.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str or path-like
        The file's name in error messages.
    exif_orientation : bool, optional
        Turn and mirror the image as its EXIF data say (JPEG, PNG and WebP).
    max_pixels : int, optional
        Refuse a file whose header declares more pixels than this, without decoding it.
    max_size : int, optional
        Reduce an image whose longer side has more pixels than this to this many.

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
    header = check(data, name, max_pixels)
    try:
        return reduced(to_grey(_decode(data, name, exif_orientation), name), max_size, name)
    except MemoryError:
        raise ImageReadError(name, f"must fit in memory, but {header.columns} x {header.rows} pixels do not") from None


def _decode(data: bytes, name: str | os.PathLike[str], exif_orientation: bool) -> np.ndarray:
    """Decode a file by OpenCV, whose complaint becomes an error of ours."""
    import cv2

    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    if not exif_orientation:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        complaint = " ".join(str(error.err or error).split())
        raise ImageReadError(name, f"must be an image OpenCV accepts, but it says: {complaint}") from None
    if image is None:
        raise ImageReadError(
            name, "must be a whole image that OpenCV reads, but it is truncated, broken or something else"
        )
    return image


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
