"""TIFF 6.0 and BigTIFF: the meaning of an image's samples.

OpenCV's libtiff decompresses every strip and tile correctly. OpenCV then misinterprets the samples of images in
separate planes, with an alpha channel beside grey, with 0 for white, or with an orientation. So OpenCV gets a copy of
the file with one simple directory, by which it decodes the samples, and their meaning is applied here.

tifffile decodes these layouts correctly, too, but it needs a package of many more decoders for LZW, the usual
compression, and inflates a strip to any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpusift.images.codec import imdecode
from gpusift.images.errors import DecodeError
from gpusift.images.formats import tiff_directory as tags
from gpusift.images.formats.header import HeaderError, Sizes
from gpusift.images.formats.tiff_directory import Directory, main_directory, with_directory
from gpusift.images.full_range import to_full_range
from gpusift.images.orientation import UPRIGHT

# Photometric interpretations.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
LOG_L, LOG_LUV = 32844, 32845
KNOWN_PHOTOMETRICS = {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, LOG_L, LOG_LUV}
NOT_DECODED = {32803: "a camera's colour filter array", 34892: "a camera's linear raw image", 4: "a transparency mask"}

# Compressions. The work of each of these decoders is proportional to the number of samples.
NONE, JPEG = 1, 7
BYTE_STREAMS = {NONE, 5, 8, 32946, 32773, 50000}  # none, LZW, Deflate (two numbers), PackBits, Zstandard
PREDICTED = BYTE_STREAMS - {NONE, 32773}  # by which a predictor may be used
BILEVEL = {2, 3, 4}  # CCITT's
SGI_LOG = {34676, 34677}
KNOWN_COMPRESSIONS = BYTE_STREAMS | BILEVEL | SGI_LOG | {JPEG}

PACKED_BITS = 10, 12, 14
SEPARATE_PLANES = 2
DIFFERENCING = 2  # a predictor: each sample is stored as its difference from the pixel to the left
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
KNOWN_SAMPLES = {
    *((bits, UNSIGNED) for bits in (1, 4, 8, *PACKED_BITS, 16, 32, 64)),
    *((bits, SIGNED) for bits in (8, 16, 32, 64)),
    *((bits, FLOAT) for bits in (32, 64)),
}
ASSOCIATED_ALPHA = 1  # OpenCV leaves colours with such an alpha channel as they are stored

# Largest ratio of the sum of all strips' bytes to the file's length. It is more than 1 only if strips share bytes.
MAX_SHARING = 4

# The tags that OpenCV gets: how samples are stored, and what they mean.
STORAGE = (
    *(tags.COLUMNS, tags.ROWS, tags.COMPRESSION, tags.FILL_ORDER, tags.ROWS_PER_STRIP, tags.GROUP3_OPTIONS),
    *(tags.GROUP4_OPTIONS, tags.PREDICTOR, tags.TILE_COLUMNS, tags.TILE_ROWS, tags.JPEG_TABLES),
)
MEANING = (
    *(tags.BITS, tags.PHOTOMETRIC, tags.SAMPLES, tags.PLANAR, tags.COLOUR_MAP, tags.EXTRA_SAMPLES, tags.SAMPLE_FORMAT),
    *(tags.YCBCR_COEFFICIENTS, tags.YCBCR_SUBSAMPLING, tags.YCBCR_POSITIONING, tags.REFERENCE_BLACK_WHITE),
)

# Offsets and numbers of bytes.
STRIP_SEGMENTS = tags.STRIP_OFFSETS, tags.STRIP_BYTES
TILE_SEGMENTS = tags.TILE_OFFSETS, tags.TILE_BYTES

Tags = dict[int, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """How the samples of an image are stored.

    Attributes
    ----------
    directory : Directory
        The image's tags.
    """

    directory: Directory

    def _value(self, tag: int, default: int) -> int:
        return self.directory.value(tag, default)

    def _common_value(self, tag: int, default: int, what: str) -> int:
        """Return the value that a tag has for all samples."""
        values = np.unique(self.directory.values(tag, 1 << 16))
        if len(values) > 1:
            raise HeaderError(f"must have one {what} for all samples of a pixel, but this TIFF has {values.tolist()}")
        return int(values[0]) if len(values) else default

    @cached_property
    def rows(self) -> int:
        """Rows of the image."""
        return self._value(tags.ROWS, 0)

    @cached_property
    def columns(self) -> int:
        """Columns of the image."""
        return self._value(tags.COLUMNS, 0)

    @cached_property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self._value(tags.SAMPLES, 1)

    @cached_property
    def bits(self) -> int:
        """Bits of a sample."""
        return self._common_value(tags.BITS, 1, "number of bits")

    @cached_property
    def sample_format(self) -> int:
        """Format of a sample; undefined ones count as unsigned integers."""
        known = self._common_value(tags.SAMPLE_FORMAT, UNSIGNED, "sample format")
        return UNSIGNED if known == 4 else known

    @cached_property
    def photometric(self) -> int:
        """Photometric interpretation."""
        return self._value(tags.PHOTOMETRIC, -1)

    @cached_property
    def compression(self) -> int:
        """Compression scheme."""
        return self._value(tags.COMPRESSION, NONE)

    @cached_property
    def predictor(self) -> int:
        """Transform of the samples before compression."""
        return self._value(tags.PREDICTOR, 1)

    @cached_property
    def orientation(self) -> int:
        """Orientation, 1 to 8; others count as 1."""
        stored = self._value(tags.ORIENTATION, 1)
        return stored if stored in UPRIGHT else 1

    @cached_property
    def is_tiled(self) -> bool:
        """Whether the image is stored in tiles, not strips."""
        return tags.TILE_COLUMNS in self.directory.entries

    @cached_property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile, or of a strip."""
        if self.is_tiled:
            return self._value(tags.TILE_ROWS, 0), self._value(tags.TILE_COLUMNS, 0)
        return min(self._value(tags.ROWS_PER_STRIP, self.rows) or self.rows, self.rows), self.columns

    @property
    def has_odd_tiles(self) -> bool:
        """Whether tiles are not compressed, and are of a size that OpenCV's libtiff does not decode to 8 bits.

        It compares a tile's bytes with those of a buffer whose size is a multiple of 1024.
        """
        odd = self.directory.values(tags.TILE_BYTES, None)[:1] % 1024 != 0
        return self.is_tiled and self.compression == NONE and self.bits <= 8 and bool(odd.any())

    @property
    def is_grey(self) -> bool:
        """Whether the first sample of a pixel is its grey value."""
        return self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)

    @property
    def is_separate(self) -> bool:
        """Whether each sample has a plane of its own, of which the first one or three are the image."""
        separate = self.samples > 1 and self._value(tags.PLANAR, 1) == SEPARATE_PLANES
        return separate and (self.is_grey or self.photometric == RGB)

    @property
    def tiles(self) -> int:
        """Tiles, or strips, of a plane."""
        rows, columns = self.tile
        return -(-self.rows // rows) * -(-self.columns // columns) if rows > 0 and columns > 0 else 0

    def segments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets and numbers of bytes of all strips or tiles."""
        names = TILE_SEGMENTS if tags.TILE_OFFSETS in self.directory.entries else STRIP_SEGMENTS
        planes = self.samples if self._value(tags.PLANAR, 1) == SEPARATE_PLANES else 1
        wanted = self.tiles * planes
        offsets, sizes = (self.directory.values(name)[:wanted] for name in names)
        if len(offsets) < wanted or (len(sizes) < wanted and (self.compression != NONE or wanted > 1)):
            raise HeaderError(f"must have {wanted} strips or tiles, but this TIFF file locates {len(offsets)}")
        if min(offsets.min(), sizes.min(initial=0)) < 0:
            raise HeaderError("must be a whole TIFF file, but strips or tiles are beyond its end")
        offsets, sizes = (np.minimum(values, len(self.directory.data) + 1) for values in (offsets, sizes))
        if not len(sizes):
            sizes = np.array([len(self.directory.data) - offsets[0]])
        return offsets, sizes


def sizes(data: bytes) -> Sizes:
    """Read the size of the main image, and what its tiles have together."""
    layout = Layout(main_directory(data))
    yield layout.rows, layout.columns, layout.samples
    rows, columns = layout.tile
    yield layout.tiles * rows, columns
    if min(layout.rows, layout.columns) > 0:
        _check(layout)


def _check(layout: Layout) -> None:
    """Refuse layouts that the tests do not show to be decoded correctly, and missing strips or tiles."""
    if layout.photometric not in KNOWN_PHOTOMETRICS:
        what = NOT_DECODED.get(layout.photometric, f"photometric interpretation {layout.photometric}")
        raise HeaderError(f"must hold grey values or colours, but the main image of this TIFF file is {what}")
    if layout.compression not in KNOWN_COMPRESSIONS:
        raise HeaderError(
            "must be compressed by LZW, Deflate, PackBits, Zstandard, JPEG or CCITT's schemes, or not at all, but this "
            f"TIFF file has compression {layout.compression}"
        )
    if (layout.bits, layout.sample_format) not in KNOWN_SAMPLES:
        raise HeaderError(
            "must have integers of 1, 8, 10, 12, 14, 16, 32 or 64 bits, floats of 32 or 64, or 4-bit indices to a "
            f"palette, but this TIFF file has {layout.bits} bits in sample format {layout.sample_format}"
        )
    if not layout.tiles:
        raise HeaderError("must have tiles of at least one pixel, but this TIFF file has none")
    offsets, n_bytes = layout.segments()
    length = len(layout.directory.data)
    if (n_bytes < 1).any() or (offsets + n_bytes > length).any():
        raise HeaderError("must be a whole TIFF file, but strips or tiles are empty or beyond its end")
    if n_bytes.sum() > MAX_SHARING * length:
        raise HeaderError(f"must be a whole TIFF file, but its strips add up to {n_bytes.sum()} of {length} bytes")


def scans(data: bytes) -> int:
    """Count the scans of the strip or tile that has the most, if they are JPEG files."""
    layout = Layout(main_directory(data))
    if layout.compression != JPEG:
        return 1
    segments = zip(*(values.tolist() for values in layout.segments()))
    return max((data.count(b"\xff\xda", start, start + size) for start, size in segments), default=1)


def decode(data: bytes, exif_orientation: bool) -> np.ndarray:
    """Decode the main image.

    Parameters
    ----------
    data : bytes
        The whole file, which has been checked.
    exif_orientation : bool
        Apply the orientation.

    Returns
    -------
    (M, N) or (M, N, 3) array
        Grey, or blue, green and red.

    Raises
    ------
    DecodeError
        The samples cannot be decoded, or their meaning is unknown.
    """
    layout = Layout(main_directory(data))
    try:
        stored = _decode_stored(layout)
    except HeaderError as error:
        raise DecodeError(str(error)) from None
    if layout.bits in PACKED_BITS:
        stored = stored >> 16 - layout.bits  # OpenCV decodes them to the upper bits
    if layout.photometric == WHITE_IS_ZERO:
        stored = _inverted(stored, layout)
    if layout.bits in PACKED_BITS:
        stored = to_full_range(stored, (1 << layout.bits) - 1)
    return UPRIGHT[layout.orientation](stored) if exif_orientation else stored


def _decode_stored(layout: Layout) -> np.ndarray:
    """Decode the samples that are the image, as stored."""
    offsets, sizes = layout.segments()
    if layout.is_separate:
        n, planes = layout.tiles, (0,) if layout.is_grey else (2, 1, 0)
        chosen = [slice(plane * n, (plane + 1) * n) for plane in planes]
        images = [_decode_by(layout, STORAGE, _grey_tags(layout), offsets[of], sizes[of]) for of in chosen]
        return np.dstack(images) if len(images) > 1 else images[0]
    if layout.is_grey and layout.samples > 1:
        return _decode_first_sample(layout, offsets, sizes)
    if layout.is_grey:
        return _decode_by(layout, STORAGE, _grey_tags(layout), offsets, sizes)
    has_alpha = layout.photometric == RGB and layout.samples == 4
    replaced = {tags.EXTRA_SAMPLES: _short(ASSOCIATED_ALPHA)} if has_alpha else {}
    return _decode_by(layout, (*STORAGE, *MEANING), replaced, offsets, sizes)


def _decode_first_sample(layout: Layout, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Decode the first of several samples of a pixel, by way of a grey image with a column for each sample."""
    samples = layout.samples
    if layout.compression not in BYTE_STREAMS or layout.predictor not in (1, DIFFERENCING) or layout.bits % 8:
        raise DecodeError(
            f"must be stored otherwise to be read with {samples} samples of grey and alpha in a pixel; this TIFF file "
            f"has {layout.bits} bits, compression {layout.compression} and predictor {layout.predictor}"
        )
    replaced = _grey_tags(layout)
    replaced[tags.COLUMNS] = np.array([layout.columns * samples])
    replaced[tags.TILE_COLUMNS] = np.array([layout.tile[1] * samples])
    replaced[tags.PREDICTOR] = _short(1)
    wide = _decode_by(layout, STORAGE, replaced, offsets, sizes)
    grey = np.ascontiguousarray(wide.reshape(layout.rows, layout.columns, samples)[..., 0])
    if layout.predictor == DIFFERENCING:
        for left in range(0, layout.columns, layout.tile[1]):
            block = grey[:, left : left + layout.tile[1]]
            block[...] = np.cumsum(block, axis=1, dtype=grey.dtype)
    return grey


def _short(value: int) -> np.ndarray:
    return np.array([value], np.uint16)


def _grey_tags(layout: Layout) -> Tags:
    """Return the tags by which any samples are decoded as those of a grey image."""
    # OpenCV 4 decodes no unsigned integers of 32 bits; `_decode_by` makes them unsigned again.
    sample_format = SIGNED if layout.sample_format == UNSIGNED and layout.bits >= 32 else layout.sample_format
    meaning = {tags.SAMPLES: 1, tags.PLANAR: 1, tags.PHOTOMETRIC: BLACK_IS_ZERO, tags.BITS: layout.bits}
    return {tag: _short(value) for tag, value in (meaning | {tags.SAMPLE_FORMAT: sample_format}).items()}


def _decode_by(
    layout: Layout, kept: tuple[int, ...], replaced: Tags, offsets: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Decode strips or tiles by OpenCV, with tags that are kept or replaced."""
    if layout.compression not in PREDICTED:
        kept = tuple(tag for tag in kept if tag != tags.PREDICTOR)
    if layout.is_tiled and not layout.has_odd_tiles:
        segments = dict(zip(TILE_SEGMENTS, (offsets, sizes)))
    else:
        tile_columns = replaced.pop(tags.TILE_COLUMNS, np.array([layout.tile[1]]))
        kept = tuple(tag for tag in kept if tag not in (tags.TILE_COLUMNS, tags.TILE_ROWS))
        segments = dict(zip(STRIP_SEGMENTS, (offsets, sizes)))
        if layout.has_odd_tiles:
            rows = layout.tile[0]
            segments[tags.ROWS_PER_STRIP], segments[tags.ROWS] = np.array([rows]), np.array([rows * layout.tiles])
            replaced = replaced | {tags.COLUMNS: tile_columns}
    stored = imdecode(with_directory(layout.directory, kept, replaced | segments), False, unchanged=True)
    if stored.ndim == 3:
        stored = stored[..., :3]
    if layout.sample_format == UNSIGNED and stored.dtype.kind == "i":
        stored = stored.view(f"u{stored.dtype.itemsize}")
    return _from_column_of_tiles(stored, layout) if layout.has_odd_tiles else stored


def _from_column_of_tiles(column: np.ndarray, layout: Layout) -> np.ndarray:
    """Arrange tiles that were decoded as the strips of an image of one tile's width."""
    rows, across = layout.tile[0], -(-layout.columns // layout.tile[1])
    width = column.shape[1]
    grid = column.reshape(-1, across, rows, width, *column.shape[2:]).swapaxes(1, 2)
    whole = grid.reshape(-1, across * width, *column.shape[2:])
    return np.ascontiguousarray(whole[: layout.rows, : layout.columns * width // layout.tile[1]])


def _inverted(stored: np.ndarray, layout: Layout) -> np.ndarray:
    """Invert samples of which 0 is white."""
    if stored.dtype.kind != "u":
        raise DecodeError(f"must hold unsigned samples where 0 is white, but this TIFF file has {stored.dtype}")
    white = np.iinfo(stored.dtype).max if layout.bits in (1, 2, 4) else (1 << layout.bits) - 1
    return stored.dtype.type(white) - stored
