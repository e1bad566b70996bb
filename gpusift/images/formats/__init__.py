"""The image formats that are decoded, and what a file of each declares, read without decoding anything.

A small file may declare a huge image, and decoders allocate memory for what is declared before they notice that the
data are missing. The readers here look where OpenCV's decoders look; where a file states sizes several times, the
largest one counts.
"""

from __future__ import annotations

import struct

from gpusift.images.formats import avif, jpeg, jpeg2000, netpbm, png, raster, tiff, webp
from gpusift.images.formats.header import Format, Header, HeaderError

__all__ = ["FORMATS", "UNBOUNDED", "Format", "Header", "HeaderError", "read_header"]

# Some of OpenCV's decoders allocate memory for more samples of a pixel, which OpenCV then does not use.
MAX_CHANNELS = 4

FORMATS = (
    Format("PNG", rb"\x89PNG\r\n\x1a\n", png.sizes, decode=png.decode),
    Format("JPEG", rb"\xff\xd8\xff", jpeg.sizes, jpeg.scans),
    Format("TIFF", rb"II[*+]\0|MM\0[*+]", tiff.sizes, tiff.scans, tiff.decode),
    Format("WebP", rb"RIFF.{4}WEBP", webp.sizes),
    Format("BMP", rb"BM", raster.bmp_sizes),
    Format("GIF", rb"GIF8[79]a", raster.gif_sizes),
    Format("PNM", rb"P[1-6]\s", netpbm.pnm_sizes, decode=netpbm.pnm_decode),
    Format("PAM", rb"P7\s", netpbm.pam_sizes, decode=netpbm.pam_decode),
    Format("PFM", rb"P[Ff]\s", netpbm.pfm_sizes),
    Format("Radiance HDR", rb"#\?RGBE|#\?RADIANCE", raster.hdr_sizes),
    Format("Sun raster", rb"\x59\xa6\x6a\x95", raster.sun_sizes),
    Format("JPEG 2000", rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", jpeg2000.sizes, decode=jpeg2000.decode),
    Format("AVIF", rb".{4}ftypavi[fs]|.{4}ftyp.{8}(?:.{4}){0,60}avi[fs]", avif.sizes, decode=avif.decode),
    # Parts, channels, layers and tiles of OpenEXR, and frames of JPEG XL, are not counted.
    Format("OpenEXR", rb"v/1\x01", raster.exr_sizes, is_bounded=False),
    Format("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", None, is_bounded=False),
)

# Names of the formats that are decoded only if they are allowed.
UNBOUNDED = tuple(each.name for each in FORMATS if not each.is_bounded)


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
    kind = next((each for each in FORMATS if each.matches(data)), None)
    if kind is None:
        raise HeaderError("must be a whole image of a kind that OpenCV reads, but it is something else")
    if kind.sizes is None:
        return Header(kind, 0, 0, 0)
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
    return Header(kind, sizes[0][0], sizes[0][1], max(rows * columns for rows, columns, *_ in sizes), scans)
