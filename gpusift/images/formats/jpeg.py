"""JPEG (ITU-T T.81)."""

from __future__ import annotations

import struct

from gpusift.images.formats.header import Sizes


def sizes(data: bytes) -> Sizes:
    """Read every frame header up to the first scan; a sound file has one."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in (0xDA, 0xD9):  # a scan, the end
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these have no length
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            yield struct.unpack_from(">HHB", data, at + 3)
        at += max(length, 2)


def scans(data: bytes) -> int:
    """Count the scans by their marker, which cannot occur within one."""
    return data.count(b"\xff\xda")
