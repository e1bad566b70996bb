"""JPEG files that decoders other than OpenCV's may have: whole, and of the kinds that all of them read alike.

What is rare (CMYK, 12 bits, arithmetic coding, RGB without a transform, odd sampling), what is cut, and what a parser
has to be lenient with is OpenCV's, so that a picture or a failure is the same whatever decodes the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

BASELINE, PROGRESSIVE = 0xC0, 0xC2  # frames, Huffman-coded
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA
EXIF = 0xE1
ADOBE = 0xEE
NO_LENGTH = {0x00, 0x01, *range(0xD0, 0xDA)}  # markers that are no segment, and have no business before a scan

# Of a scan, and of the picture. Within a scan, a byte 0xff is followed by 0 or by the number of a restart.
START, END = b"\xff\xda", b"\xff\xd9"

# Sampling of luma, across and down, where both chromas have 1 and 1: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1.
LUMA_SAMPLING = {0x11, 0x21, 0x12, 0x22, 0x41}
YCBCR = 1  # Adobe's number of the transform

UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored[::-1].T,
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored.T[::-1],
}


@dataclass(frozen=True)
class PlainJpeg:
    """A JPEG file, not decoded yet.

    Attributes
    ----------
    data : bytes
        The file.
    shape : tuple of int
        Rows and columns as stored.
    grey : bool
        Whether it has one component, and not luma and two chromas.
    orientation : int
        1 to 8, as EXIF numbers them: how the stored picture is to be turned.
    """

    data: bytes
    shape: tuple[int, int]
    grey: bool
    orientation: int

    def upright(self, stored: Any) -> Any:
        """Turn and mirror a picture as stored.

        Parameters
        ----------
        stored : (M, N) array
            NumPy's or CuPy's.

        Returns
        -------
        (M, N) or (N, M) array
            A view.
        """
        return UPRIGHT[self.orientation](stored)


def plain_jpeg(data: bytes, *, scans: int | None = None, exif_orientation: bool = True) -> PlainJpeg | None:
    """Look whether a JPEG file is whole, and of a kind that all decoders read.

    That is: baseline or progressive with Huffman codes, 8 bits, grey or Y'CbCr in the usual samplings, with an end.

    Parameters
    ----------
    data : bytes
        The whole file.
    scans : int, optional
        How often `START` is in the file, if that is known (`gpusift.images.headers.Header.passes`).
    exif_orientation : bool, optional
        Whether the orientation in its EXIF data counts; OpenCV's is taken.

    Returns
    -------
    PlainJpeg or None
        None for any other file.
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        segments, scan = _segments(data)
    except (IndexError, struct.error):  # cut
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
    if marker == BASELINE and (segments[-1][1][:1] != bytes([n]) or _goes_on(data, scan, scans)):
        return None
    exif = [body for marker, body in segments if marker == EXIF]
    return PlainJpeg(data, (rows, columns), n == 1, _orientation(exif) if exif and exif_orientation else 1)


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Marker and body of the segments to the first scan's, and where its data begin; fewer if something else comes."""
    at, found = 2, []
    while data[at] == 0xFF:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker in NO_LENGTH:
            break
        (length,) = struct.unpack_from(">H", data, at + 1)
        found.append((marker, data[at + 3 : at + 1 + length]))
        at += 1 + length
        if marker == SCAN or length < 2:
            break
    return found, at


def _goes_on(data: bytes, scan: int, scans: int | None) -> bool:
    """Whether another scan comes before the end of the picture; one after it is that of another picture."""
    before = data.count(START, 0, scan)  # that of a small picture in the EXIF data, too
    if scans is not None and scans == before:
        return False
    following = data.find(START, scan)
    return following >= 0 and data.find(END, scan, following) < 0


def _is_usual(components: bytes, adobe: list[bytes]) -> bool:
    """Whether components (number, sampling, table) are grey, or Y'CbCr whoever reads them."""
    numbers, samplings = components[::3], components[1::3]
    if len(numbers) == 1:
        return samplings == b"\x11"
    usual = numbers == b"\1\2\3" and samplings[0] in LUMA_SAMPLING and samplings[1:] == b"\x11\x11"
    return usual and all(transform == bytes([YCBCR]) for transform in adobe)


def _orientation(exif: list[bytes]) -> int:
    """What OpenCV makes of a file's EXIF segments, found by giving it a small picture with the same."""
    import cv2

    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in exif)
    probe = _probe()
    turned = cv2.imdecode(np.frombuffer(probe[:2] + segments + probe[2:], np.uint8), cv2.IMREAD_GRAYSCALE)
    return _corners()[_corner_pair(turned)] if turned is not None else 1


@cache
def _probe() -> bytes:
    """A JPEG of four blocks with a level each."""
    import cv2

    levels = np.array([[0, 85], [170, 255]], np.uint8)
    return cv2.imencode(".jpg", np.kron(levels, np.ones((8, 8), np.uint8)))[1].tobytes()


@cache
def _corners() -> dict[tuple[int, int], int]:
    """The orientation by the levels in the upper corners."""
    levels = np.array([[0, 85], [170, 255]])
    return {_corner_pair(turn(levels)): orientation for orientation, turn in UPRIGHT.items()}


def _corner_pair(picture: np.ndarray) -> tuple[int, int]:
    return tuple(round(level / 85) for level in picture[0, [0, -1]].tolist())
