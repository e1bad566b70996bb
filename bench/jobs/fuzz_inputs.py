"""Broken and odd image files, odd arrays and odd parameters, each from a seed and a number."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # it reads this once

import cv2
import numpy as np

from bench.common.photographs import data_folder
from bench.jobs.fuzz_structures import STRUCTURES, odd_structure

# Kind -> suffixes and options of cv2.imencode; several for the different decoders of a kind.
WRITERS: dict[str, list[tuple[str, list[int]]]] = {
    "jpeg": [
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2, cv2.IMWRITE_JPEG_QUALITY, 40]),
    ],
    "png": [(".png", []), (".png", [cv2.IMWRITE_PNG_COMPRESSION, 0])],
    "tiff": [(".tif", [cv2.IMWRITE_TIFF_COMPRESSION, c]) for c in (1, 5, 8, 32773)],
    "webp": [(".webp", [cv2.IMWRITE_WEBP_QUALITY, q]) for q in (50, 101)],
    "bmp": [(".bmp", [])],
    "others": [(suffix, []) for suffix in (".gif", ".pgm", ".ppm", ".pam", ".pfm", ".jp2", ".avif", ".hdr", ".ras")],
}
SUFFIXES = {
    "jpeg": (".jpg", ".jpeg"),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "others": (".pgm", ".ppm", ".pfm"),
}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LARGEST_REAL_FILE = 100_000  # bytes: larger files are not used, as most of their bytes are pixels

DTYPES = "?bBhHiIlLefdgFDOSU"


def sound_files(data: Path | None) -> dict[str, list[bytes]]:
    """Return sound files of each kind to start from: written here, and the real ones of a folder."""
    rng = np.random.default_rng(0)
    colour = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), None, 1.5)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    files: dict[str, list[bytes]] = {kind: [] for kind in WRITERS}
    for kind, writers in WRITERS.items():
        for suffix, options in writers:
            images = [grey, colour, np.dstack([colour, grey]), grey.astype(np.uint16) * 257, colour / np.float32(255)]
            for image in images:
                try:
                    ok, encoded = cv2.imencode(suffix, image, options)
                except cv2.error:  # not every format holds every depth
                    continue
                if ok:
                    files[kind].append(encoded.tobytes())
    for path in sorted(data.rglob("*")) if data else ():
        for kind, suffixes in SUFFIXES.items():
            if path.suffix.lower() in suffixes and 0 < path.stat().st_size <= LARGEST_REAL_FILE:
                files[kind].append(path.read_bytes())
    return files


def odd_file(kind: str, files: list[bytes], rng: np.random.Generator) -> bytes:
    """Return a file of a kind of `WRITERS`: with an odd structure, with wrecked bytes, or with both."""
    if kind not in STRUCTURES or rng.random() < 0.5:
        return wrecked_file(files, rng, kind == "png")
    data = odd_structure(kind, files, rng)
    return data if rng.random() < 0.7 else wrecked_file([data], rng, kind == "png")


def wrecked_file(files: list[bytes], rng: np.random.Generator, is_png: bool) -> bytes:
    """Return one of the files with wrecked bytes; those of a PNG may be wrecked before they are compressed."""
    data = files[rng.integers(len(files))]
    start = data.find(b"IDAT") - 4
    if is_png and start > 0 and rng.random() < 0.3:
        try:
            pixels = bytearray(zlib.decompressobj().decompress(data[start + 8 :]))
        except zlib.error:  # a real file that is broken already
            pixels = bytearray()
        wreck(pixels, files, rng)
        body = zlib.compress(pixels)
        ends = [struct.pack(">I", len(body)) + b"IDAT" + body + bytes(4), struct.pack(">I4sI", 0, b"IEND", 0)]
        return with_checksums(data[:start] + b"".join(ends))
    whole = bytearray(data)
    wreck(whole, files, rng)
    return with_checksums(bytes(whole)) if is_png and rng.random() < 0.8 else bytes(whole)


def wreck(data: bytearray, files: list[bytes], rng: np.random.Generator) -> None:
    """Flip, set, cut, drop, repeat and replace bytes."""
    for _ in range(min(int(rng.geometric(0.5)), 6)):
        if not data:
            break
        # Most often in the header, which decides most.
        at = int(rng.integers(min(len(data), 256))) if rng.random() < 0.6 else int(rng.integers(len(data)))
        change = rng.integers(8)
        if change == 0:
            data[at] ^= 1 << rng.integers(8)
        elif change == 1:
            data[at] = rng.integers(256)
        elif change in (2, 3):
            width = int(rng.choice((1, 2, 4)))
            value = EXTREMES[rng.integers(len(EXTREMES))] & (1 << 8 * width) - 1
            data[at : at + width] = value.to_bytes(width, "big" if rng.random() < 0.5 else "little")
        elif change == 4:
            del data[at:]
        elif change == 5:
            del data[at : at + int(rng.integers(1, 64))]
        elif change == 6:
            data[at:at] = data[at : at + int(rng.integers(1, 256))] * int(rng.integers(1, 4))
        else:
            other = files[rng.integers(len(files))]
            data[at:] = other[int(rng.integers(len(other))) :]


def with_checksums(data: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks, so that decoders read on."""
    whole, at = bytearray(data), 8
    while at + 12 <= len(whole):
        (length,) = struct.unpack_from(">I", whole, at)
        end = at + 8 + length
        if end + 4 > len(whole):
            break
        whole[end : end + 4] = struct.pack(">I", zlib.crc32(whole[at + 4 : end]))
        at = end + 4
    return bytes(whole)


def odd_array(rng: np.random.Generator) -> Any:
    """Return an array of any shape, type and layout, or a list."""
    dimensions = rng.choice((2, 2, 2, 2, 2, 2, 0, 1, 3, 4))
    sides = [int(side) for side in rng.choice((0, 1, 2, 5, 11, 12, 13, 40, 64, 97), dimensions)]
    if dimensions > 2:
        sides = [min(side, 12) for side in sides]
    if rng.random() < 0.7:
        sides = [max(side, 1) for side in sides]
    with np.errstate(all="ignore"):
        values = rng.standard_normal(sides) * 10 ** rng.uniform(-3, 4)
        if rng.random() < 0.5:
            values = rng.random(sides)
        array = np.asarray(values).astype(DTYPES[rng.integers(len(DTYPES))])
    if rng.random() < 0.15 and array.dtype.kind in "fc" and array.size:
        array.reshape(-1)[rng.integers(array.size)] = rng.choice((np.nan, np.inf, -np.inf, 1e300))
    layout = rng.integers(8)
    if layout == 0:
        return array[::-1] if array.ndim else array
    if layout == 1:
        return np.asfortranarray(array)
    if layout == 2:
        return array[..., ::2] if array.ndim else array
    if layout == 3:
        return array.byteswap().view(array.dtype.newbyteorder()) if array.dtype.kind in "iuf" else array
    if layout == 4:
        array.flags.writeable = False
    if layout == 5 and rng.random() < 0.3:
        return array.tolist()
    return array


def odd_parameters(rng: np.random.Generator) -> dict[str, Any]:
    """Return some parameters of SIFT, a few of them invalid or extreme."""

    def real(low: float, high: float) -> float:
        if rng.random() < 0.05:
            return float(rng.choice((0, -1, np.nan, np.inf, 1e-300, 1e300)))
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    def whole(low: int, high: int) -> int:
        return int(rng.choice((0, -1, 10**6, 2**40))) if rng.random() < 0.05 else int(rng.integers(low, high + 1))

    every = {
        "upsampling": lambda: whole(1, 4),
        "n_octaves": lambda: whole(1, 12),
        "n_scales": lambda: whole(1, 8),
        "sigma_min": lambda: real(0.3, 10),
        "sigma_in": lambda: real(0.01, 1),
        "c_dog": lambda: real(1e-5, 1),
        "c_edge": lambda: real(0.5, 1e3),
        "n_bins": lambda: whole(1, 100),
        "lambda_ori": lambda: real(0.1, 10),
        "c_max": lambda: real(0.01, 2),
        "lambda_descr": lambda: real(0.1, 20),
        "n_hist": lambda: whole(1, 8),
        "n_ori": lambda: whole(1, 16),
        "max_keypoints": lambda: whole(1, 200),
        "keep": lambda: str(rng.choice(("response", "scale", "grid", "all"))),
        "upright": lambda: bool(rng.integers(2)),
        "normalization": lambda: str(rng.choice(("l2", "root", ""))),
        "precise_upscale": lambda: bool(rng.integers(2)),
        "descriptor_layout": lambda: str(rng.choice(("skimage", "ubc", "vlfeat", "x"))),
        "pooling": lambda: [real(0.1, 8) for _ in range(rng.integers(0, 6))],
        "affine_shape": lambda: bool(rng.integers(2)),
        "dtype": lambda: str(rng.choice(("float32", "float32", "float64", "float16"))),
    }
    names = [str(name) for name in rng.permutation(list(every))[: rng.integers(0, 6)]]
    return {name: every[name]() for name in names}


def real_files() -> Path | None:
    """Return the folder of real broken files, or None."""
    data = data_folder()
    return data / "hard" if data else None
