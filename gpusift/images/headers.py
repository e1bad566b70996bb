"""How large a picture file says its picture is, read from its header without decoding anything.

A small file may declare a huge picture, and decoders make room for what is declared before they notice that it is not
there. The readers here look where OpenCV's decoders look; where a file states sizes several times, the largest counts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Rows, columns, and samples of a pixel where the format leaves them open.
Sizes = Iterator[tuple[int, ...]]

# OpenCV has no use for more samples of a pixel, but some of its decoders make room for them.
MAX_CHANNELS = 4

# Room for a chunk of this size does no harm, and what the decoder says of a truncated file is worth hearing.
PNG_CHUNK_BYTES = 1 << 24

# Room that OpenJPEG takes for each tile and each code block, in pixels of 4 bytes.
JPEG2000_TILE = 4096
JPEG2000_BLOCK = 180

# Numbers written in text are looked for in so many bytes.
TEXT_BYTES = 1 << 16


class HeaderError(ValueError):
    """The bytes do not begin with the header of a picture of a known kind."""


@dataclass(frozen=True)
class Header:
    """What a file declares.

    Attributes
    ----------
    kind : str
        Its format.
    rows, columns : int
        Size of the picture.
    pixels : int
        Pixels of the picture, or of whatever else takes more room.
    passes : int
        How often the decoder goes over the pixels.
    """

    kind: str
    rows: int
    columns: int
    pixels: int
    passes: int = 1


def read_header(data: bytes) -> Header:
    """Read what a picture file declares.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    header : Header

    Raises
    ------
    HeaderError
        The format is not known, or the header is incomplete, contradicts itself or makes no sense.
    """
    found = next((known for known in _KINDS if known[0].match(data)), None)
    if found is None:
        raise HeaderError("must be a whole image of a kind that OpenCV reads, but it is something else")
    _, kind, sizes_of = found
    try:
        sizes = list(sizes_of(data))
    except HeaderError:
        raise
    except (struct.error, IndexError, ValueError, KeyError, ArithmeticError):  # of looking where nothing is
        raise HeaderError(f"must have the whole header of a {kind} file, but that is cut or broken") from None
    if not sizes or min(sizes[0][:2]) < 1:
        raise HeaderError(f"must have a {kind} header that says how large the picture is, but it does not")
    channels = max((more[0] for _, _, *more in sizes if more), default=1)
    if channels > MAX_CHANNELS:
        raise HeaderError(f"must have at most {MAX_CHANNELS} samples in a pixel, but the {kind} header says {channels}")
    # Each scan of a JPEG begins with this marker, which cannot occur within one.
    passes = data.count(b"\xff\xda") if kind == "JPEG" else 1
    return Header(kind, sizes[0][0], sizes[0][1], max(rows * columns for rows, columns, *_ in sizes), passes)


def _png(data: bytes) -> Sizes:
    if data[12:16] != b"IHDR":
        raise HeaderError("must be a PNG file that begins with an IHDR chunk, but it does not")
    at, kind = 8, b""
    while at + 8 <= len(data) and kind != b"IEND":  # OpenCV makes room for a chunk before it looks how much there is
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data) and length > PNG_CHUNK_BYTES:
            raise HeaderError(f"must be a whole PNG file, but a chunk of {length} bytes is truncated")
    columns, rows = struct.unpack_from(">II", data, 16)
    yield rows, columns


def _jpeg(data: bytes) -> Sizes:
    """Every frame header up to the first scan; a sound file has one."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in (0xDA, 0xD9):  # a scan, the end
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these have no length
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            yield struct.unpack_from(">HHB", data, at + 3)
        at += max(length, 2)


def _tiff(data: bytes) -> Sizes:
    """The first picture, and one of its tiles."""
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
        if tag in tags and kind in _TIFF_INTEGERS:
            (value,) = struct.unpack_from(order + _TIFF_INTEGERS[kind], data, here + struct.calcsize(order + entry))
            tags[tag] = max(value, tags[tag])
    yield tags[257], tags[256], tags[277]
    yield tags[323], tags[322]


_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}


def _webp(data: bytes) -> Sizes:
    """The canvas, and the pictures on it."""
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


def _bmp(data: bytes) -> Sizes:
    (size,) = struct.unpack_from("<I", data, 14)
    columns, rows = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    yield abs(rows), abs(columns)


def _gif(data: bytes) -> Sizes:
    columns, rows = struct.unpack_from("<HH", data, 6)
    yield rows, columns


def _numbers(form: bytes) -> Callable[[bytes], Sizes]:
    """Make a reader of columns and rows in text."""
    pattern = re.compile(form, re.DOTALL)

    def sizes_of(data: bytes) -> Sizes:
        match = pattern.match(data[:TEXT_BYTES])
        if match:
            yield int(match[2]), int(match[1])

    return sizes_of


def _pam(data: bytes) -> Sizes:
    text = re.sub(rb"#[^\r\n]*", b"", data[:TEXT_BYTES]).partition(b"ENDHDR")[0]
    fields = {name: int(value) for name, value in re.findall(rb"(WIDTH|HEIGHT|DEPTH)\s+(\d{1,10})\s", text)}
    yield fields[b"HEIGHT"], fields[b"WIDTH"], fields[b"DEPTH"]


def _hdr(data: bytes) -> Sizes:
    for match in re.finditer(rb"-Y\s*\+?(\d{1,10})(?!\d)\s*\+X\s*\+?(\d{1,10})(?!\d)", data):
        yield int(match[1]), int(match[2])


def _sun(data: bytes) -> Sizes:
    columns, rows = struct.unpack_from(">II", data, 4)
    yield rows, columns


def _jpeg2000(data: bytes) -> Sizes:
    """The picture, the room for the tables of its tiles, and that for its code blocks."""
    at = next((start for kind, start, _ in _boxes(data) if kind == b"jp2c"), 0) if data[:2] == b"\0\0" else 0
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise HeaderError("must be a JPEG 2000 file with a picture in it, but there is none")
    at += 2
    right, bottom, left, top, columns, rows, _, _, channels = struct.unpack_from(">8IH", data, at + 6)
    yield bottom - top, right - left, channels
    yield -(-right // columns) * -(-bottom // rows), JPEG2000_TILE
    pixels = (bottom - top) * (right - left) * channels
    tile = 0
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFF90:  # a part of a tile
            tile = at
        elif marker == 0xFF93:  # its data, and where the next one is
            (size,) = struct.unpack_from(">I", data, tile + 6)
            if size < 14:
                return
            at = tile + size
            continue
        elif marker in (0xFF52, 0xFF53):  # coding style, of all components or of one
            style = at + (4 if marker == 0xFF52 else 5 if channels < 257 else 6)
            levels, *block = data[style + (5 if marker == 0xFF52 else 1) :][:3]
            precincts = data[at + 1 + length - levels :][: levels + 1] if data[style] & 1 else b"\xff" * (levels + 1)
            yield _blocks(pixels, levels, block, precincts), JPEG2000_BLOCK
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


def _avif(data: bytes) -> Sizes:
    """All pictures that the file's description names; what it does not name, libavif limits to 16384 x 16384."""
    for kind, start, end in _boxes(data):
        if kind == b"meta":
            for match in re.finditer(rb"ispe.{4}(.{8})", data[start:end], re.DOTALL):
                columns, rows = struct.unpack(">II", match[1])
                yield rows, columns
        elif kind == b"moov":
            for match in re.finditer(rb"av01.{24}(.{4})", data[start:end], re.DOTALL):
                columns, rows = struct.unpack(">HH", match[1])
                yield rows, columns


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, beginning and end of the contents of a file's boxes, as ISO has them."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = at + length if length else len(data)
        yield kind, start, end
        at = max(end, start)


def _exr(data: bytes) -> Sizes:
    for match in re.finditer(rb"dataWindow\0box2i\0\x10\0\0\0(.{16})", data, re.DOTALL):
        left, top, right, bottom = struct.unpack("<4i", match[1])
        yield bottom - top + 1, right - left + 1


_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])*"
_KINDS: list[tuple[re.Pattern[bytes], str, Callable[[bytes], Sizes]]] = [
    (re.compile(magic, re.DOTALL), kind, sizes_of)
    for magic, kind, sizes_of in [
        (rb"\x89PNG\r\n\x1a\n", "PNG", _png),
        (rb"\xff\xd8\xff", "JPEG", _jpeg),
        (rb"II[*+]\0|MM\0[*+]", "TIFF", _tiff),
        (rb"RIFF.{4}WEBP", "WebP", _webp),
        (rb"BM", "BMP", _bmp),
        (rb"GIF8[79]a", "GIF", _gif),
        # Any one character ends a number, as in OpenCV.
        (rb"P[1-6]\s", "PNM", _numbers(rb"P." + _SPACE + rb"(\d{1,10})\D" + _SPACE + rb"(\d{1,10})\D")),
        (rb"P7\s", "PAM", _pam),
        (rb"P[Ff]\s", "PFM", _numbers(rb"P.\s\+?(\d{1,10})(?!\d)\S*\s\+?(\d{1,10})(?!\d)")),
        (rb"#\?RGBE|#\?RADIANCE", "Radiance HDR", _hdr),
        (rb"\x59\xa6\x6a\x95", "Sun raster", _sun),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", _jpeg2000),
        (rb".{4}ftypavi[fs]|.{4}ftyp.{8}(?:.{4}){0,60}avi[fs]", "AVIF", _avif),
        (rb"v/1\x01", "OpenEXR", _exr),
    ]
]
