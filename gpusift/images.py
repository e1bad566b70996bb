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

import glob
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# What a folder is searched for; a file that is named itself may have any suffix.
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".exr", ".gif", ".hdr", ".jp2", ".jpe", ".jpeg", ".jpg", ".pam", ".pbm", ".pfm", ".pgm"}
    | {".pic", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"}
)

# cv2.cvtColor does not take float64; these are its weights for blue, green and red.
BGR_TO_GREY = (0.114, 0.587, 0.299)

# "[ WARN:0@0.356] global grfmt_png.cpp:793 readFromStreamOrBuffer " before a message of OpenCV's.
_LOG_PREFIX = re.compile(r"^\[ *[A-Z]+:\d+@[\d.]+\]( global)?( \S+:\d+ \S+)? *")


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


def read_image(path: str | os.PathLike[str], *, exif_orientation: bool = True) -> np.ndarray:
    """Read a photograph as grey values.

    Parameters
    ----------
    path : str or path-like
        The file.
    exif_orientation : bool, optional
        Turn and mirror the picture as its EXIF data say (JPEG, PNG and WebP).

    Returns
    -------
    image : (M, N) array
        In the file's own depth: uint8, uint16, float32 or float64 (a grey TIFF may also hold int8,
        int16 or 32- and 64-bit integers).

    Raises
    ------
    OSError
        The file cannot be opened.
    ImageReadError
        The file is empty, truncated, broken, larger than OpenCV allows (2**30 pixels, or the
        environment variable CV_IO_MAX_IMAGE_PIXELS), or not a picture.
    """
    import cv2

    data = np.fromfile(os.fspath(path), dtype=np.uint8)
    if data.size == 0:
        raise ImageReadError(path, "must be an image file, but it is empty")
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    if not exif_orientation:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: Any = cv2.imdecode(data, flags)
    except cv2.error as error:
        said = " ".join(str(error.err or error).split())
        raise ImageReadError(path, f"must be an image OpenCV accepts; it says: {said}") from None
    if image is None:
        raise ImageReadError(
            path,
            "must be a whole image that OpenCV reads, but it is truncated, broken or something else",
        )
    if image.ndim == 2:
        return image
    if image.dtype == np.float64:
        return cv2.transform(image, np.array([BGR_TO_GREY]))
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageReadError(
            path,
            "a colour image must be uint8, uint16, float32 or float64, but this one is "
            f"{image.dtype}; make it grey first",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """Collect what the decoders print on stderr, which they do past Python.

    The whole process's stderr goes to the list meanwhile, so this is for programs, such as our
    command line, that own their process.

    Yields
    ------
    messages : list of str
        Filled at the end: the lines printed, without OpenCV's prefix.
    """
    messages: list[str] = []
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        stderr = os.dup(2)
        try:
            os.dup2(captured.fileno(), 2)
            yield messages
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            lines = captured.read().decode(errors="replace").splitlines()
            messages += [_LOG_PREFIX.sub("", line).strip() for line in lines if line.strip()]


@dataclass
class Found:
    """The image files that `find_images` found, and what it did not."""

    images: dict[str, Path] = field(default_factory=dict)  # name -> file
    failures: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)


def find_images(paths: Sequence[str], root: str | None = None) -> Found:
    """Find the image files that files, folders and globs stand for, and name them.

    An image's name is its path, with forward slashes and suffix, relative to the folder given, the
    folder of the file given, or the part of the glob before its first wildcard. Of several paths,
    the deepest folder that holds all of these counts. So no two files share a name.

    Parameters
    ----------
    paths : sequence of str
        Files (of any suffix), folders (searched to any depth for `IMAGE_SUFFIXES`, hidden files
        and folders and links to folders left out) and globs (`**` for any depth).
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
    bases: list[str] = []
    files: dict[str, None] = {}
    for path in paths:
        if os.path.lexists(path):
            bases.append(path if os.path.isdir(path) else os.path.dirname(path))
            files.update(dict.fromkeys(_files_of(path, found)))
        elif glob.has_magic(path):
            fixed = re.split(r"[*?[]", path, maxsplit=1)[0]
            bases.append(os.path.dirname(fixed))
            matches: list[str] = []
            for match in sorted(glob.glob(path, recursive=True)):
                matches += _files_of(match, found, from_glob=True)
            files.update(dict.fromkeys(matches))
            if not matches:
                found.failures.append((path, "no image file matches"))
        else:
            found.failures.append((path, "no such file or folder"))
    if bases:
        top = os.path.abspath(root) if root else os.path.commonpath(map(os.path.abspath, bases))
        for file in files:
            name = Path(os.path.relpath(file, top)).as_posix()
            if name.startswith("../"):
                raise ValueError(f"images must lie under root {root}, but {file} does not")
            found.images[name] = Path(file)
    return found


def _files_of(path: str, found: Found, from_glob: bool = False) -> list[str]:
    """List `path` itself or, if it is a folder, the image files in it; absolute, sorted."""
    if not os.path.isdir(path):
        keep = not from_glob or Path(path).suffix.lower() in IMAGE_SUFFIXES
        return [os.path.abspath(path)] if keep else []

    def unreadable(error: OSError) -> None:
        found.failures.append((str(error.filename), error.strerror or str(error)))

    files = []
    for folder, subfolders, names in os.walk(os.path.abspath(path), onerror=unreadable):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        files += [
            os.path.join(folder, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return files
