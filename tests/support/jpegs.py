"""JPEG files of every sampling, with segments and EXIF orientations."""

from __future__ import annotations

import struct

import cv2
import numpy as np

RNG = np.random.default_rng(0)
COLOUR = cv2.GaussianBlur(RNG.integers(0, 256, (45, 67, 3), dtype=np.uint8), None, 2)
SAMPLINGS = {name: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}") for name in ("444", "422", "440", "420", "411")}


def encoded(image: np.ndarray = COLOUR, **options: int) -> bytes:
    """A JPEG file; options are cv2's, without the prefix IMWRITE_JPEG_."""
    flags = [value for name, given in options.items() for value in (getattr(cv2, f"IMWRITE_JPEG_{name}"), given)]
    return cv2.imencode(".jpg", image, flags)[1].tobytes()


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """The file with another segment after its start."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return b"Exif\0\0" + mark + entry
