"""Properties of formats that OpenCV ignores: largest values, depths, rotation and mirror, the end of the image."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gpusift.images import ImageReadError, decode
from gpusift.images.formats import read_header
from tests.support.jpegs import with_segment

RNG = np.random.default_rng(0)
SHAPE = (45, 67)
SMOOTH = cv2.normalize(cv2.GaussianBlur(RNG.random((*SHAPE, 3)), None, 2), None, 0, 1, cv2.NORM_MINMAX)
PHOTOGRAPH = (SMOOTH * 255).astype(np.uint8)

MAXIMA = (1, 2, 15, 100, 254, 255, 256, 1000, 1023, 4095, 16383, 40000, 65535)


def test_pam_of_one_bit():
    bits = RNG.integers(0, 2, (5, 9))
    data = netpbm("P7", bits, 1).replace(b"GRAYSCALE", b"BLACKANDWHITE")
    np.testing.assert_array_equal(decode(data, "a").image, bits * 255)


@pytest.mark.parametrize("maximum", [255, 1000])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_pam_of_several_channels(channels, maximum):
    """Alpha is dropped; OpenCV takes red, green, blue for blue, green, red, as it writes them, without saying so."""
    values = (np.dstack([SMOOTH, SMOOTH[..., 0]])[..., -channels:] * maximum).round().astype(np.int64)
    white = 255 if maximum < 256 else 65535
    full = ((values * white + maximum // 2) // maximum).astype(np.uint8 if white == 255 else np.uint16)
    rgb = np.dstack([full[..., 0]] * 3) if channels == 2 else np.ascontiguousarray(full[..., :3])
    got = decode(netpbm("P7", values, maximum), "a").image
    np.testing.assert_array_equal(got, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    if channels == 3 and white == 255:  # OpenCV cannot read its own of 16 bits
        theirs = cv2.imencode(".pam", full)[1].tobytes()
        np.testing.assert_array_equal(decode(theirs, "a").image, cv2.cvtColor(full, cv2.COLOR_BGR2GRAY))


def netpbm(form: str, values: np.ndarray, maximum: int, comment: bytes = b"") -> bytes:
    """A PGM or PPM file (P2, P3, P5, P6), or PAM (P7), of (M, N) or (M, N, C) values."""
    rows, columns, *channels = values.shape
    if form == "P7":
        size = b"WIDTH %d\nHEIGHT %d\nDEPTH %d\n" % (columns, rows, *(channels or [1]))
        kind = {1: b"GRAYSCALE", 2: b"GRAYSCALE_ALPHA", 3: b"RGB", 4: b"RGB_ALPHA"}[(channels or [1])[0]]
        head = b"P7\n" + comment + size + b"MAXVAL %d\nTUPLTYPE %s\nENDHDR\n" % (maximum, kind)
    else:
        head = form.encode() + b"\n" + comment + b"%d %d\n%d\n" % (columns, rows, maximum)
    if form in ("P2", "P3"):
        return head + b" ".join(b"%d" % value for value in values.ravel().tolist()) + b"\n"
    return head + values.astype("u1" if maximum < 256 else ">u2").tobytes()


@pytest.mark.parametrize("comment", [b"", b"# a comment with 255 in it\n"])
@pytest.mark.parametrize("form", ["P2", "P3", "P5", "P6", "P7", "P7 RGB"])
@pytest.mark.parametrize("maximum", MAXIMA)
def test_the_largest_value_is_white(form, maximum, comment):
    """ISO sizes of a camera's values: 10 to 14 bits in two bytes."""
    is_colour = form in ("P3", "P6", "P7 RGB")
    values = (SMOOTH[..., : 3 if is_colour else 1].squeeze() * maximum).round().astype(np.int64)
    data = netpbm(form[:2], values, maximum, comment)
    white, dtype = (255, np.uint8) if maximum < 256 else (65535, np.uint16)
    full = ((values * white + maximum // 2) // maximum).astype(dtype)
    expected = cv2.cvtColor(full, cv2.COLOR_RGB2GRAY) if is_colour else full
    got = decode(data, "a").image
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)


@given(maximum=st.integers(1, 65535), over=st.integers(0, 65535))
def test_a_value_beyond_the_largest_is_white(maximum, over):
    dtype = 255 if maximum < 256 else 65535
    values = np.array([[0, maximum, min(maximum + over, dtype)]])
    np.testing.assert_array_equal(decode(netpbm("P5", values, maximum), "a").image, [[0, dtype, dtype]])


@pytest.mark.parametrize("bits", [4, 8, 10, 12, 15, 16])
def test_jpeg2000_of_any_depth(bits):
    """OpenCV decodes 12 bits to values up to 4095, and writes 16 bits only: half the range is coded as 0."""
    values = (SMOOTH[..., 0] * ((1 << bits) - 1)).round().astype(np.int64)
    data = bytearray(cv2.imencode(".jp2", (values + (1 << 15) - (1 << bits - 1)).astype(np.uint16))[1].tobytes())
    depth = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[depth] == 15
    data[depth] = bits - 1
    for box in (b"ihdr", b"bpcc"):
        if box in data:
            at = data.index(box) + (14 if box == b"ihdr" else 4)
            data[at] = bits - 1
    if bits < 8:  # OpenCV does not decode it
        with pytest.raises(ImageReadError, match="must"):
            decode(bytes(data), "a")
        return
    white = 255 if bits <= 8 else 65535
    got = decode(bytes(data), "a").image
    assert got.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert np.abs(got - SMOOTH[..., 0] * white).max() < 0.02 * white  # it is lossy; seen: 0.012


HAS_AVIF = pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason=f"OpenCV {cv2.__version__} has no AVIF")


def avif(orientation: int, image: np.ndarray = PHOTOGRAPH) -> bytes:
    """Pillow writes an orientation as a rotation and a mirror of the picture."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.fromarray(image).save(file, "avif", exif=exif, quality=100, subsampling="4:4:4")
    return file.getvalue()


@HAS_AVIF
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_and_mirror_of_avif(orientation):
    data = avif(orientation)
    theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L")).astype(int)
    for exif_orientation in (True, False):  # they are the picture's own
        got = decode(data, "a", exif_orientation=exif_orientation).image
        assert got.shape == theirs.shape
        assert np.abs(got - theirs).max() <= 3  # seen: 2


@HAS_AVIF
def test_broken_metadata_of_avif():
    data = avif(6)
    at = data.index(b"ipma")
    for end in (at + 8, at + 12):
        with pytest.raises(ImageReadError, match="must"):
            decode(data[:end], "a")
    at = data.index(b"irot")
    with pytest.raises(ImageReadError, match=r"must not be cropped by its metadata \(clap\)"):
        decode(data[:at] + b"clap" + data[at + 4 :], "a")


@HAS_AVIF
@pytest.mark.parametrize("depth", [10, 12])
def test_avif_of_more_than_8_bits(depth):
    values = (SMOOTH * ((1 << depth) - 1)).astype(np.uint16)
    data = cv2.imencode(".avif", values, [cv2.IMWRITE_AVIF_DEPTH, depth, cv2.IMWRITE_AVIF_QUALITY, 100])[1].tobytes()
    got = decode(data, "a").image
    expected = cv2.cvtColor(SMOOTH[..., ::-1].astype(np.float32), cv2.COLOR_RGB2GRAY)
    assert np.abs(got / np.iinfo(got.dtype).max - expected).max() < 0.02


def jpeg(**options: int) -> bytes:
    flags = [value for name, chosen in options.items() for value in (getattr(cv2, f"IMWRITE_JPEG_{name}"), chosen)]
    return cv2.imencode(".jpg", PHOTOGRAPH, flags)[1].tobytes()


AFTER_THE_END = {
    "a motion photo's film": b"\xff\xda\0\x0c" * 100_000,
    "other pictures": jpeg() * 300,
    "maker notes": bytes(RNG.integers(0, 256, 1 << 20, dtype=np.uint8)),
}


@pytest.mark.parametrize("kind", AFTER_THE_END)
@pytest.mark.parametrize("progressive", [0, 1])
def test_data_after_the_end_of_a_jpeg_are_no_scans(kind, progressive):
    data = jpeg(PROGRESSIVE=progressive, RST_INTERVAL=3)
    longer = data + AFTER_THE_END[kind]
    assert read_header(longer) == read_header(data)
    np.testing.assert_array_equal(decode(longer, "a", max_pixels=5000).image, decode(data, "a").image)


def test_thumbnails_in_segments_of_a_jpeg_are_no_scans():
    data = jpeg(PROGRESSIVE=1)
    preview = b"Exif\0\0" + jpeg(PROGRESSIVE=1)
    with_previews = data
    for _ in range(50):
        with_previews = with_segment(with_previews, 0xE2, preview)
    assert read_header(with_previews) == read_header(data)


@pytest.mark.parametrize("fill", [b"", b"\xff" * 9, b"\1\2\3"])
def test_scans_are_found_behind_what_decoders_skip(fill):
    data = jpeg(PROGRESSIVE=1)
    last = data[data.rindex(b"\xff\xc4") : -2]
    many = data[:-2] + (fill + last) * 30 + data[-2:]
    assert read_header(many).scans == read_header(data).scans + 30
