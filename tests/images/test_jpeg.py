"""Which JPEG files another decoder than OpenCV may have, and how they are turned."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.images import decode
from gpusift.images.formats import read_header
from gpusift.images.jpeg import plain_jpeg
from tests.support.jpegs import COLOUR, SAMPLINGS, encoded, exif, with_segment


def changed(data: bytes, offset: int, value: int, marker: bytes = b"\xff\xc0") -> bytes:
    """The file with one byte of its frame header changed."""
    at = data.index(marker) + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("interval", [0, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_usual_kinds_are_plain(progressive, interval, sampling):
    data = encoded(PROGRESSIVE=progressive, RST_INTERVAL=interval, SAMPLING_FACTOR=SAMPLINGS[sampling])
    for scans in (None, read_header(data).scans):
        jpeg = plain_jpeg(data, scans=scans)
        assert (jpeg.data, jpeg.shape, jpeg.grey, jpeg.orientation) == (data, (45, 67), False, 1)


def test_grey_is_plain():
    assert plain_jpeg(encoded(COLOUR[..., 0])).grey


def test_what_comes_after_the_end_does_not_matter():
    assert plain_jpeg(encoded() + b"junk") is not None
    assert plain_jpeg(encoded() * 2) is not None  # as cameras add a preview, or a second view


def test_a_small_picture_in_exif_data_does_not_matter():
    data = with_segment(encoded(), 0xE1, exif(1) + encoded())
    assert plain_jpeg(data, scans=read_header(data).scans) is not None
    cut = data[:-2]  # the end that is left is the small picture's
    assert plain_jpeg(cut) is None


@given(share=st.floats(0, 0.9999), progressive=st.integers(0, 1))
def test_a_file_without_its_end_is_not(share, progressive):
    data = encoded(PROGRESSIVE=progressive)
    assert plain_jpeg(data[: int(share * len(data))]) is None


ADOBE = b"Adobe\0\x64\0\0\0\0"  # and the transform's number
NOT_PLAIN = {
    "12 bits": changed(encoded(), 4, 12),
    "a fourth component": changed(encoded(), 9, 4),
    "two components": changed(encoded(), 9, 2),
    "components called R, G, B": changed(changed(changed(encoded(), 10, 82), 13, 71), 16, 66),
    "RGB, as Adobe marks it": with_segment(encoded(), 0xEE, ADOBE + b"\0"),
    "odd sampling of luma": changed(encoded(), 11, 0x31),
    "sampling of chroma": changed(encoded(), 14, 0x21),
    "sampling of grey": changed(encoded(COLOUR[..., 0]), 11, 0x22),
    "extended": encoded().replace(b"\xff\xc0", b"\xff\xc1"),
    "arithmetic coding": encoded().replace(b"\xff\xc0", b"\xff\xc9"),
    "lossless": encoded().replace(b"\xff\xc0", b"\xff\xc3"),
    "two frames": with_segment(encoded(), 0xC0, encoded().partition(b"\xff\xc0")[2][2:17]),
    "no frame": encoded().replace(b"\xff\xc0", b"\xff\xec"),
    "a scan for each component": encoded().replace(b"\xff\xda\0\x0c\x03", b"\xff\xda\0\x08\x01"),
    "two scans": encoded()[:-2] + encoded()[encoded().index(b"\xff\xda") :],
    "bytes between segments": encoded()[:2] + b"\0" + encoded()[2:],
    "a restart between segments": encoded()[:2] + b"\xff\xd0" + encoded()[2:],
    "a segment shorter than its length": encoded()[:2] + b"\xff\xe2\0\0" + encoded()[2:],
    "another kind": cv2.imencode(".png", COLOUR)[1].tobytes(),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_is_rare_or_broken_is_not(kind):
    assert plain_jpeg(NOT_PLAIN[kind]) is None


def test_ycbcr_as_adobe_marks_it_is_plain():
    assert plain_jpeg(with_segment(encoded(), 0xEE, ADOBE + b"\1")) is not None


@given(data=st.binary(max_size=200))
def test_any_bytes_give_an_answer(data):
    assert plain_jpeg(b"\xff\xd8" + data) is None


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", "<>")
def test_orientation_is_opencvs(orientation, order):
    check_orientation(with_segment(encoded(COLOUR[..., 0]), 0xE1, exif(orientation, order)))


@given(
    kinds=st.lists(
        st.sampled_from([b"http://ns.adobe.com/xap/1.0/\0<x/>", *map(exif, range(10)), exif(6)[:-5], b"", b"Exif\0\0"]),
        min_size=1,
        max_size=3,
    ),
    at=st.integers(0, 40),
    value=st.integers(0, 255),
)
def test_orientation_is_opencvs_in_odd_files_too(kinds, at, value):
    """Several segments, of which some are cut, something else, or wrong in a byte."""
    data = encoded(COLOUR[..., 0])
    for body in kinds:
        if at < len(body):
            body = body[:at] + bytes([value]) + body[at + 1 :]
        data = with_segment(data, 0xE1, body)
    check_orientation(data)


def check_orientation(data: bytes) -> None:
    jpeg = plain_jpeg(data)
    stored = decode(data, "a", exif_orientation=False).image
    np.testing.assert_array_equal(jpeg.upright(stored), decode(data, "a").image)
    assert plain_jpeg(data, exif_orientation=False).orientation == 1
