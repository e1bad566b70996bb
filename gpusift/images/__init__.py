"""Finding and reading photographs: any file OpenCV decodes, as a 2-D grey array.

What a decoder does is not always what one expects; the tests of this module pin each line:

- Colour becomes grey by `cv2.cvtColor` at the file's own depth; an alpha channel is dropped (8-bit
  TIFF with alpha arrives from the decoder with its colours already multiplied by it).
- EXIF orientation is applied to JPEG, PNG and WebP, unless switched off. The orientation tag of a
  TIFF file belongs to TIFF itself, and OpenCV always applies it.
- The first picture of a file with several (multi-page TIFF, GIF) is taken.
- Bilevel pictures become 0 and 255. Float pictures are returned as they are: SIFT expects [0, 1].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpusift.images.headers import Header, HeaderError, read_header
from gpusift.sources import Source, expand, fetch

# cv2.cvtColor does not take float64; these are its weights for blue, green and red.
BGR_TO_GREY = (0.114, 0.587, 0.299)

# Its weights of red, green and blue for uint8, in units of 2**-15; half a unit of the result is added before the shift.
RGB_TO_GREY_15 = (9798, 19235, 3735)


class ImageReadError(ValueError):
    """A file that is there, but cannot be made into a picture.

    Attributes
    ----------
    path : str
        The file.
    reason : str
        What must hold, and what is the matter.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = os.fspath(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


# A header that declares more pixels than this is refused before anything is decoded.
DEFAULT_MAX_PIXELS = 500_000_000

# Each block of a JPEG's components takes a bit at least, and no more than 128 pixels share a block; with some room for
# arithmetic coding. OpenCV takes a few bytes for a grey picture of the size declared.
JPEG_PIXELS_PER_BYTE = 2048

# A progressive JPEG may have its pixels gone over any number of times. Photographs come in some ten scans; small
# pictures may have more.
MAX_PASSES = 20
MANY_PIXELS = 10_000_000


@dataclass(frozen=True)
class Decoded:
    """A decoded photograph.

    Attributes
    ----------
    image : (M, N) array
        Grey values: NumPy's or, if a GPU decoded it, CuPy's.
    shape : tuple of int
        Rows and columns of the picture in the file, turned as EXIF says, before it was made smaller.
    scale : float
        Longer side of `image` by that of the file's picture, at most 1.
    """

    image: Any
    shape: tuple[int, int]
    scale: float


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
        What errors call it.
    exif_orientation : bool, optional
        Turn and mirror the picture as its EXIF data say (JPEG, PNG and WebP).
    max_pixels : int, optional
        Refuse a file whose header declares more pixels than this, without decoding it.
    max_size : int, optional
        Make a picture whose longer side has more pixels than this smaller, so that it has as many.

    Returns
    -------
    decoded : Decoded
        Its image is in the file's own depth: uint8, uint16, float32 or float64 (a grey TIFF may also hold int8, int16
        or 32- and 64-bit integers, unless it is made smaller).

    Raises
    ------
    ImageReadError
        The file is empty, truncated, broken, too large (for `max_pixels`, for the memory there is, or for OpenCV: 2**30
        pixels, or the environment variable CV_IO_MAX_IMAGE_PIXELS), or not a picture.
    """
    header = check(data, name, max_pixels)
    try:
        return smaller(_to_grey(_decode(data, name, exif_orientation), name), max_size, name)
    except MemoryError:
        raise ImageReadError(name, f"must fit in memory, but {header.columns} x {header.rows} pixels do not") from None


def check(data: bytes, name: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """Refuse, before anything is decoded, a file that is none or would take too much to decode.

    Parameters
    ----------
    data, name, max_pixels
        As in `decode`.

    Returns
    -------
    header : Header
        What the file declares.

    Raises
    ------
    ImageReadError
        As `decode`, but for what only decoding shows.
    """
    if not data:
        raise ImageReadError(name, "must be an image file, but it is empty")
    try:
        header = read_header(data)
    except HeaderError as error:
        raise ImageReadError(name, str(error)) from None
    if header.pixels > max_pixels:
        plain = header.pixels == header.rows * header.columns
        declared = f"{header.columns} x {header.rows}" if plain else f"what takes the room of {header.pixels}"
        raise ImageReadError(
            name,
            f"must have at most {max_pixels} pixels (max_pixels), but its {header.kind} header declares {declared}",
        )
    if header.kind == "JPEG" and header.pixels > JPEG_PIXELS_PER_BYTE * len(data):
        raise ImageReadError(
            name, f"must be a whole image, but {len(data)} bytes cannot hold {header.columns} x {header.rows} pixels"
        )
    if header.pixels * header.passes > max(max_pixels, MANY_PIXELS) * MAX_PASSES:
        raise ImageReadError(
            name,
            f"must not have so many scans, but {header.columns} x {header.rows} pixels come in {header.passes}",
        )
    return header


def smaller(image: Any, max_size: int | None, name: str | os.PathLike[str]) -> Decoded:
    """Make a picture smaller if it is too large.

    Parameters
    ----------
    image : (M, N) array
        NumPy's; CuPy's only if it is not too large.
    max_size : int or None
        Most pixels of its longer side.
    name : str or path-like
        What errors call it.

    Returns
    -------
    decoded : Decoded

    Raises
    ------
    ImageReadError
        Its depth cannot be made smaller.
    """
    shape = (image.shape[0], image.shape[1])
    scale = min(1.0, max_size / max(shape)) if max_size else 1.0
    return Decoded(image if scale == 1 else _shrink(image, scale, name), shape, scale)


def _decode(data: bytes, name: str | os.PathLike[str], exif_orientation: bool) -> Any:
    """Give a file to OpenCV, and say in an error of ours what it did not like."""
    import cv2

    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    if not exif_orientation:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        said = " ".join(str(error.err or error).split())
        raise ImageReadError(name, f"must be an image OpenCV accepts; it says: {said}") from None
    if image is None:
        raise ImageReadError(
            name, "must be a whole image that OpenCV reads, but it is truncated, broken or something else"
        )
    return image


def _to_grey(image: np.ndarray, name: str | os.PathLike[str]) -> np.ndarray:
    """Make grey of colour, which OpenCV gives as blue, green, red."""
    import cv2

    if image.ndim == 2:
        return image
    if image.shape[2] != 3:
        raise ImageReadError(name, f"must have 1, 3 or 4 samples in a pixel, but it has {image.shape[2]}")
    if image.dtype == np.float64:
        return cv2.transform(image, np.array([BGR_TO_GREY]))
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageReadError(
            name,
            "a colour image must be uint8, uint16, float32 or float64, but this one is "
            f"{image.dtype}; make it grey first",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def _shrink(image: np.ndarray, scale: float, name: str | os.PathLike[str]) -> np.ndarray:
    """Average the pixels of an image to this share of its size."""
    import cv2

    if image.dtype not in (np.uint8, np.uint16, np.int16, np.float32, np.float64):
        raise ImageReadError(
            name, f"must be uint8, uint16, int16, float32 or float64 to be made smaller, but it is {image.dtype}"
        )
    rows, columns = (max(1, round(side * scale)) for side in image.shape)
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)


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
        It cannot be decoded; see `decode`.
    """
    data = fetch(Source(os.fspath(path), os.path.abspath(path)))
    return decode(data, path, exif_orientation=exif_orientation, max_pixels=max_pixels).image


@dataclass
class Found:
    """The image files that `find_images` found, and what it did not."""

    images: dict[str, Path] = field(default_factory=dict)  # name -> file
    failures: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)


def find_images(paths: Sequence[str], root: str | None = None) -> Found:
    """Find the image files on this machine that files, folders and globs stand for, and name them.

    Parameters
    ----------
    paths : sequence of str
        As in `gpusift.sources.expand`, but neither URLs nor lists.
    root : str, optional
        Make names relative to this folder instead.

    Returns
    -------
    found : Found
        Images in the order of the paths, sorted within each; a file found twice counts once.

    Raises
    ------
    ValueError
        A file found is not under `root`.
    """
    found = Found()
    here = [os.path.abspath(path) if path == "-" or "://" in path else path for path in paths]
    for one in expand(here, root=root):
        if isinstance(one, Source):
            found.images[one.name] = Path(one.url)
        else:
            found.failures.append((one.name, one.reason))
    return found
