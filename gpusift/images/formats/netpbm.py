"""The formats of Netpbm: PBM, PGM and PPM ("PNM"), PAM, and PFM."""

from __future__ import annotations

import re
from collections.abc import Callable

from gpusift.images.formats.header import Sizes

# Numbers are searched for in this many bytes.
TEXT_BYTES = 1 << 16

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])*"


def _two_numbers(form: bytes) -> Callable[[bytes], Sizes]:
    """Return a reader of columns and rows that stand in text."""
    pattern = re.compile(form, re.DOTALL)

    def sizes(data: bytes) -> Sizes:
        match = pattern.match(data[:TEXT_BYTES])
        if match:
            yield int(match[2]), int(match[1])

    return sizes


# As in OpenCV, any single character ends a number of a PNM header.
pnm_sizes = _two_numbers(rb"P." + _SPACE + rb"(\d{1,10})\D" + _SPACE + rb"(\d{1,10})\D")
pfm_sizes = _two_numbers(rb"P.\s\+?(\d{1,10})(?!\d)\S*\s\+?(\d{1,10})(?!\d)")


def pam_sizes(data: bytes) -> Sizes:
    """Read the size and depth of a PAM header."""
    text = re.sub(rb"#[^\r\n]*", b"", data[:TEXT_BYTES]).partition(b"ENDHDR")[0]
    fields = {name: int(value) for name, value in re.findall(rb"(WIDTH|HEIGHT|DEPTH)\s+(\d{1,10})\s", text)}
    yield fields[b"HEIGHT"], fields[b"WIDTH"], fields[b"DEPTH"]
