"""WebP (RFC 9649)."""

from __future__ import annotations

import struct

from gpusift.images.formats.header import Sizes


def sizes(data: bytes) -> Sizes:
    """Read the sizes of the canvas and of the images on it."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        at += 8
        if kind == b"VP8X":
            yield _u24(data, at + 7) + 1, _u24(data, at + 4) + 1
        elif kind == b"VP8 ":
            columns, rows = struct.unpack_from("<HH", data, at + 6)
            yield rows & 0x3FFF, columns & 0x3FFF
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, at + 1)
            yield (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        elif kind == b"ANMF":
            yield _u24(data, at + 9) + 1, _u24(data, at + 6) + 1
        at += length + length % 2


def _u24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
