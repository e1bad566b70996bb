"""TIFF 6.0, and BigTIFF."""

from __future__ import annotations

import struct

from gpusift.images.formats.header import Sizes

_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}


def sizes(data: bytes) -> Sizes:
    """Read the size of the first image, and of one of its tiles."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(order + count)
    tags = {256: 0, 257: 0, 277: 1, 322: 0, 323: 0}  # columns, rows, samples, columns and rows of a tile
    for i in range(min(entries, 1 << 16)):
        here = at + i * (20 if big else 12)
        tag, kind, _ = struct.unpack_from(order + entry, data, here)
        if tag in tags and kind in _INTEGERS:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], data, here + struct.calcsize(order + entry))
            tags[tag] = max(value, tags[tag])
    yield tags[257], tags[256], tags[277]
    yield tags[323], tags[322]
