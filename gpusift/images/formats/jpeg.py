"""JPEG (ITU-T T.81)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from gpusift.images.formats.header import Sizes

SCAN, END = 0xDA, 0xD9
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}

# Within a scan, 0 or the number of a restart follows a byte 0xff. Decoders skip what is not a marker.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and offset of each segment, up to the end of the image; other images may follow it."""
    at = 2
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker == END:
            return
        yield marker, at
        (length,) = struct.unpack_from(">H", data, at)
        at += max(length, 2)


def sizes(data: bytes) -> Sizes:
    """Read every frame header up to the first scan; a sound file has one."""
    for marker, at in _segments(data):
        if marker == SCAN:
            return
        if marker in FRAMES:
            yield struct.unpack_from(">HHB", data, at + 3)


def scans(data: bytes) -> int:
    """Count the scans of the image, without those of a thumbnail in its segments or of images after its end."""
    try:
        return sum(marker == SCAN for marker, _ in _segments(data))
    except struct.error:  # truncated in a later segment
        return data.count(b"\xff\xda")
