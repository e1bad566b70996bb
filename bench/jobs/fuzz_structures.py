"""Image files whose structure is odd: more layers, chunks, scans, tiles, frames or directories than any image needs.

Each function takes a sound file and a random generator, and returns a file that a decoder may have to read for long, or
into much memory, if it does not bound its work first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Structure = Callable[[bytes, Rng], bytes]

MOST_COPIES = 3000  # of a part of a file
BOMB = 4 << 20  # bytes before compression
LARGEST = 2 << 20  # bytes of a file


def number(rng: Rng, largest: int) -> int:
    """Return a number from 0 to `largest`, its logarithm uniform."""
    return int((largest + 1) ** rng.random()) - int(rng.random() < 0.1)


def repeated(part: bytes, rng: Rng) -> bytes:
    """Return up to `MOST_COPIES` copies of a part of a file, within `LARGEST`."""
    return part * min(number(rng, MOST_COPIES), LARGEST // max(len(part), 1))


# PNG: chunks


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_ancillary(data: bytes, rng: Rng) -> bytes:
    """Add compressed text, profiles or unknown chunks: large ones, or many."""
    bomb = zlib.compress(bytes(number(rng, BOMB)), 9)
    bodies = {
        b"zTXt": b"k\0\0" + bomb,
        b"iTXt": b"k\0\1\0\0\0" + bomb,
        b"iCCP": b"k\0\0" + bomb,
        b"tEXt": b"k\0" + bytes(number(rng, 1 << 16)),
        b"eXIf": tiff_directories(b"", rng),
        b"sPLT": b"k\0\10" + bytes(6 * number(rng, 4000)),
        b"zzZz": bytes(number(rng, 1 << 12)),
    }
    kind = sorted(bodies)[rng.integers(len(bodies))]
    chunks = repeated(png_chunk(kind, bodies[kind]), rng)
    at = 33 if rng.random() < 0.7 else data.rfind(b"IEND") - 4
    return data[:at] + chunks + data[at:]


def png_data_chunks(data: bytes, rng: Rng) -> bytes:
    """Split the image data into many chunks, most of them empty, or add frames of an animation."""
    start, end = data.find(b"IDAT") - 4, data.rfind(b"IEND") - 4
    if start < 0 or end < start:
        return data
    empty = repeated(png_chunk(b"IDAT", b""), rng)
    if rng.random() < 0.5:
        return data[:start] + empty + data[start:end] + empty + data[end:]
    frames = number(rng, MOST_COPIES)
    size = data[16:24]
    control = png_chunk(b"acTL", struct.pack(">II", number(rng, 2**31), 0))
    frame = b"".join(
        png_chunk(b"fcTL", struct.pack(">I", 2 * i) + size + bytes(8) + b"\0\1\0\1\0\0")
        + png_chunk(b"fdAT", struct.pack(">I", 2 * i + 1) + data[start + 8 : start + 60])
        for i in range(min(frames, 500))
    )
    return data[:start] + control + data[start:end] + frame + data[end:]


def png_size(data: bytes, rng: Rng) -> bytes:
    """Declare another size, depth, colour type or interlacing."""
    header = struct.pack(
        ">IIBBBBB", number(rng, 2**31), number(rng, 2**31), *rng.choice((1, 2, 3, 4, 8, 16), 2), 0, 0, 1
    )
    return data[:8] + png_chunk(b"IHDR", header) + data[33:]


# JPEG: scans and segments


def jpeg_scans(data: bytes, rng: Rng) -> bytes:
    """Repeat a scan, with the tables before it or without."""
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    if not starts:
        return data
    at = starts[int(rng.integers(len(starts)))]
    later = [start for start in starts if start > at] or [len(data) - 2]
    scan = data[at : later[0]]
    return data[: later[0]] + repeated(scan, rng) + data[later[0] :]


def jpeg_segments(data: bytes, rng: Rng) -> bytes:
    """Add many segments: comments, applications' data, tables, restart intervals."""
    marker = int(rng.choice((0xFE, 0xE1, 0xE2, 0xED, 0xDB, 0xC4, 0xDD, 0xDC, 0x01, 0xD8, 0xD9)))
    body = b"Exif\0\0" + tiff_directories(b"", rng) if marker == 0xE1 else bytes(number(rng, 1 << 12))
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    return data[:2] + repeated(segment, rng) + data[2:]


def jpeg_frame(data: bytes, rng: Rng) -> bytes:
    """Declare another size, number of components or sampling."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if at < 0:
        return data
    whole = bytearray(data)
    struct.pack_into(">HH", whole, at + 5, min(number(rng, 65536), 65535), min(number(rng, 65536), 65535))
    if rng.random() < 0.5:
        whole[at + 9] = int(rng.integers(0, 6))
    if rng.random() < 0.5 and at + 11 < len(whole):
        whole[at + 11] = 16 * int(rng.integers(0, 6)) + int(rng.integers(0, 6))
    return bytes(whole)


# TIFF: directories and tiles

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8, 13: 4, 16: 8}


def tiff_directories(data: bytes, rng: Rng) -> bytes:
    """Return a TIFF file from nothing: directories that may loop, with strips, tiles and sub-directories."""
    order = "<" if rng.random() < 0.7 else ">"
    n_directories = 1 + number(rng, 40)
    starts, whole = [8], bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8))
    for index in range(n_directories):
        entries = tiff_entries(rng)
        whole += struct.pack(order + "H", len(entries))
        for tag, kind, count, value in entries:
            if value is None:  # an offset: of any directory
                value = starts[int(rng.integers(len(starts)))]
            whole += struct.pack(order + "HHII", tag, kind, count, value & 0xFFFFFFFF)
        following = len(whole) + 4
        ends = index == n_directories - 1
        loop = starts[int(rng.integers(len(starts)))]
        whole += struct.pack(order + "I", following if not ends else loop if rng.random() < 0.7 else 0)
        starts.append(following)
    return bytes(whole) + bytes(number(rng, 1 << 14))


def tiff_entries(rng: Rng) -> list[tuple[int, int, int, int | None]]:
    """Return the entries of a directory, in the order of their tags: tag, type, count, value or offset."""
    rows, cols = number(rng, 4096), number(rng, 4096)
    samples = int(rng.choice((1, 1, 1, 3, 3, 4, 200)))
    entries: list[tuple[int, int, int, int | None]] = [
        (256, 4, 1, cols),
        (257, 4, 1, rows),
        (258, 3, 1, int(rng.choice((1, 4, 8, 12, 16, 32, 64, 255)))),
        (259, 3, 1, int(rng.choice((1, 1, 5, 8, 7, 32773, 50000, 34712)))),
        (262, 3, 1, int(rng.choice((0, 1, 2, 3, 5, 6)))),
        (274, 3, 1, int(rng.integers(0, 10))),
        (277, 3, 1, samples),
        (284, 3, 1, int(rng.integers(1, 3))),
        (339, 3, 1, int(rng.integers(1, 5))),
    ]
    if rng.random() < 0.5:
        side = 16 * (1 + number(rng, 16))
        entries += [
            (322, 4, 1, side),
            (323, 4, 1, side),
            (324, 4, number(rng, 1 << 20), 8),
            (325, 4, 1, number(rng, 1 << 16)),
        ]
    else:
        strips = number(rng, 1 << 20)
        entries += [(273, 4, strips, 8), (278, 4, 1, number(rng, rows)), (279, 4, strips, number(rng, 1 << 16))]
    if rng.random() < 0.5:
        entries.append((330, 13, number(rng, 1000) + 1, None))
    if rng.random() < 0.5:
        entries.append((34665, 4, 1, None))
    return sorted(entries, key=lambda entry: entry[0])


# JPEG 2000: layers, resolutions, precincts, tiles


def jpeg2000_coding(data: bytes, rng: Rng) -> bytes:
    """Declare other layers, resolutions and precincts (COD), or other tiles and components (SIZ)."""
    whole = bytearray(data)
    cod, siz = data.find(b"\xff\x52"), data.find(b"\xff\x51")
    if cod < 0 or siz < 0:
        return data
    if rng.random() < 0.8:
        struct.pack_into(">H", whole, cod + 6, min(number(rng, 65535), 65535))  # layers
    if rng.random() < 0.4:
        whole[cod + 9] = int(rng.integers(0, 33))  # resolutions
    if rng.random() < 0.4:  # precincts of one size for all resolutions
        (length,) = struct.unpack_from(">H", whole, cod + 2)
        resolutions = whole[cod + 9] + 1
        whole[cod + 4] |= 1
        struct.pack_into(">H", whole, cod + 2, length + resolutions)
        whole[cod + 2 + length : cod + 2 + length] = bytes(
            int(rng.choice((0x00, 0x11, 0x22, 0xFF))) for _ in range(resolutions)
        )
    if rng.random() < 0.5:
        struct.pack_into(">II", whole, siz + 22, 1 + number(rng, 1 << 16), 1 + number(rng, 1 << 16))  # tiles
    if rng.random() < 0.4:
        struct.pack_into(">II", whole, siz + 6, number(rng, 1 << 20), number(rng, 1 << 20))  # size
    if rng.random() < 0.2:
        struct.pack_into(">H", whole, siz + 38, min(number(rng, 16384), 65535))  # components
    return bytes(whole)


def jpeg2000_parts(data: bytes, rng: Rng) -> bytes:
    """Repeat a tile's part, or nest boxes."""
    start = data.find(b"\xff\x90")
    if start < 0 or rng.random() < 0.3:
        depth = number(rng, MOST_COPIES)
        boxes = b"".join(struct.pack(">I4s", 8 * (depth - i), b"jp2h") for i in range(depth))
        return data[:12] + boxes + data[12:]
    return data[:-2] + repeated(data[start:-2], rng) + data[-2:]


# WebP, GIF, AVIF, Netpbm


def webp_frames(data: bytes, rng: Rng) -> bytes:
    """Return an animation of many frames, or a file with large or many unknown chunks."""
    body = data[12:]
    extended = (
        b"VP8X" + struct.pack("<I", 10) + bytes([0x02]) + bytes(3) + struct.pack("<I", number(rng, 2**24))[:3] * 2
    )
    frame = bytes(12) + b"\1\0\0\0" + body
    frames = repeated(b"ANMF" + struct.pack("<I", len(frame)) + frame, rng)
    other = repeated(b"zzzz" + struct.pack("<I", 8) + bytes(8), rng)
    content = (
        b"WEBP"
        + extended
        + b"ANIM"
        + struct.pack("<I", 6)
        + bytes(6)
        + (frames if rng.random() < 0.6 else other + body)
    )
    return b"RIFF" + struct.pack("<I", len(content)) + content


def gif_frames(data: bytes, rng: Rng) -> bytes:
    """Repeat the frames of a GIF, or declare another screen."""
    start, end = data.find(b","), len(data) - 1
    if not data.startswith(b"GIF") or start < 0:
        return data
    screen = struct.pack("<HH", min(number(rng, 65536), 65535), min(number(rng, 65536), 65535))
    header = data[:6] + (screen if rng.random() < 0.5 else data[6:10]) + data[10:start]
    return header + repeated(data[start:end], rng) + data[end:]


def boxes(data: bytes, rng: Rng) -> bytes:
    """Repeat or nest the boxes of an ISO media file."""
    count = number(rng, MOST_COPIES)
    kind = (b"meta", b"moov", b"free", b"iprp", b"uuid")[rng.integers(5)]
    if rng.random() < 0.5:
        nested = b"".join(struct.pack(">I4s", 8 * (count - i), kind) for i in range(count))
        return data + nested
    (size,) = struct.unpack_from(">I", data)
    return data[:size] + struct.pack(">I4s", 8, kind) * count + data[size:]


def netpbm_header(data: bytes, rng: Rng) -> bytes:
    """Return a Netpbm file with an odd header: comments, text samples, sizes, maximal values."""
    kind = rng.choice(("P1", "P2", "P3", "P4", "P5", "P6", "Pf"))
    comment = "#" + "c" * number(rng, 1 << 20) + "\n" if rng.random() < 0.5 else ""
    space = " " * number(rng, 1 << 16) if rng.random() < 0.3 else " "
    last = int(rng.choice((0, 1, 2, 255, 256, 1023, 4095, 65535, 65536, 2**31)))
    header = f"{kind}\n{comment}{number(rng, 100_000)}{space}{number(rng, 100_000)}\n{last}\n"
    return header.encode() + (b"1 " * number(rng, 20_000) if kind in ("P1", "P2", "P3") else bytes(number(rng, 40_000)))


def others(data: bytes, rng: Rng) -> bytes:
    """Return an odd file of the format that `data` is of."""
    if data.startswith(b"GIF"):
        return gif_frames(data, rng)
    if data[4:8] == b"jP  " or data.startswith(b"\xff\x4f"):
        return (jpeg2000_coding if rng.random() < 0.7 else jpeg2000_parts)(data, rng)
    if data[4:8] == b"ftyp":
        return boxes(data, rng)
    return netpbm_header(data, rng)


STRUCTURES: dict[str, tuple[Structure, ...]] = {
    "jpeg": (jpeg_scans, jpeg_segments, jpeg_frame),
    "png": (png_ancillary, png_data_chunks, png_size),
    "tiff": (tiff_directories,),
    "webp": (webp_frames,),
    "others": (others,),
}


def odd_structure(kind: str, files: list[bytes], rng: Rng) -> bytes:
    """Return a file of a kind of `STRUCTURES`, one to three times made odd."""
    data = files[rng.integers(len(files))]
    for _ in range(int(rng.integers(1, 4))):
        structures = STRUCTURES[kind]
        data = structures[rng.integers(len(structures))](data, rng)[:LARGEST]
    return data
