"""Reading photographs: what the decoders do with each kind of file, and finding the files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift.images import ImageReadError, decode, find_images, read_image
from gpusift.images.stderr import decoder_messages, without_prefix
from tests.support.orientations import UPRIGHT

RNG = np.random.default_rng(0)


def samples(dtype: str, shape: tuple[int, ...] = (45, 67)) -> np.ndarray:
    values = RNG.random(shape)
    return values.astype(dtype) if dtype[0] == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def write(path: Path, image: np.ndarray, *options: int) -> Path:
    if path.suffix == ".tif":  # old versions of OpenCV have a lossy default for float colour
        options = (cv2.IMWRITE_TIFF_COMPRESSION, 5)
    ok, data = cv2.imencode(path.suffix, image, list(options))
    assert ok
    path.write_bytes(data.tobytes())  # cv2.imwrite would not take every name
    return path


def exif(orientation: int) -> bytes:
    """A TIFF structure with nothing but the orientation, little-endian."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(s, "uint8") for s in (".png", ".tif", ".bmp", ".pgm", ".webp")]
    + [(s, "uint16") for s in (".png", ".tif", ".pgm")]
    + [(s, "float32") for s in (".tif", ".pfm")]
    + [(".tif", "float64")],
)
def test_grey_comes_back_exactly_in_its_depth(tmp_path, suffix, dtype):
    image = samples(dtype)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    got = read_image(write(tmp_path / f"a{suffix}", image, *options))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", "uint8"), (".png", "uint16"), (".tif", "float32")])
def test_colour_becomes_grey_as_in_opencv(tmp_path, suffix, dtype):
    image = samples(dtype, (45, 67, 3))
    got = read_image(write(tmp_path / f"a{suffix}", image))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def test_float64_colour_has_the_same_weights(tmp_path):
    image = samples("float64", (45, 67, 3))
    got = read_image(write(tmp_path / "a.tif", image))
    assert got.dtype == np.float64
    expected = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2GRAY)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_dropped(tmp_path, dtype):
    image = samples(dtype, (45, 67, 4))
    got = read_image(write(tmp_path / "a.png", image))
    np.testing.assert_array_equal(got, cv2.cvtColor(image[..., :3].copy(), cv2.COLOR_BGR2GRAY))


def test_colour_of_a_depth_without_a_grey_is_refused(tmp_path):
    write(tmp_path / "a.tif", samples("int32", (45, 67, 3)))
    with pytest.raises(ImageReadError, match=r"a\.tif: a colour image must be .* but this one is int32"):
        read_image(tmp_path / "a.tif")


def test_bilevel_and_palette(tmp_path):
    bits = RNG.random((5, 16)) < 0.5
    (tmp_path / "a.pbm").write_bytes(b"P4 16 5\n" + np.packbits(~bits, axis=1).tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.pbm"), np.where(bits, 255, 0))

    colours = samples("uint8", (4, 3))  # red, green, blue
    index = RNG.integers(0, 4, (5, 8), dtype=np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in index)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 5, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", colours.tobytes())
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    expected = cv2.cvtColor(colours[index], cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_the_first_of_several_pages_is_taken(tmp_path):
    pages = [samples("uint8"), samples("uint8")]
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pages[0])


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation(tmp_path, suffix, orientation):
    path = write(tmp_path / f"a{suffix}", cv2.GaussianBlur(samples("uint8"), None, 2))
    stored = read_image(path)
    data = path.read_bytes()
    if suffix == ".jpg":  # after the start-of-image marker
        segment = b"Exif\0\0" + exif(orientation)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    else:  # after the header chunk
        data = data[:33] + chunk(b"eXIf", exif(orientation)) + data[33:]
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](stored))
    np.testing.assert_array_equal(read_image(path, exif_orientation=False), stored)


@pytest.mark.parametrize("name", ["grüße 画像.png", "with space [1].png", os.fsdecode(b"not-utf8-\xff.png")])
def test_any_file_name(tmp_path, name):
    image = samples("uint8")
    np.testing.assert_array_equal(read_image(write(tmp_path / name, image)), image)


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".png", "uint8"), (".jpg", "uint8"), (".tif", "uint16"), (".webp", "uint8"), (".bmp", "uint8"),
     (".pgm", "uint8"), (".pfm", "float32"), (".jp2", "uint8")],
)  # fmt: skip
@given(share=st.floats(0, 0.999))
@settings(max_examples=15, deadline=None)
def test_truncated(tmp_path_factory, suffix, dtype, share):
    path = write(tmp_path_factory.mktemp("truncated") / f"a{suffix}", samples(dtype))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageReadError, match="must"):
        read_image(path)


@given(rows=st.integers(1, 90), columns=st.integers(1, 90), max_size=st.integers(1, 100))
@settings(max_examples=40)
def test_max_size(rows, columns, max_size):
    data = cv2.imencode(".png", samples("uint8", (rows, columns)))[1].tobytes()
    decoded = decode(data, "a", max_size=max_size)
    longer = max(rows, columns)
    assert decoded.shape == (rows, columns)
    assert max(decoded.image.shape) == min(longer, max_size)
    assert decoded.scale == min(1, max_size / longer)
    for side, given_side in zip(decoded.image.shape, decoded.shape):
        assert abs(side - given_side * decoded.scale) <= 0.5 or side == 1


def test_a_smaller_image_is_the_mean_of_its_pixels_and_positions_go_back():
    image = samples("uint8", (60, 90))
    decoded = decode(cv2.imencode(".png", image)[1].tobytes(), "a", max_size=30)
    np.testing.assert_allclose(decoded.image, image.reshape(20, 3, 30, 3).mean((1, 3)), atol=0.51)

    rows, columns = np.mgrid[:61, :97]
    blob = np.exp(-((rows - 22.5) ** 2 + (columns - 71) ** 2) / 50).astype(np.float32)
    small = decode(cv2.imencode(".pfm", blob)[1].tobytes(), "a", max_size=40).image
    middle = np.array([np.average(grid, weights=small) for grid in np.mgrid[: small.shape[0], : small.shape[1]]])
    back = (middle + 0.5) * blob.shape / small.shape - 0.5
    np.testing.assert_allclose(back, (22.5, 71), atol=0.05)  # worst seen: 0.01


def test_max_size_is_of_the_picture_as_it_is_turned(tmp_path):
    data = write(tmp_path / "a.jpg", samples("uint8", (20, 60))).read_bytes()
    segment = b"Exif\0\0" + exif(6)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    decoded = decode(data, "a", max_size=30)
    assert (decoded.shape, decoded.image.shape) == ((60, 20), (30, 10))


def test_a_depth_that_cannot_be_made_smaller_is_refused():
    data = cv2.imencode(".tif", samples("int32"))[1].tobytes()
    assert decode(data, "a").image.dtype == np.int32
    with pytest.raises(ImageReadError, match=r"a: must be uint8, .* to be made smaller, but it is int32"):
        decode(data, "a", max_size=20)


def test_not_an_image(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"<!DOCTYPE html><p>404</p>")
    with pytest.raises(ImageReadError, match=r"a\.jpg: must be a whole image"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ImageReadError, match="empty"):
        read_image(path)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((65535, 65535), "at most 500000000 pixels .* declares 65535 x 65535"),
        ((2**31 - 1, 1), "at most 500000000 pixels"),
        ((2**21, 1), "whole image"),
        ((0, 5), "says how large"),
    ],
)
def test_absurd_size(tmp_path, size, reason):
    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))
    with pytest.raises(ImageReadError, match=reason):
        read_image(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "a.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_decoder_messages_are_collected_and_stderr_comes_back(tmp_path, capfd):
    path = write(tmp_path / "a.png", samples("uint8"))
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # the checksum of the pixels
    path.write_bytes(data)
    with pytest.raises(ImageReadError), decoder_messages() as messages:
        read_image(path)
    os.write(2, b"after\n")
    assert messages
    assert not any("[" in message for message in messages)
    assert capfd.readouterr().err == "after\n"


def test_a_message_without_its_prefix():
    line = "[ WARN:0@0.356] global grfmt_png.cpp:793 readFromStreamOrBuffer PNG input buffer is incomplete \n"
    assert without_prefix(line) == "PNG input buffer is incomplete"
    assert without_prefix("libpng error: Read Error\n") == "libpng error: Read Error"


def tree(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["p"], ["a.png", "b.JPG", "s/a.png", "s/t/a.tif"]),
        (["p/"], ["a.png", "b.JPG", "s/a.png", "s/t/a.tif"]),
        (["p/s", "q"], ["p/s/a.png", "p/s/t/a.tif", "q/a.png"]),
        (["p/a.png"], ["a.png"]),
        (["p/a.png", "p/s/a.png"], ["a.png", "s/a.png"]),
        (["p/a.png", "p"], ["a.png", "b.JPG", "s/a.png", "s/t/a.tif"]),
        (["p/a.png", "q/a.png"], ["p/a.png", "q/a.png"]),
        (["p/note.txt"], ["note.txt"]),
        (["p/*.png"], ["a.png"]),
        (["p/*"], ["a.png", "b.JPG", "s/a.png", "s/t/a.tif"]),
        (["*/a.png"], ["p/a.png", "q/a.png"]),
        (["p/**/a.*"], ["a.png", "s/a.png", "s/t/a.tif"]),
        (["[a].png"], ["[a].png"]),
    ],
)
def test_names(tmp_path, monkeypatch, paths, names):
    tree(tmp_path, "p/a.png", "p/b.JPG", "p/note.txt", "p/s/a.png", "p/s/t/a.tif", "q/a.png")
    tree(tmp_path, "[a].png", "p/.hidden.png", "p/.thumbs/a.png")
    monkeypatch.chdir(tmp_path)
    found = find_images(paths)
    assert list(found.images) == names
    assert not found.failures
    assert all(path.is_absolute() and path.exists() for path in found.images.values())
    assert all(path.as_posix().endswith(name) for name, path in found.images.items())


def test_root(tmp_path):
    tree(tmp_path, "p/s/a.png")
    assert list(find_images([f"{tmp_path}/p/s"], root=str(tmp_path)).images) == ["p/s/a.png"]
    with pytest.raises(ValueError, match="under root"):
        find_images([f"{tmp_path}/p/s"], root=f"{tmp_path}/q")


def test_paths_that_give_nothing_are_failures(tmp_path):
    tree(tmp_path, "a.png", "note.txt")
    paths = [f"{tmp_path}/{name}" for name in ("none.png", "*.tif", "*.txt", "a.png")]
    found = find_images(paths)
    assert list(found.images) == ["a.png"]
    assert [path for path, _ in found.failures] == paths[:3]


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path, monkeypatch):
    tree(tmp_path, "a.png", "s/b.png")
    scandir = os.scandir

    def refuse(path):  # a mode of 0 would not keep root out
        if os.path.basename(path) == "s":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_images([str(tmp_path)])
    assert list(found.images) == ["a.png"]
    assert found.failures == [(str(tmp_path / "s"), "Permission denied")]


def test_opencv_is_imported_when_needed():
    code = "import gpusift.images, sys; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
