"""PNG (ISO/IEC 15948)."""

from __future__ import annotations

import struct

from gpusift.images.formats.header import HeaderError, Sizes

# Memory for a chunk of this size does no harm, and the decoder's message about a truncated file is worth reading.
CHUNK_BYTES = 1 << 24


def sizes(data: bytes) -> Sizes:
    """Read the size of the image, and check the lengths of all chunks."""
    if data[12:16] != b"IHDR":
        raise HeaderError("must be a PNG file that begins with an IHDR chunk, but it does not")
    at, kind = 8, b""
    while at + 8 <= len(data) and kind != b"IEND":  # OpenCV allocates a chunk before it looks at the file's length
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data) and length > CHUNK_BYTES:
            raise HeaderError(f"must be a whole PNG file, but a chunk of {length} bytes is truncated")
    columns, rows = struct.unpack_from(">II", data, 16)
    yield rows, columns
