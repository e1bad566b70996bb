"""The image formats that are decoded, and what a file of each declares, read without decoding anything.

A small file may declare a huge image, and decoders allocate memory for what is declared before they notice that the
data are missing. The readers here look where OpenCV's decoders look; where a file states sizes several times, the
largest one counts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from gpusift.images.formats import avif, jpeg, jpeg2000, netpbm, png, raster, tiff, webp
from gpusift.images.formats.header import Header, HeaderError, Sizes

__all__ = ["Header", "HeaderError", "read_header"]

# Some of OpenCV's decoders allocate memory for more samples of a pixel, which OpenCV then does not use.
MAX_CHANNELS = 4


def _one_scan(data: bytes) -> int:
    return 1


@dataclass(frozen=True)
class Format:
    """An image format.

    Attributes
    ----------
    name : str
        Its name in messages.
    magic : re.Pattern
        What its files begin with.
    sizes : callable
        Reads the sizes that a file declares; see `Sizes`.
    scans : callable
        Counts how often a decoder goes over a file's pixels.
    """

    name: str
    magic: re.Pattern[bytes]
    sizes: Callable[[bytes], Sizes]
    scans: Callable[[bytes], int] = _one_scan


def _magic(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


FORMATS = (
    Format("PNG", _magic(rb"\x89PNG\r\n\x1a\n"), png.sizes),
    Format("JPEG", _magic(rb"\xff\xd8\xff"), jpeg.sizes, jpeg.scans),
    Format("TIFF", _magic(rb"II[*+]\0|MM\0[*+]"), tiff.sizes),
    Format("WebP", _magic(rb"RIFF.{4}WEBP"), webp.sizes),
    Format("BMP", _magic(rb"BM"), raster.bmp_sizes),
    Format("GIF", _magic(rb"GIF8[79]a"), raster.gif_sizes),
    Format("PNM", _magic(rb"P[1-6]\s"), netpbm.pnm_sizes),
    Format("PAM", _magic(rb"P7\s"), netpbm.pam_sizes),
    Format("PFM", _magic(rb"P[Ff]\s"), netpbm.pfm_sizes),
    Format("Radiance HDR", _magic(rb"#\?RGBE|#\?RADIANCE"), raster.hdr_sizes),
    Format("Sun raster", _magic(rb"\x59\xa6\x6a\x95"), raster.sun_sizes),
    Format("JPEG 2000", _magic(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), jpeg2000.sizes),
    Format("AVIF", _magic(rb".{4}ftypavi[fs]|.{4}ftyp.{8}(?:.{4}){0,60}avi[fs]"), avif.sizes),
    Format("OpenEXR", _magic(rb"v/1\x01"), raster.exr_sizes),
)


def read_header(data: bytes) -> Header:
    """Read what an image file declares.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    header : Header

    Raises
    ------
    HeaderError
        The format is unknown, or the header is incomplete, contradicts itself or makes no sense.
    """
    kind = next((known for known in FORMATS if known.magic.match(data)), None)
    if kind is None:
        raise HeaderError("must be a whole image of a kind that OpenCV reads, but it is something else")
    try:
        sizes, scans = list(kind.sizes(data)), kind.scans(data)
    except HeaderError:
        raise
    except (struct.error, IndexError, ValueError, KeyError, ArithmeticError):  # of reading beyond the end
        raise HeaderError(f"must have the whole header of a {kind.name} file, but that is cut or broken") from None
    if not sizes or min(sizes[0][:2]) < 1:
        raise HeaderError(f"must have a {kind.name} header that says how large the image is, but it does not")
    channels = max((more[0] for _, _, *more in sizes if more), default=1)
    if channels > MAX_CHANNELS:
        raise HeaderError(
            f"must have at most {MAX_CHANNELS} samples in a pixel, but the {kind.name} header says {channels}"
        )
    return Header(kind.name, sizes[0][0], sizes[0][1], max(rows * columns for rows, columns, *_ in sizes), scans)
