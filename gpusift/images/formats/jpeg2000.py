"""JPEG 2000 (ITU-T T.800): codestreams, and JP2 files around them."""

from __future__ import annotations

import struct

from gpusift.images.formats.boxes import boxes
from gpusift.images.formats.header import HeaderError, Sizes

# Memory that OpenJPEG takes for each tile and each code block, in pixels of 4 bytes.
TILE = 4096
BLOCK = 180

# Markers: start and size, coding style of all components and of one, start of a tile-part and of its data.
START = b"\xff\x4f\xff\x51"
COD, COC = 0xFF52, 0xFF53
SOT, SOD = 0xFF90, 0xFF93


def sizes(data: bytes) -> Sizes:
    """Read the size of the image, and what the tables of its tiles and its code blocks take."""
    at = next((start for kind, start, _ in boxes(data) if kind == b"jp2c"), 0) if data[:2] == b"\0\0" else 0
    if data[at : at + 4] != START:
        raise HeaderError("must be a JPEG 2000 file with an image in it, but there is none")
    at += 2
    right, bottom, left, top, columns, rows, _, _, channels = struct.unpack_from(">8IH", data, at + 6)
    yield bottom - top, right - left, channels
    yield -(-right // columns) * -(-bottom // rows), TILE
    pixels = (bottom - top) * (right - left) * channels
    tile = 0
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == SOT:
            tile = at
        elif marker == SOD:
            (size,) = struct.unpack_from(">I", data, tile + 6)
            if size < 14:
                return
            at = tile + size
            continue
        elif marker in (COD, COC):
            style = at + (4 if marker == COD else 5 if channels < 257 else 6)
            levels, *block = data[style + (5 if marker == COD else 1) :][:3]
            precincts = data[at + 1 + length - levels :][: levels + 1] if data[style] & 1 else b"\xff" * (levels + 1)
            yield _blocks(pixels, levels, block, precincts), BLOCK
        elif marker < 0xFF00:
            return
        at += 2 + length


def _blocks(pixels: int, levels: int, block: list[int], precincts: bytes) -> int:
    """Count the code blocks: a resolution's bands are split into precincts, and these into blocks."""
    count = 0
    for resolution, precinct in enumerate(precincts):
        bands, halvings = (3, levels - resolution + 1) if resolution else (1, levels)
        sides = (precinct & 15) - bool(resolution), (precinct >> 4) - bool(resolution)  # powers of 2
        area = sum(max(0, min(side, exponent + 2)) for side, exponent in zip(sides, block))
        count += bands * pixels >> 2 * halvings + area
    return count
