"""One table of TIFF files: what tifffile or Pillow writes, gpusift reads to the same pixels, or refuses."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpusift.images import ImageReadError, decode
from gpusift.images.formats import read_header
from tests.support.orientations import UPRIGHT

RNG = np.random.default_rng(0)
SHAPE = (39, 53)  # no multiple of a tile's
SMOOTH = cv2.normalize(cv2.GaussianBlur(RNG.random((*SHAPE, 4)), None, 2), None, 0, 1, cv2.NORM_MINMAX)

DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
# Photometric interpretation, samples, and what the samples after grey or colours are.
KINDS = {
    "black is zero": ("minisblack", 1, None),
    "white is zero": ("miniswhite", 1, None),
    "grey and alpha": ("minisblack", 2, "unassalpha"),
    "grey and associated alpha": ("minisblack", 2, "assocalpha"),
    "white is zero, and alpha": ("miniswhite", 2, "unassalpha"),
    "colours": ("rgb", 3, None),
    "colours and alpha": ("rgb", 4, "unassalpha"),
    "colours and associated alpha": ("rgb", 4, "assocalpha"),
    "colours and something": ("rgb", 4, "unspecified"),
}
TILES = (None, (16, 32))
COMPRESSIONS = ((None, False), ("zlib", False), ("zlib", True), ("lzw", False), ("lzw", True), ("packbits", False))


def of_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return (values * (float(info.max) - float(info.min)) * 0.999 + info.min).astype(dtype)


def lzw(data: bytes) -> bytes:
    """LZW without any compression: a code to begin anew comes before codes get longer than 9 bits."""
    codes = [256]
    for start in range(0, len(data), 250):
        codes += [*data[start : start + 250], 256]
    return packed(np.array([[*codes, 257]]), 9)


def packbits(data: bytes) -> bytes:
    """PackBits without any run."""
    return b"".join(bytes([len(run) - 1]) + run for run in (data[at : at + 128] for at in range(0, len(data), 128)))


def float_differences(rows: np.ndarray, samples: int) -> bytes:
    """The floating-point predictor: bytes of the same weight stand together, and are differences along a row."""
    planes = rows.astype(rows.dtype.newbyteorder(">")).view(np.uint8).reshape(*rows.shape, -1).swapaxes(1, 2)
    flat = planes.reshape(len(rows), -1)
    flat[:, samples:] -= flat[:, :-samples].copy()
    return flat.tobytes()


ENCODERS = {"lzw": lzw, "packbits": packbits, "zlib": zlib.compress}
COMPRESSION_NUMBERS = {"lzw": 5, "packbits": 32773, "zlib": 8}


def with_tags(data: bytes, **values: object) -> bytes:
    """The file with other values of tags, by tifffile's names of them."""
    file = io.BytesIO(data)
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        for name, value in values.items():
            tiff.pages[0].tags[name].overwrite(value)
    return file.getvalue()


def compressed(data: bytes, dtype: np.dtype, compression: str, predictor: int) -> bytes:
    """A file that tifffile wrote without compression, with its strips or tiles compressed."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        segments = [data[at : at + n] for at, n in zip(page.dataoffsets, page.databytecounts)]
        columns = page.tilewidth if page.is_tiled else page.imagewidth
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        names = ("TileOffsets", "TileByteCounts") if page.is_tiled else ("StripOffsets", "StripByteCounts")
        stored = dtype.newbyteorder(file.byteorder)
    if predictor != 1:
        tables = [np.frombuffer(part, stored).reshape(-1, columns * samples).astype(dtype) for part in segments]
        if predictor == 2:
            for rows in tables:
                rows[:, samples:] -= rows[:, :-samples].copy()
            segments = [rows.astype(stored).tobytes() for rows in tables]
        else:
            segments = [float_differences(rows, samples) for rows in tables]
    encoded = [ENCODERS[compression](segment) for segment in segments]
    starts = np.cumsum([len(data), *map(len, encoded)])[:-1].tolist()
    tags = {
        "Compression": COMPRESSION_NUMBERS[compression],
        names[0]: starts,
        names[1]: [len(part) for part in encoded],
    }
    return with_tags(data + b"".join(encoded), **tags)


def written(
    samples: np.ndarray, photometric: str, extra: str | None = None, planar: str = "contig", **options
) -> bytes:
    """A TIFF file of (M, N) or (M, N, S) samples."""
    stored = np.ascontiguousarray(np.moveaxis(samples, -1, 0) if planar == "separate" else samples)
    compression, predictor = options.pop("compression", None), options.pop("predictor", 1)
    variant = {"bigtiff": options.pop("big", False), "byteorder": options.pop("order", "<")}
    options |= {"photometric": photometric, "metadata": None, "extrasamples": extra and [extra]}
    if samples.ndim == 3:
        options["planarconfig"] = planar
    if compression:  # tifffile keeps the tag of the predictor, 317, for itself
        options["extratags"] = [(316, "H", 1, predictor, True)]
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **variant) as writer:
        writer.write(stored, **options)
    if not compression:
        return file.getvalue()
    names = [struct.pack(variant["byteorder"] + "HH", tag, 3) for tag in (316, 317)]
    return compressed(file.getvalue().replace(*names, 1), stored.dtype, compression, predictor)


def test_the_files_are_what_they_should_be():
    """tifffile reads back what it can."""
    samples = of_dtype(SMOOTH[..., :3], "uint16")
    for planar, tile, predictor, order in itertools.product(("contig", "separate"), TILES, (1, 2), "<>"):
        options = {"tile": tile, "predictor": predictor, "order": order, "compression": "zlib"}
        read = tifffile.imread(io.BytesIO(written(samples, "rgb", None, planar, **options)))
        np.testing.assert_array_equal(np.moveaxis(read, 0, -1) if planar == "separate" else read, samples)


def grey_of(samples: np.ndarray, photometric: str) -> np.ndarray | None:
    """What must be read; None if it must be refused."""
    if samples.dtype == np.float16 or (samples.dtype in (np.int64, np.uint64) and cv2.__version__ < "5"):
        return None
    if photometric == "rgb":
        if samples.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            return None
        bgr = np.ascontiguousarray(samples[..., 2::-1])
        if samples.dtype == np.float64:
            return cv2.transform(bgr, np.array([(0.114, 0.587, 0.299)]))
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    grey = samples[..., 0] if samples.ndim == 3 else samples
    if photometric == "miniswhite":
        return np.iinfo(grey.dtype).max - grey if grey.dtype.kind == "u" else None
    return grey


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_table(dtype, kind):
    photometric, n_samples, extra = KINDS[kind]
    samples = of_dtype(SMOOTH[..., :n_samples].squeeze(), dtype)
    expected = grey_of(samples, photometric)
    planars = ("contig", "separate") if n_samples > 1 else ("contig",)
    rows = itertools.product(planars, TILES, COMPRESSIONS)
    for number, (planar, tile, (compression, is_predicted)) in enumerate(rows):
        predictor = (3 if dtype[0] == "f" else 2) if is_predicted else 1
        layout = {"tile": tile, "compression": compression, "predictor": predictor, "big": bool(number % 2)}
        layout["order"] = "<>"[number // 2 % 2]
        row = f"{dtype}, {kind}, {planar}, {layout}"
        data = written(samples, photometric, extra, planar, **layout)
        if expected is None or (n_samples == 2 and planar == "contig" and predictor == 3):
            with pytest.raises(ImageReadError, match="must"):
                decode(data, "a")
            continue
        got = decode(data, "a").image
        assert got.dtype == expected.dtype, row
        np.testing.assert_array_equal(got, expected, row)


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 are none
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_orientation(dtype, orientation):
    for kind, planar, tile in itertools.product(("black is zero", "colours"), ("contig", "separate"), TILES):
        photometric, n_samples, extra = KINDS[kind]
        samples = of_dtype(SMOOTH[..., :n_samples].squeeze(), dtype)
        tag = [(274, "H", 1, orientation, True)]
        data = written(samples, photometric, extra, planar if n_samples > 1 else "contig", tile=tile, extratags=tag)
        np.testing.assert_array_equal(decode(data, "a", exif_orientation=False).image, grey_of(samples, photometric))
        turned = UPRIGHT.get(orientation, UPRIGHT[1])(samples)
        np.testing.assert_array_equal(decode(data, "a").image, grey_of(turned, photometric))


PILLOW = {
    "1": ("raw", "packbits", "group3", "group4", "tiff_lzw"),
    "L": ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"),
    "LA": ("raw", "tiff_lzw"),
    "P": ("raw", "tiff_lzw"),
    "RGB": ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"),
    "RGBA": ("raw", "tiff_lzw"),
    "I;16": ("raw", "tiff_lzw", "tiff_deflate"),
    "F": ("raw", "tiff_lzw"),
    "CMYK": ("raw", "tiff_lzw"),
    "YCbCr": ("raw", "tiff_lzw"),
}


@pytest.mark.parametrize("mode", PILLOW)
def test_what_pillow_writes(mode):
    colours = (SMOOTH * 255).astype(np.uint8)
    image = {
        "LA": lambda: Image.merge("LA", [Image.fromarray(np.ascontiguousarray(colours[..., i])) for i in (0, 3)]),
        "RGBA": lambda: Image.fromarray(colours),
        "I;16": lambda: Image.fromarray((SMOOTH[..., 0] * 65535).astype(np.uint16)),
        "F": lambda: Image.fromarray(SMOOTH[..., 0].astype(np.float32)),
    }.get(mode, lambda: Image.fromarray(np.ascontiguousarray(colours[..., :3])).convert(mode))()
    assert image.mode == mode
    for compression in PILLOW[mode]:
        file = io.BytesIO()
        image.save(file, "tiff", compression=compression)
        theirs = Image.open(io.BytesIO(file.getvalue()))
        got = decode(file.getvalue(), "a").image
        if mode in ("I;16", "F", "L"):
            np.testing.assert_array_equal(got, np.asarray(theirs), compression)
        elif mode == "LA":
            np.testing.assert_array_equal(got, np.asarray(theirs)[..., 0], compression)
        elif mode == "1":
            np.testing.assert_array_equal(got, np.asarray(theirs).astype(np.uint8) * 255, compression)
        elif mode in ("RGB", "RGBA", "P"):
            rgb = np.ascontiguousarray(np.asarray(theirs.convert("RGBA"))[..., :3])
            np.testing.assert_array_equal(got, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), compression)
        else:  # conversions that round, or know other inks
            expected = np.asarray(theirs.convert("RGB").convert("L")).astype(int)
            assert np.abs(got - expected).max() <= 2, compression  # worst seen: 1


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of numbers of so many bits each, the highest bit first."""
    planes = values[..., None] >> np.arange(bits)[::-1] & 1
    return np.packbits(planes.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16])
def test_any_number_of_bits(bits, white_is_zero):
    """The whole range of a number of bits becomes that of the dtype."""
    most = (1 << bits) - 1
    values = (SMOOTH[..., 0] * most).round().astype(np.int64)
    body = packed(values, bits) if bits < 16 else values.astype("<u2").tobytes()
    tags = {256: SHAPE[1], 257: SHAPE[0], 258: bits, 259: 1, 262: int(not white_is_zero), 277: 1, 278: SHAPE[0]}
    tags |= {273: 8, 279: len(body)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    body += bytes(len(body) % 2)
    data = b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + directory + bytes(4)
    if bits in (2, 4, 6):  # OpenCV does not decode them as grey
        with pytest.raises(ImageReadError, match="must"):
            decode(data, "a")
        return
    grey = most - values if white_is_zero else values
    white = 255 if bits <= 8 else 65535
    got = decode(data, "a").image
    assert got.dtype == (np.uint8 if bits <= 8 else np.uint16)
    np.testing.assert_array_equal(got, (grey * white + most // 2) // most)


def pages(*images: tuple[np.ndarray, dict]) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for image, options in images:
            writer.write(image, **{"photometric": "minisblack", "metadata": None} | options)
    return file.getvalue()


def of_first_kind(kind: int, data: bytes) -> bytes:
    """The same file, with another NewSubfileType in its first directory."""
    entry = struct.pack("<HHI", 254, 4, 1)
    at = data.index(entry) + len(entry)
    return data[:at] + struct.pack("<I", kind) + data[at + 4 :]


FULL = (SMOOTH[..., 0] * 255).astype(np.uint8)
SMALL = np.ascontiguousarray(FULL[::3, ::3])
REDUCED, WHOLE = {"subfiletype": 1}, {"subfiletype": 0}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pages((SMALL, REDUCED), (FULL, WHOLE)), FULL),
        (pages((SMALL, REDUCED), (SMALL.T.copy(), REDUCED), (FULL, WHOLE), (SMALL, WHOLE)), FULL),
        (pages((SMALL, REDUCED | {"subifds": 1}), (FULL, WHOLE)), FULL),
        (of_first_kind(4, pages((SMALL, REDUCED), (FULL, WHOLE))), FULL),  # a mask
        (pages((SMALL, {"extratags": [(255, "H", 1, 2, True)]}), (FULL, {})), FULL),  # as before TIFF 6.0
        (pages((FULL, WHOLE), (SMALL, REDUCED)), FULL),  # as in a cloud-optimized GeoTIFF
        (pages((FULL, {"subifds": 1}), (SMALL, REDUCED)), FULL),  # as in an OME-TIFF
        (pages((FULL, {"subfiletype": 2}), (SMALL, {"subfiletype": 2})), FULL),  # pages of a document
        (pages((SMALL, REDUCED)), SMALL),  # the only one
    ],
)
def test_the_main_picture_is_taken(data, expected):
    np.testing.assert_array_equal(decode(data, "a").image, expected)


def test_a_raw_photograph_is_refused_in_place_of_its_preview():
    mosaic = FULL.astype(np.uint16) * 257
    preview = (np.dstack([SMALL] * 3), REDUCED | {"photometric": "rgb", "subifds": 1})
    raw = (
        mosaic,
        {"photometric": 32803, "extratags": [(33421, "H", 2, (2, 2), True), (33422, "B", 4, b"\0\1\1\2", True)]},
    )
    with pytest.raises(ImageReadError, match="but the main image of this TIFF file is a camera's colour filter array"):
        decode(pages(preview, raw), "a")


@pytest.mark.parametrize("compression", [6, 34712, 34887, 34925, 50001, 50002])
def test_other_compressions_are_refused(compression):
    data = with_tags(pages((FULL, {})), Compression=compression)
    with pytest.raises(ImageReadError, match=f"but this TIFF file has compression {compression}"):
        decode(data, "a")


def test_samples_of_several_depths_are_refused():
    data = with_tags(written((SMOOTH[..., :3] * 255).astype(np.uint8), "rgb"), BitsPerSample=(5, 6, 5))
    with pytest.raises(ImageReadError, match=r"must have one number of bits for all samples .* has \[5, 6\]"):
        decode(data, "a")


def test_tiles_that_are_missing_are_not_made_up():
    """A sparse file: its second tile has neither an offset nor bytes."""
    data = pages((FULL.astype(np.float32), {"tile": (16, 32)}))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        starts, sizes = file.pages[0].dataoffsets, file.pages[0].databytecounts
    data = with_tags(data, TileOffsets=[starts[0], 0, *starts[2:]], TileByteCounts=[sizes[0], 0, *sizes[2:]])
    with pytest.raises(ImageReadError, match="must be a whole TIFF file, but strips or tiles are empty"):
        decode(data, "a")


@given(share=st.floats(0.05, 0.98), kind=st.sampled_from(sorted(KINDS)), separate=st.booleans(), tiled=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_gives_its_pixels_or_an_error(share, kind, separate, tiled):
    """The directory is at the front, so that what is missing are samples."""
    photometric, n_samples, extra = KINDS[kind]
    samples = of_dtype(SMOOTH[..., :n_samples].squeeze(), "uint16")
    planar = "separate" if separate and n_samples > 1 else "contig"
    data = written(samples, photometric, extra, planar, tile=TILES[tiled])
    try:
        got = decode(data[: int(share * len(data))], "a").image
    except ImageReadError:
        return
    np.testing.assert_array_equal(got, grey_of(samples, photometric))


def test_scans_of_jpeg_in_a_tiff_are_counted():
    file = io.BytesIO()
    Image.fromarray(FULL).save(file, "tiff", compression="jpeg")
    data = file.getvalue()
    assert decode(data, "a").shape == SHAPE
    assert read_header(data).scans == 1
    at, end = data.index(b"\xff\xda"), data.index(b"\xff\xd9")
    many = data[:at] + (b"\xff\xda" * (end - at))[: end - at] + data[end:]
    assert read_header(many).scans == (end - at) // 2
