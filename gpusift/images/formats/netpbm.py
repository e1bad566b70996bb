"""The formats of Netpbm: PBM, PGM and PPM ("PNM"), PAM, and PFM.

A PGM, PPM or PAM file names its largest value, which is white: 4095 for a camera of 12 bits. OpenCV decodes values as
they are stored, so they are scaled to the range of their dtype here.
"""

from __future__ import annotations

import re

import numpy as np

from gpusift.images.codec import imdecode
from gpusift.images.formats.header import HeaderError, Sizes
from gpusift.images.full_range import to_full_range

# Numbers are searched for in this many bytes.
TEXT_BYTES = 1 << 16
MAX_VALUE = 65535

# As in OpenCV, any single character ends a number of a PNM header.
_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})\D"
_PNM = re.compile(rb"P([1-6])" + _NUMBER + _NUMBER, re.DOTALL)
_PNM_MAXIMUM = re.compile(_NUMBER, re.DOTALL)
_PFM = re.compile(rb"P.\s\+?(\d{1,10})(?!\d)\S*\s\+?(\d{1,10})(?!\d)", re.DOTALL)
_PAM_FIELD = re.compile(rb"(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,10})(?=\s)")
_RGB = re.compile(rb"TUPLTYPE\s+RGB(_ALPHA)?\s")
BILEVEL = (b"1", b"4")


def pnm_sizes(data: bytes) -> Sizes:
    """Read the size in a PNM header."""
    match = _PNM.match(data[:TEXT_BYTES])
    if match:
        if match[1] not in BILEVEL:
            _maximum_of(_PNM_MAXIMUM.match(data[:TEXT_BYTES], match.end()))
        yield int(match[3]), int(match[2])


def pfm_sizes(data: bytes) -> Sizes:
    """Read the size in a PFM header."""
    match = _PFM.match(data[:TEXT_BYTES])
    if match:
        yield int(match[2]), int(match[1])


def _pam_fields(data: bytes) -> dict[bytes, re.Match[bytes]]:
    """Find the fields of a PAM header; comments are blanked out, so that offsets stay."""
    text = re.sub(rb"#[^\r\n]*", lambda comment: b" " * len(comment[0]), data[:TEXT_BYTES]).partition(b"ENDHDR")[0]
    return {match[1]: match for match in _PAM_FIELD.finditer(text)}


def pam_sizes(data: bytes) -> Sizes:
    """Read the size and depth in a PAM header."""
    fields = _pam_fields(data)
    _maximum_of(fields[b"MAXVAL"], group=2)
    yield int(fields[b"HEIGHT"][2]), int(fields[b"WIDTH"][2]), int(fields[b"DEPTH"][2])


def _maximum_of(match: re.Match[bytes] | None, group: int = 1) -> int:
    maximum = int(match[group]) if match else 0
    if not 1 <= maximum <= MAX_VALUE:
        raise HeaderError(f"must have a largest value (maxval) from 1 to {MAX_VALUE}, got {maximum}")
    return maximum


def pnm_decode(data: bytes, exif_orientation: bool) -> np.ndarray:
    """Decode a PNM file; see `gpusift.images.codec.imdecode`."""
    head = _PNM.match(data[:TEXT_BYTES])
    if head is None or head[1] in BILEVEL:
        return imdecode(data, exif_orientation)
    return _decode(data, _PNM_MAXIMUM.match(data[:TEXT_BYTES], head.end()), 1)


def pam_decode(data: bytes, exif_orientation: bool) -> np.ndarray:
    """Decode a PAM file; see `gpusift.images.codec.imdecode`."""
    image = _decode(data, _pam_fields(data)[b"MAXVAL"], 2)
    if image.ndim == 2 or image.shape[2] == 2:
        return image if image.ndim == 2 else image[..., 0]
    colours = image[..., :3]
    # OpenCV keeps the order in which colours are stored. It writes blue, green, red itself, without a type.
    return colours[..., ::-1] if _RGB.search(data[:TEXT_BYTES].partition(b"ENDHDR")[0]) else colours


def _decode(data: bytes, match: re.Match[bytes] | None, group: int) -> np.ndarray:
    """Have OpenCV decode the values with the largest value of their dtype in the header, and scale them."""
    maximum = _maximum_of(match, group)
    assert match is not None
    whole = b"255" if maximum < 256 else b"65535"
    if int(whole) != maximum:
        data = data[: match.start(group)] + whole + data[match.end(group) :]
    return to_full_range(imdecode(data, exif_orientation=False, unchanged=True), maximum)
