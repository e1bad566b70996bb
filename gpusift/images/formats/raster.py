"""Formats whose header holds the size at a fixed place: BMP, GIF, Radiance HDR, Sun raster, OpenEXR."""

from __future__ import annotations

import re
import struct

from gpusift.images.formats.header import Sizes


def bmp_sizes(data: bytes) -> Sizes:
    """Read the size in the header of OS/2 or of Windows."""
    (size,) = struct.unpack_from("<I", data, 14)
    columns, rows = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    yield abs(rows), abs(columns)


def gif_sizes(data: bytes) -> Sizes:
    """Read the size of the canvas, which OpenCV allocates."""
    columns, rows = struct.unpack_from("<HH", data, 6)
    yield rows, columns


def hdr_sizes(data: bytes) -> Sizes:
    """Read every size of a Radiance HDR file."""
    for match in re.finditer(rb"-Y\s*\+?(\d{1,10})(?!\d)\s*\+X\s*\+?(\d{1,10})(?!\d)", data):
        yield int(match[1]), int(match[2])


def sun_sizes(data: bytes) -> Sizes:
    """Read the size of a Sun raster file."""
    columns, rows = struct.unpack_from(">II", data, 4)
    yield rows, columns


def exr_sizes(data: bytes) -> Sizes:
    """Read the data window of every part of an OpenEXR file."""
    for match in re.finditer(rb"dataWindow\0box2i\0\x10\0\0\0(.{16})", data, re.DOTALL):
        left, top, right, bottom = struct.unpack("<4i", match[1])
        yield bottom - top + 1, right - left + 1
