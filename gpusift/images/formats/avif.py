"""AVIF (AV1 in HEIF, ISO/IEC 23008-12)."""

from __future__ import annotations

import re
import struct

from gpusift.images.formats.boxes import boxes
from gpusift.images.formats.header import Sizes


def sizes(data: bytes) -> Sizes:
    """Read the sizes of all images in the metadata; libavif limits any other one to 16384 x 16384 pixels."""
    for kind, start, end in boxes(data):
        if kind == b"meta":
            for match in re.finditer(rb"ispe.{4}(.{8})", data[start:end], re.DOTALL):
                columns, rows = struct.unpack(">II", match[1])
                yield rows, columns
        elif kind == b"moov":
            for match in re.finditer(rb"av01.{24}(.{4})", data[start:end], re.DOTALL):
                columns, rows = struct.unpack(">HH", match[1])
                yield rows, columns
