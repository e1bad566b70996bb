"""Files that mean harm, or are just broken: features or an error, and never a crash, a hang or much memory."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.common.photographs import data_folder
from gpusift import SIFT
from gpusift.images import ImageReadError, decode, read_image
from gpusift.images.formats import HeaderError, read_header
from tests.support.checkout import run_module

DATA = data_folder()
HARD = DATA / "hard" if DATA else None
MEMORY = 64 << 20  # bytes that refusing a file may take


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(columns: int, rows: int) -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg(columns: int, rows: int) -> bytes:
    """A small photograph's JPEG whose header says something else."""
    data = bytearray(encoded(".jpg"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, rows, columns)
    return bytes(data)


def tiff(tags: dict[int, int], order: str = "<", big: bool = False) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    if big:
        entries = b"".join(struct.pack(order + "HHQQ", tag, 16, 1, value) for tag, value in sorted(tags.items()))
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16) + struct.pack(order + "Q", len(tags))
        return head + entries + bytes(8)
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def picture(columns: int, rows: int, **more: int) -> dict[int, int]:
    names = {"samples": 277, "tile_columns": 322, "tile_rows": 323}
    plain = {256: columns, 257: rows, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows, 279: 64}
    return plain | {names[name]: value for name, value in more.items()}


def webp(columns: int, rows: int) -> bytes:
    """A small picture on a large canvas."""
    small = encoded(".webp")[12:]
    canvas = (
        b"VP8X" + struct.pack("<II", 10, 2) + (columns - 1).to_bytes(3, "little") + (rows - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(small)) + b"WEBP" + canvas + small


def jpeg2000(columns: int, rows: int, tile: int, channels: int = 1) -> bytes:
    data = bytearray(encoded(".jp2"))
    data = data[data.index(b"\xff\x4f\xff\x51") :]
    struct.pack_into(">8IH", data, 8, columns, rows, 0, 0, tile, tile, 0, 0, channels)
    return bytes(data)


def with_precincts(data: bytes, levels: int, exponent: int) -> bytes:
    """The same codestream, with so many halvings and precincts of so many samples, as a power of 2."""
    at = data.index(b"\xff\x52")
    style = struct.pack(">HHB4s5B", 0xFF52, 12 + levels + 1, 1, data[at + 5 : at + 9], levels, 4, 4, 0, 1)
    return data[:at] + style + bytes([exponent * 17] * (levels + 1)) + data[at + 14 :]


def with_layers(data: bytes, layers: int) -> bytes:
    """The same codestream, with another number of layers."""
    at = data.index(b"\xff\x52")
    return data[: at + 6] + struct.pack(">H", layers) + data[at + 8 :]


def tiff_of_one_strip(rows: int, strips: int) -> bytes:
    """A picture of many strips, all of which are the same bytes."""
    tags = picture(64, rows * strips) | {278: rows, 273: 2000, 279: 2000 + 4 * strips}
    data = tiff(tags).replace(struct.pack("<HHII", 273, 4, 1, 2000), struct.pack("<HHII", 273, 4, strips, 2000))
    sizes = struct.pack("<HHII", 279, 4, 1, 2000 + 4 * strips)
    data = data.replace(sizes, sizes[:4] + struct.pack("<II", strips, 2000 + 4 * strips)).ljust(2000, b"\0")
    return data + struct.pack("<I", 8) * strips + struct.pack("<I", 2000) * strips


def jp2_with_decoy(columns: int, rows: int) -> bytes:
    """A file whose picture comes after a box that looks like a small one."""
    data = encoded(".jp2")
    decoy = jpeg2000(8, 8, 8)[:200]
    picture = jpeg2000(columns, rows, columns)
    boxes = (
        struct.pack(">I4s", 8 + len(decoy), b"xml ") + decoy + struct.pack(">I4s", 8 + len(picture), b"jp2c") + picture
    )
    return data[: data.index(b"jp2c") - 4] + boxes


def avif(columns: int, rows: int) -> bytes:
    size = struct.pack(">I4sIII", 20, b"ispe", 0, columns, rows)
    inner = struct.pack(">I4s", 16 + len(size), b"iprp") + struct.pack(">I4s", 8 + len(size), b"ipco") + size
    kind = struct.pack(">I4s4sI4s", 20, b"ftyp", b"avif", 0, b"avif")
    return kind + struct.pack(">I4sI", 12 + len(inner), b"meta", 0) + inner


def encoded(suffix: str, shape: tuple[int, ...] = (48, 64)) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def exr(columns: int, rows: int) -> bytes:
    window = b"dataWindow\0box2i\0" + struct.pack("<I4i", 16, 0, 0, columns - 1, rows - 1)
    return b"v/1\x01" + struct.pack("<I", 2) + window + b"\0"


N = 65535
HUGE = {
    "png": png(N, N),
    "png, the most": png(2**31 - 1, 2**31 - 1),
    "jpeg": jpeg(N, N),
    "jpeg, after comments": jpeg(N, N)[:2] + b"\xff\xfe\x40\x00" + bytes(0x3FFE) + jpeg(N, N)[2:],
    "tiff": tiff(picture(N, N)),
    "tiff, big-endian": tiff(picture(N, N), order=">"),
    "bigtiff": tiff(picture(N, N), big=True),
    "bigtiff, 64 bits": tiff(picture(2**40, 2**40), big=True),
    "tiff, tiles": tiff(picture(8, 8, tile_columns=N, tile_rows=N)),
    "webp": webp(2**14 * 4, N),
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, N, -N, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99),
    "bmp, old": b"BM" + struct.pack("<IIIIHHHH", 99, 0, 26, 12, N, N, 1, 24) + bytes(99),
    "gif": b"GIF89a" + struct.pack("<HHBBB", N, N, 0, 0, 0) + encoded(".gif", (48, 64, 3))[13:],
    "pgm": b"P5 %d %d 255\n" % (N, N) + bytes(99),
    "pbm": b"P4\n# a comment\r#another\n%d\t%d\n" % (N, N) + bytes(99),
    "pgm, a comment that is none": b"P5 10000#%d 10 255\n" % N + bytes(99),
    "pam": b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 1\nMAXVAL 255\nENDHDR\n" % (N, N) + bytes(99),
    "pfm": b"Pf\n%d %d\n-1\n" % (N, N) + bytes(99),
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (N, N) + bytes(99),
    "sun": struct.pack(">8I", 0x59A66A95, N, N, 24, 0, 1, 0, 0) + bytes(99),
    "jpeg 2000": jpeg2000(N, N, N),
    "jpeg 2000, after a decoy": jp2_with_decoy(N, N),
    "jpeg 2000, tiny tiles": jpeg2000(16000, 16000, 32),
    "avif": avif(N, N),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_header_is_refused(kind):
    with pytest.raises(ImageReadError, match=r"must have at most 500000000 pixels \(max_pixels\), but its .* declares"):
        decode(HUGE[kind], "a")


LIES = {
    "no size": (png(0, 5), "says how large"),
    "a chunk beyond the end": (png(9, 9)[:33] + b"\x47\0\0\0IDAT" + bytes(9), "must be a whole PNG file"),
    "another first chunk": (png(9, 9)[:8] + chunk(b"tEXt", b"a\0b" + bytes(9)) + png(9, 9)[8:], "begins with an IHDR"),
    "few bytes for many pixels": (jpeg(20000, 20000), "bytes cannot hold 20000 x 20000"),
    "a height that comes later": (jpeg(20000, 0), "says how large"),
    "an offset beyond everything": (b"II+\0\x08\0\0\0" + b"\xff" * 7 + b"\x80", "whole header of a TIFF"),
    "no entries": (tiff({}), "says how large"),
    "many samples": (tiff(picture(8, 8, samples=N)), "at most 4 samples"),
    "samples that overflow": (b"P7\nWIDTH 4\nHEIGHT 4\nDEPTH 1073741824\nMAXVAL 9\nENDHDR\n" + bytes(99), "at most 4"),
    "many components": (jpeg2000(8, 8, 8, channels=16384), "at most 4 samples"),
    "tiny precincts": (with_precincts(jpeg2000(4000, 4000, 4000), 5, 1), "bytes cannot hold .* packets"),
    "tiny precincts in one resolution": (with_precincts(jpeg2000(2000, 2000, 2000), 0, 0), "cannot hold .* packets"),
    "layers beyond the end": (with_layers(jpeg2000(200, 200, 50), 65535), "bytes cannot hold .* packets"),
    "strips that share their bytes": (tiff_of_one_strip(64, 400), "must be a whole TIFF file, but its strips add up"),
    "strips without bytes": (tiff(picture(8, 8) | {278: 1}), "must have 8 strips or tiles, but .* locates 1"),
    "many entries": (tiff(picture(8, 8) | dict.fromkeys(range(600, 5600), 0)), "must have at most 4096 entries"),
    "a largest value of 0": (b"P5 4 4 0\n" + bytes(16), "must have a largest value .* got 0"),
    "a largest value of more than 16 bits": (b"P5 4 4 65536\n" + bytes(32), "must have a largest value"),
    "no components": (jpeg2000(8, 8, 8, channels=0), "must have at least one component"),
    "a header that ends before its depths": (jpeg2000(8, 8, 8)[:42], "must"),
    "no tiles": (jpeg2000(8, 8, 0), "."),
    "numbers without end": (b"P5 " + b"1" * 9999 + b" 1 255\n", "says how large"),
    "spaces without end": (b"P5 " + b" " * (1 << 20) + b"1 1 255\n\0", "says how large"),
    "zeros before a size": (b"Pf\n0000000001999999 1\n-1\n" + bytes(99), "says how large"),
    "text": (b"<html>", "must be a whole image of a kind"),
    "vector graphics": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "of a kind"),
    "a pickle": (b"\x80\x04\x95" + bytes(99), "of a kind"),
    "nothing": (b"", "it is empty"),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_header_that_makes_no_sense_is_refused(kind):
    data, reason = LIES[kind]
    with pytest.raises(ImageReadError, match=reason):
        decode(data, "a")


def test_refusing_takes_no_memory():
    """In a process of its own, whose peak says what was made room for."""
    code = (
        "import resource\n"
        "from tests.images.test_hostile import *\n"
        "decode(encoded('.png'), 'a')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "start = peak()\n"
        "for data in [*HUGE.values(), *(data for data, _ in LIES.values())]:\n"
        "    try: decode(data, 'a'); print('decoded', data[:20])\n"
        "    except ImageReadError: pass\n"
        "print(peak() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEMORY


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif", ".jp2", ".avif", ".hdr", ".ras"])
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), colour=st.booleans())
@settings(max_examples=12)
def test_headers_say_what_opencv_decodes(suffix, rows, columns, colour):
    if suffix == ".jp2":  # smaller ones are not written
        rows, columns = rows + 31, columns + 31
    data = encoded(suffix, (rows, columns, 3) if colour or suffix == ".gif" else (rows, columns))
    header = read_header(data)
    tables = 1 << 12
    assert (header.rows, header.columns) == (rows, columns) or (suffix == ".jp2" and header.pixels == tables)
    assert decode(data, "a").shape == (rows, columns)


@pytest.mark.parametrize(
    "form", ["P5 %d %d 255\n", "P5\n#c\n%d\r\n# d\n%d\t255\n", "P6\n%d %d 255\n", "P4 %d\n%d\n", "Pf\n%d %d\n-1\n"]
)
def test_text_headers_say_what_opencv_decodes(form):
    data = (form % (17, 9)).encode() + bytes(4 * 17 * 9)
    assert (read_header(data).rows, read_header(data).columns) == decode(data, "a").shape == (9, 17)


@given(data=st.binary(max_size=200), magic=st.sampled_from([data[:8] for data in HUGE.values()]))
@settings(max_examples=300)
def test_any_bytes_have_a_header_or_an_error(data, magic):
    with contextlib.suppress(HeaderError):
        assert read_header(magic + data).pixels > 0


def test_a_format_without_bounds_must_be_allowed():
    for kind, data in (("OpenEXR", exr(9, 9)), ("JPEG XL", b"\xff\x0a" + bytes(99))):
        with pytest.raises(ImageReadError, match=rf"but it is {kind}; .* --allow-format"):
            decode(data, "a")
        with pytest.raises(ImageReadError, match="must be a"):  # of OpenCV
            decode(data, "a", allow_formats=[kind])
    with pytest.raises(ImageReadError, match="at most 500000000 pixels"):
        decode(exr(N, N), "a", allow_formats=["OpenEXR"])


def test_directories_of_a_tiff_that_loop():
    """Only the main picture's directory is decoded, so neither loops nor their number matter."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    data = bytearray(cv2.imencode(".tif", image)[1].tobytes())
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * entries, at)  # it is its own next one
    np.testing.assert_array_equal(decode(bytes(data), "a").image, image)
    reduced = tiff({254: 1} | picture(8, 8))
    loop = bytearray(reduced)
    struct.pack_into("<I", loop, len(loop) - 4, 8)
    assert read_header(bytes(loop)).rows == 8


def test_a_tag_that_comes_twice_counts_once():
    """The first one does, for our bounds and, as it gets no other, for the decoder."""
    twice = tiff({255: 0} | picture(8, 8)).replace(
        struct.pack("<HHII", 262, 4, 1, 1), struct.pack("<HHII", 262, 4, 1, 1) + struct.pack("<HHII", 256, 4, 1, 2**30)
    )
    twice = twice[:8] + struct.pack("<H", struct.unpack_from("<H", twice, 8)[0] + 1) + twice[10:]
    assert read_header(twice).columns == 8


ANCILLARY = {
    "text": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 23), 9)),
    "international text": chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(1 << 23), 9)),
    "a profile": chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1 << 23), 9)),
    "frames": chunk(b"acTL", struct.pack(">II", 1 << 30, 0)) + chunk(b"fdAT", bytes(99)),
    "an unknown chunk": chunk(b"abCd", bytes(1 << 20)),
}


@pytest.mark.parametrize("kind", ANCILLARY)
def test_libpng_gets_only_what_pixels_are_made_of(kind, monkeypatch):
    """It inflates text and profiles, without a bound for all together."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    imdecode, decoded = cv2.imdecode, []

    def kept(file, flags):
        decoded.append(file.tobytes())
        return imdecode(file, flags)

    monkeypatch.setattr(cv2, "imdecode", kept)
    np.testing.assert_array_equal(decode(data[:33] + ANCILLARY[kind] * 300 + data[33:] + bytes(99), "a").image, image)
    assert decoded == [data]


def test_max_pixels_is_exact():
    data = encoded(".png", (48, 64))
    assert decode(data, "a", max_pixels=48 * 64).shape == (48, 64)
    with pytest.raises(
        ImageReadError, match=r"at most 3071 pixels \(max_pixels\), but its PNG header declares 64 x 48"
    ):
        decode(data, "a", max_pixels=48 * 64 - 1)


def test_a_jpeg_of_many_scans_is_refused():
    """Each goes over all pixels again, and takes a few bytes only."""
    image = np.full((2000, 2000), 128, np.uint8)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert decode(data, "a").shape == (2000, 2000)
    last = data[data.rindex(b"\xff\xc4") : -2]  # tables and a scan
    assert decode(data[:-2] + last * 10 + data[-2:], "a", max_pixels=4_000_000).shape == (2000, 2000)
    with pytest.raises(
        ImageReadError, match=r"must not have so many scans \(max_scans\), but 2000 x 2000 pixels come in"
    ):
        decode(data[:-2] + last * 100 + data[-2:], "a", max_pixels=4_000_000)


def test_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")  # reading it would wait for a writer
    with pytest.raises(OSError, match="must be a regular file"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="must be a regular file"):
        read_image(tmp_path / "b.jpg")
    with open(tmp_path / "c.jpg", "wb") as file:
        file.truncate(1 << 40)  # no byte of it is on the disk
    with pytest.raises(OSError, match="must have at most 1073741824 bytes"):
        read_image(tmp_path / "c.jpg")


@pytest.mark.skipif(not (HARD and HARD.is_dir()), reason="GPUSIFT_DATA names no folder with real broken files")
def test_real_hard_files(device):
    sift = SIFT(device=device)
    refused = {}
    for path in sorted(HARD.rglob("*")):
        if path.is_file():
            try:
                features = sift.compute(read_image(path)).to_host()
            except ImageReadError as error:
                refused[path.name] = error.reason
            else:
                assert np.isfinite(features.positions).all()
    assert all(reason.startswith("must ") for reason in refused.values())
    assert {"max_size.jpg", "empty.jpg", "seek_too_large.tif", "negative_size.ppm"} <= refused.keys()
    assert not {"u16.png", "pil_sample_cmyk.jpg", "tiny_1x1.png", "jpg-progressive.jpg"} & refused.keys()


def test_short_fuzz(tmp_path, monkeypatch):
    monkeypatch.delenv("GPUSIFT_DATA", raising=False)
    done = run_module("bench.jobs.fuzz", "--inputs", 700, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads((tmp_path / "fuzz.jsonl").read_text())
    assert row["inputs"] == sum(sum(outcomes.values()) for outcomes in row["outcomes"].values()) == 700
    assert row["findings"] == []
    for kind, outcomes in row["outcomes"].items():
        assert outcomes["features"] > 0, kind
        assert outcomes["refused"] > 0, kind


def misbehave(connection, seed, device, messages):
    """A child that crashes at input 1, sleeps at 2, and answers any other."""
    connection.send(None)
    while (number := connection.recv()) is not None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 2:
            time.sleep(1000)
        connection.send(("png", "refused"))


@pytest.mark.parametrize(
    ("number", "outcome"), [(1, "crash: exit code -11"), (2, "hang: no end after 0.1 s of waiting")]
)
def test_fuzz_notices_crashes_and_hangs(number, outcome):
    from bench.jobs.fuzz import Child

    watched = Child(argparse.Namespace(seed=0, device="cpu"), target=misbehave)
    assert watched.run(0, timeout=60) == ("png", "refused")
    assert watched.run(number, timeout=0.1) == ("?", outcome)
    assert not watched.process.is_alive()
