"""AVIF (AV1 in HEIF, ISO/IEC 23008-12)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np

from gpusift.images.codec import imdecode
from gpusift.images.errors import DecodeError
from gpusift.images.formats.boxes import boxes
from gpusift.images.formats.header import Sizes
from gpusift.images.full_range import to_full_range

FULL_BOX = 4  # bytes of version and flags before the contents of some boxes
HIGH_BITDEPTH, TWELVE_BIT = 0x40, 0x20  # of the third byte of the codec's configuration


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


def decode(data: bytes, exif_orientation: bool) -> np.ndarray:
    """Decode the primary image; see `gpusift.images.codec.imdecode`.

    Its rotation and mirror (irot, imir) belong to the image and are always applied, which OpenCV does not do. By
    ISO/IEC 23008-12 the orientation in EXIF data has no effect.
    """
    try:
        properties = list(_properties(data))
    except (struct.error, IndexError):
        raise DecodeError("must have whole metadata, but those of this AVIF file are truncated") from None
    if any(kind == b"clap" for kind, _ in properties):
        raise DecodeError("must not be cropped by its metadata (clap), but this AVIF file is; crop it first")
    image = imdecode(data, exif_orientation=False)
    if image.dtype == np.uint16:
        image = to_full_range(image, (1 << _depth(data, properties)) - 1)
    for kind, at in properties:
        if kind == b"irot":
            image = np.rot90(image, data[at] & 3)  # anticlockwise
        elif kind == b"imir":
            image = np.fliplr(image) if data[at] & 1 else np.flipud(image)
    return image


def _depth(data: bytes, properties: list[tuple[bytes, int]]) -> int:
    """Return the bits of a value, which OpenCV decodes to the lower ones of 16."""
    places = dict(properties)
    if b"pixi" in places:
        return data[places[b"pixi"] + FULL_BOX + 1]
    if b"av1C" in places:
        flags = data[places[b"av1C"] + 2]
        return 8 if not flags & HIGH_BITDEPTH else 12 if flags & TWELVE_BIT else 10
    raise DecodeError("must say how many bits a value has, but this AVIF file does not")


def _properties(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield kind and offset of the primary image's properties, in order."""
    meta = next(((start, end) for kind, start, end in boxes(data) if kind == b"meta"), None)
    if meta is None:  # a sequence
        return
    inner = {kind: (start, end) for kind, start, end in boxes(data, meta[0] + FULL_BOX, meta[1])}
    if b"pitm" not in inner or b"iprp" not in inner:
        return
    at = inner[b"pitm"][0]
    (primary,) = struct.unpack_from(">I" if data[at] else ">H", data, at + FULL_BOX)
    properties: list[tuple[bytes, int]] = []
    associated: list[int] = []
    for kind, start, end in boxes(data, *inner[b"iprp"]):
        if kind == b"ipco":
            properties += [(name, at) for name, at, _ in boxes(data, start, end)]
        elif kind == b"ipma":
            associated += _associated(data, start, primary)
    for index in associated:
        if 0 < index <= len(properties):
            yield properties[index - 1]


def _associated(data: bytes, at: int, item: int) -> Iterator[int]:
    """Yield the numbers, from 1, of an item's properties in an ipma box."""
    version, wide = data[at], data[at + 3] & 1
    (n_items,) = struct.unpack_from(">I", data, at + FULL_BOX)
    at += FULL_BOX + 4
    for _ in range(n_items):
        (number,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        n_properties, at = data[at], at + 1
        for _ in range(n_properties):
            if number == item:
                yield struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            at += 2 if wide else 1
