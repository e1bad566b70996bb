"""PNG (ISO/IEC 15948)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from gpusift.images.codec import imdecode
from gpusift.images.formats.header import HeaderError, Sizes

SIGNATURE_BYTES = 8

# Memory for a chunk of this size does no harm, and the decoder's message about a truncated file is worth reading.
CHUNK_BYTES = 1 << 24

# The chunks that hold pixels and orientation. Others may inflate to any size (zTXt, iTXt, iCCP), or hold any number of
# animation frames (fdAT).
DECODED = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield kind, length, begin and end of each chunk up to IEND; the last end may be beyond the file's."""
    at, kind = SIGNATURE_BYTES, b""
    while at + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, length, at, at + 12 + length
        at += 12 + length


def sizes(data: bytes) -> Sizes:
    """Read the size of the image, and check the lengths of all chunks."""
    if data[12:16] != b"IHDR":
        raise HeaderError("must be a PNG file that begins with an IHDR chunk, but it does not")
    for _, length, _, end in _chunks(data):  # OpenCV allocates a chunk before it looks at the file's length
        if end > len(data) and length > CHUNK_BYTES:
            raise HeaderError(f"must be a whole PNG file, but a chunk of {length} bytes is truncated")
    columns, rows = struct.unpack_from(">II", data, 16)
    yield rows, columns


def decode(data: bytes, exif_orientation: bool) -> np.ndarray:
    """Decode the image, from the chunks that it needs; see `gpusift.images.codec.imdecode`."""
    chunks = list(_chunks(data))
    if all(kind in DECODED for kind, *_ in chunks):
        return imdecode(data, exif_orientation)
    kept = [data[:SIGNATURE_BYTES], *(data[start:end] for kind, _, start, end in chunks if kind in DECODED)]
    return imdecode(b"".join(kept), exif_orientation)
