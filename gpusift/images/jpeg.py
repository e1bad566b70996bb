"""JPEG files that a decoder other than OpenCV's may decode: complete ones, of the kinds that all decoders read alike.

OpenCV decodes rare kinds (CMYK, 12 bits, arithmetic coding, RGB without a transform, unusual sampling), truncated files
and files that need a lenient parser. So an image, or a failure, is the same whichever decoder reads the other files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpusift.images.orientation import UPRIGHT
from gpusift.opencv_package import import_cv2

BASELINE, PROGRESSIVE = 0xC0, 0xC2  # markers of Huffman-coded frames
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA
EXIF = 0xE1
ADOBE = 0xEE
NO_LENGTH = {0x00, 0x01, *range(0xD0, 0xDA)}  # markers without a segment, which do not belong before a scan

# Start of a scan, end of the image. Within a scan, 0 or the number of a restart follows a byte 0xff.
START, END = b"\xff\xda", b"\xff\xd9"

# Horizontal and vertical sampling of luma, where both chroma components have 1 x 1: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1.
LUMA_SAMPLING = {0x11, 0x21, 0x12, 0x22, 0x41}
YCBCR = 1  # Adobe's number of the transform


@dataclass(frozen=True)
class PlainJpeg:
    """A JPEG file that is not decoded yet.

    Attributes
    ----------
    data : bytes
        The file.
    shape : tuple of int
        Rows and columns as stored.
    grey : bool
        Whether the image has one component, not luma and two chroma components.
    orientation : int
        Orientation by EXIF's numbers, 1 to 8.
    """

    data: bytes
    shape: tuple[int, int]
    grey: bool
    orientation: int

    def upright(self, stored: Any) -> Any:
        """Apply the orientation to the decoded image.

        Parameters
        ----------
        stored : (M, N) array
            The image as stored, a NumPy or CuPy array.

        Returns
        -------
        (M, N) or (N, M) array
            A view.
        """
        return UPRIGHT[self.orientation](stored)


def plain_jpeg(data: bytes, *, scans: int | None = None, exif_orientation: bool = True) -> PlainJpeg | None:
    """Recognize a complete JPEG file of a kind that all decoders read alike.

    That is: baseline or progressive with Huffman codes, 8 bits, grey or Y'CbCr in the usual samplings, with its end.

    Parameters
    ----------
    data : bytes
        The whole file.
    scans : int, optional
        Number of scans, if it is known (`gpusift.images.formats.Header.scans`).
    exif_orientation : bool, optional
        Whether the orientation in its EXIF data counts, as OpenCV reads it.

    Returns
    -------
    PlainJpeg or None
        None for any other file.
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        segments, scan = _segments(data)
    except (IndexError, struct.error):  # truncated
        return None
    frames = [(marker, body) for marker, body in segments if marker in FRAMES]
    if len(frames) != 1 or segments[-1][0] != SCAN:
        return None
    marker, frame = frames[0]
    if data.rfind(END, scan) < 0 or marker not in (BASELINE, PROGRESSIVE) or len(frame) < 6:
        return None
    bits, rows, columns, n = struct.unpack_from(">BHHB", frame)
    adobe = [body[11:12] for marker, body in segments if marker == ADOBE and body[:5] == b"Adobe"]
    if bits != 8 or len(frame) != 6 + 3 * n or not _is_usual(frame[6:], adobe):
        return None
    if marker == BASELINE and (segments[-1][1][:1] != bytes([n]) or _has_more_scans(data, scan, scans)):
        return None
    exif = [body for marker, body in segments if marker == EXIF]
    return PlainJpeg(data, (rows, columns), n == 1, _orientation(exif) if exif and exif_orientation else 1)


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return marker and body of each segment up to the first scan's, and the offset of the scan's data.

    Fewer segments are returned if anything other than a segment is met.
    """
    at, segments = 2, []
    while data[at] == 0xFF:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker in NO_LENGTH:
            break
        (length,) = struct.unpack_from(">H", data, at + 1)
        segments.append((marker, data[at + 3 : at + 1 + length]))
        at += 1 + length
        if marker == SCAN or length < 2:
            break
    return segments, at


def _has_more_scans(data: bytes, scan: int, scans: int | None) -> bool:
    """Whether another scan begins before the end of the image; one after the end belongs to another image."""
    before = data.count(START, 0, scan)  # a thumbnail in the EXIF data has scans, too
    if scans is not None and scans == before:
        return False
    following = data.find(START, scan)
    return following >= 0 and data.find(END, scan, following) < 0


def _is_usual(components: bytes, adobe: list[bytes]) -> bool:
    """Whether components (number, sampling, table) are grey, or Y'CbCr to every decoder."""
    numbers, samplings = components[::3], components[1::3]
    if len(numbers) == 1:
        return samplings == b"\x11"
    usual = numbers == b"\1\2\3" and samplings[0] in LUMA_SAMPLING and samplings[1:] == b"\x11\x11"
    return usual and all(transform == bytes([YCBCR]) for transform in adobe)


def _orientation(exif: list[bytes]) -> int:
    """Return the orientation that OpenCV reads from EXIF segments: it decodes a small image that has the same ones."""
    cv2 = import_cv2()

    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in exif)
    probe = _probe()
    turned = cv2.imdecode(np.frombuffer(probe[:2] + segments + probe[2:], np.uint8), cv2.IMREAD_GRAYSCALE)
    return _corners()[_corner_pair(turned)] if turned is not None else 1


@cache
def _probe() -> bytes:
    """Return a JPEG of four blocks, each of one grey level."""
    cv2 = import_cv2()

    levels = np.array([[0, 85], [170, 255]], np.uint8)
    return cv2.imencode(".jpg", np.kron(levels, np.ones((8, 8), np.uint8)))[1].tobytes()


@cache
def _corners() -> dict[tuple[int, int], int]:
    """Return the orientation that puts a pair of levels into the upper corners."""
    levels = np.array([[0, 85], [170, 255]])
    return {_corner_pair(turn(levels)): orientation for orientation, turn in UPRIGHT.items()}


def _corner_pair(picture: np.ndarray) -> tuple[int, int]:
    return tuple(round(level / 85) for level in picture[0, [0, -1]].tolist())
