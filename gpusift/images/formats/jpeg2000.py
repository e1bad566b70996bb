"""JPEG 2000 (ITU-T T.800): codestreams, and JP2 files around them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpusift.images.codec import imdecode
from gpusift.images.errors import DecodeError
from gpusift.images.formats.boxes import boxes
from gpusift.images.formats.header import HeaderError, Sizes
from gpusift.images.full_range import to_full_range

# Memory that OpenJPEG takes for each tile and each code block, in pixels of 4 bytes.
TILE = 4096
BLOCK = 180

# Markers: start and size, coding style of all components and of one, start of a tile-part and of its data.
START = b"\xff\x4f\xff\x51"
COD, COC = 0xFF52, 0xFF53
SOT, SOD = 0xFF90, 0xFF93

MAX_TILES = 65535
MAX_LEVELS = 32

# A packet (a layer of a precinct of a resolution of a component) takes at least one byte of the file. Up to this number
# they take no time, so that a truncated small file gets the decoder's own message.
FEW_PACKETS = 100_000


@dataclass(frozen=True)
class _Axis:
    """The image and its grid of tiles along rows or columns, in samples of the reference grid."""

    start: int
    end: int
    tile_start: int
    tile: int

    @property
    def n_tiles(self) -> int:
        return -(-(self.end - self.tile_start) // self.tile)

    def precincts(self, halvings: int, exponent: int) -> int:
        """Count the precincts of 2**exponent samples, over all tiles, after this many halvings of the image."""
        edges = self.tile_start + self.tile * np.arange(self.n_tiles + 1, dtype=np.int64)
        edges = -(-edges.clip(self.start, self.end) // (1 << halvings))
        first, last = edges[:-1], edges[1:]
        counts = -(-last // (1 << exponent)) - first // (1 << exponent)
        return int(counts[last > first].sum())


@dataclass(frozen=True)
class _Size:
    """The SIZ marker: where it is, the two axes, the number of components, and the depths of those in the file."""

    at: int
    rows: _Axis
    columns: _Axis
    channels: int
    depths: bytes


def _size(data: bytes) -> _Size:
    at = next((start for kind, start, _ in boxes(data) if kind == b"jp2c"), 0) if data[:2] == b"\0\0" else 0
    if data[at : at + 4] != START:
        raise HeaderError("must be a JPEG 2000 file with an image in it, but there is none")
    right, bottom, left, top, columns, rows, tile_left, tile_top, channels = struct.unpack_from(">8IH", data, at + 8)
    rows_axis, columns_axis = _Axis(top, bottom, tile_top, rows), _Axis(left, right, tile_left, columns)
    if not channels:
        raise HeaderError("must have at least one component, but this JPEG 2000 file has none")
    return _Size(at + 2, rows_axis, columns_axis, channels, data[at + 42 : at + 42 + 3 * channels : 3])


def sizes(data: bytes) -> Sizes:
    """Read the size of the image, and what the tables of its tiles and its code blocks take."""
    size = _size(data)
    rows, columns, channels = size.rows, size.columns, size.channels
    yield rows.end - rows.start, columns.end - columns.start, channels
    n_tiles = rows.n_tiles * columns.n_tiles
    yield n_tiles, TILE
    pixels = (rows.end - rows.start) * (columns.end - columns.start) * channels
    layers = precincts = 1
    for marker, at in _styles(data, size.at):
        style = at + (4 if marker == COD else 5 if channels < 257 else 6)
        levels, *block = data[style + (5 if marker == COD else 1) :][:3]
        if marker == COD:
            layers = max(layers, struct.unpack_from(">H", data, style + 2)[0])
        exponents = _precinct_exponents(data, at, style, levels)
        yield _blocks(pixels, levels, block, exponents), BLOCK
        if n_tiles <= MAX_TILES:
            precincts = max(precincts, _precincts(size, levels, exponents))
    packets = layers * precincts * channels
    if packets > max(len(data), FEW_PACKETS):
        raise HeaderError(f"must be a whole JPEG 2000 file, but {len(data)} bytes cannot hold {packets} packets")


def _styles(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield marker and offset of the coding styles in the main header and in those of tile-parts."""
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
            yield marker, at
        elif marker < 0xFF00:
            return
        at += 2 + length


def _precinct_exponents(data: bytes, at: int, style: int, levels: int) -> bytes:
    """Return the powers of 2 of a style's precincts, rows in the upper half of each byte; one for each resolution."""
    if levels > MAX_LEVELS:
        raise HeaderError(f"must have at most {MAX_LEVELS} levels of resolution, but this JPEG 2000 file has {levels}")
    if not data[style] & 1:
        return b"\xff" * (levels + 1)
    (length,) = struct.unpack_from(">H", data, at + 2)
    return data[at + 1 + length - levels :][: levels + 1]


def _blocks(pixels: int, levels: int, block: list[int], precincts: bytes) -> int:
    """Count the code blocks: a resolution's bands are split into precincts, and these into blocks."""
    count = 0
    for resolution, precinct in enumerate(precincts):
        bands, halvings = (3, levels - resolution + 1) if resolution else (1, levels)
        sides = (precinct & 15) - bool(resolution), (precinct >> 4) - bool(resolution)  # powers of 2
        area = sum(max(0, min(side, exponent + 2)) for side, exponent in zip(sides, block))
        count += bands * pixels >> 2 * halvings + area
    return count


def _precincts(size: _Size, levels: int, exponents: bytes) -> int:
    """Count the precincts of a component, in all resolutions and tiles."""
    return sum(
        size.rows.precincts(levels - resolution, exponent >> 4)
        * size.columns.precincts(levels - resolution, exponent & 15)
        for resolution, exponent in enumerate(exponents)
    )


def decode(data: bytes, exif_orientation: bool) -> np.ndarray:
    """Decode the image, and scale values of less than 8 or 16 bits; see `gpusift.images.codec.imdecode`."""
    size = _size(data)
    depths = set(size.depths)
    if len(size.depths) < size.channels:
        raise DecodeError("must have the depth of each component, but this JPEG 2000 file is truncated")
    if any(depth & 128 for depth in depths):
        raise DecodeError("must hold unsigned values, but those of this JPEG 2000 file are signed")
    if len(depths) > 1:
        raise DecodeError("must have one number of bits for all components, but this JPEG 2000 file has several")
    bits = depths.pop() + 1
    if bits > 16:
        raise DecodeError(f"must have at most 16 bits, but the values of this JPEG 2000 file have {bits}")
    return to_full_range(imdecode(data, exif_orientation), (1 << bits) - 1)
