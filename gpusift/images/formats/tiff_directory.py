"""Directories of TIFF 6.0 and BigTIFF files: reading their entries, and appending a directory to a file."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gpusift.images.formats.header import HeaderError

# Limits of the entries of a directory, and of the directories that are searched for the main image.
MAX_ENTRIES = 1 << 12
MAX_DIRECTORIES = 1 << 10

# Tags (TIFF 6.0).
NEW_SUBFILE_TYPE, SUBFILE_TYPE, COLUMNS, ROWS, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 266, 273, 274, 277, 278, 279, 284
GROUP3_OPTIONS, GROUP4_OPTIONS, PREDICTOR, COLOUR_MAP, TILE_COLUMNS, TILE_ROWS = 292, 293, 317, 320, 322, 323
TILE_OFFSETS, TILE_BYTES, SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = 324, 325, 330, 338, 339, 347
YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, YCBCR_POSITIONING, REFERENCE_BLACK_WHITE = 529, 530, 531, 532

# NumPy's codes of the integer types, and the sizes of all types in bytes; 13 and 18 are offsets of directories.
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
SHORT, LONG, LONG8 = 3, 4, 16

REDUCED, MASK = 1, 4  # bits of NEW_SUBFILE_TYPE
REDUCED_BEFORE_TIFF_6 = 2  # value of SUBFILE_TYPE


@dataclass(frozen=True)
class Variant:
    """The byte order and the width of offsets in a file.

    Attributes
    ----------
    order : {"<", ">"}
        Byte order.
    is_big : bool
        Whether the file is a BigTIFF.
    """

    order: str
    is_big: bool

    @classmethod
    def of(cls, data: bytes) -> Variant:
        """Read the variant from the first bytes of a file."""
        return cls("<" if data[:2] == b"II" else ">", 43 in data[2:4])

    @property
    def offset(self) -> str:
        """Format of an offset in the file, for `struct`."""
        return self.order + ("Q" if self.is_big else "I")

    @property
    def count(self) -> str:
        """Format of the number of entries."""
        return self.order + ("Q" if self.is_big else "H")

    @property
    def entry(self) -> str:
        """Format of an entry's tag, type and number of values."""
        return self.order + ("HHQ" if self.is_big else "HHI")

    @property
    def first(self) -> int:
        """Position of the first directory's offset."""
        return 8 if self.is_big else 4


@dataclass(frozen=True)
class Directory:
    """A directory: the tags of one image.

    Attributes
    ----------
    data : bytes
        The whole file.
    variant : Variant
        Its byte order and width of offsets.
    entries : dict of int to (int, int, bytes)
        Type, number of values, and field of each tag. The field holds the values, or their offset.
    next : int
        Offset of the next directory, 0 for none.
    """

    data: bytes
    variant: Variant
    entries: Mapping[int, tuple[int, int, bytes]]
    next: int

    @classmethod
    def read(cls, data: bytes, at: int) -> Directory:
        """Read the directory at an offset; struct.error if the file ends within it."""
        variant = Variant.of(data)
        (n_entries,) = struct.unpack_from(variant.count, data, at)
        if n_entries > MAX_ENTRIES:
            raise HeaderError(f"must have at most {MAX_ENTRIES} entries in a TIFF directory, but one has {n_entries}")
        at += struct.calcsize(variant.count)
        head, field = struct.calcsize(variant.entry), struct.calcsize(variant.offset)
        entries: dict[int, tuple[int, int, bytes]] = {}
        for _ in range(n_entries):
            tag, kind, count = struct.unpack_from(variant.entry, data, at)
            entries.setdefault(tag, (kind, count, data[at + head : at + head + field]))
            at += head + field
        next_at = struct.unpack_from(variant.offset, data, at)[0] if at + field <= len(data) else 0
        return cls(data, variant, entries, next_at)

    def values(self, tag: int, most: int | None = None) -> np.ndarray:
        """Return the integers of a tag; empty if the directory has none.

        Parameters
        ----------
        tag : int
            The tag.
        most : int, optional
            Refuse more values than this.

        Raises
        ------
        HeaderError
            There are too many values, or the file ends before them.
        """
        kind, count, field = self.entries.get(tag, (SHORT, 0, b""))
        if kind not in _INTEGERS:
            return np.zeros(0, np.int64)
        if most is not None and count > most:
            raise HeaderError(f"must have at most {most} values of TIFF tag {tag}, but it has {count}")
        size = count * _SIZES[kind]
        at = struct.unpack(self.variant.offset, field)[0] if size > len(field) else None
        stored = field[:size] if at is None else self.data[at : at + size]
        if len(stored) < size:
            raise HeaderError(f"must be a whole TIFF file, but the values of tag {tag} are beyond its end")
        return np.frombuffer(stored, self.variant.order + _INTEGERS[kind]).astype(np.int64)

    def value(self, tag: int, default: int) -> int:
        """Return the first integer of a tag."""
        values = self.values(tag)
        return int(values[0]) if len(values) else default

    @property
    def is_reduced(self) -> bool:
        """Whether the image is a reduced version of another one in the file, or a mask of it."""
        if self.value(SUBFILE_TYPE, 0) == REDUCED_BEFORE_TIFF_6:
            return True
        return bool(self.value(NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK))


def directories(data: bytes) -> Iterator[Directory]:
    """Yield each directory of a file once, followed by its sub-directories; at most MAX_DIRECTORIES.

    Parameters
    ----------
    data : bytes
        The whole file.
    """
    variant = Variant.of(data)
    waiting = [struct.unpack_from(variant.offset, data, variant.first)[0]]
    seen = {0}
    while waiting and len(seen) <= MAX_DIRECTORIES:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        directory = Directory.read(data, at)
        yield directory
        below = directory.values(SUB_DIRECTORIES, MAX_DIRECTORIES)
        waiting += [directory.next, *below[::-1].tolist()]


def main_directory(data: bytes) -> Directory:
    """Return the directory of a file's main image: the first that is neither a reduced image nor a mask, if any.

    Parameters
    ----------
    data : bytes
        The whole file.
    """
    first = None
    for directory in directories(data):
        if not directory.is_reduced:
            return directory
        first = first or directory
    if first is None:
        raise HeaderError("must have a TIFF directory, but there is none")
    return first


def with_directory(directory: Directory, kept: tuple[int, ...], replaced: Mapping[int, np.ndarray]) -> bytes:
    """Return a copy of a file whose only directory is a new one, appended to it.

    Parameters
    ----------
    directory : Directory
        The directory to start from.
    kept : tuple of int
        Tags that are copied from it, if it has them and they are not replaced.
    replaced : mapping of int to array of int
        Values of other tags: uint16 for those of type SHORT, any other dtype for offsets, lengths and sizes.
    """
    variant, data = directory.variant, directory.data
    field = struct.calcsize(variant.offset)
    tail = bytearray(-len(data) % 8)
    entries = {tag: directory.entries[tag] for tag in kept if tag in directory.entries}
    for tag, values in replaced.items():
        kind = SHORT if values.dtype == np.uint16 else LONG8 if variant.is_big else LONG
        stored = values.astype(variant.order + _INTEGERS[kind]).tobytes()
        if len(stored) > field:
            entries[tag] = kind, len(values), struct.pack(variant.offset, len(data) + len(tail))
            tail += stored + bytes(-len(stored) % 8)
        else:
            entries[tag] = kind, len(values), stored.ljust(field, b"\0")
    first = struct.pack(variant.offset, len(data) + len(tail))
    tail += struct.pack(variant.count, len(entries))
    for tag, (kind, count, stored) in sorted(entries.items()):
        tail += struct.pack(variant.entry, tag, kind, count) + stored
    tail += bytes(field)
    rest = memoryview(data)[variant.first + field :]  # the file is copied once
    return b"".join([data[: variant.first], first, rest, tail])
