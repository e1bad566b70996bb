"""Boxes of the ISO base media file format (ISO/IEC 14496-12), which AVIF and JPEG 2000 files consist of."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes in a range of bytes.

    Parameters
    ----------
    data : bytes
        The whole file.
    start, end : int, optional
        The range, by default all.

    Yields
    ------
    kind : bytes
        The box's four letters.
    start, end : int
        Where its contents begin and end.
    """
    at, end = start, len(data) if end is None else min(end, len(data))
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        after = at + length if length else end
        yield kind, begin, after
        at = max(after, begin)
