"""Decoding a file by OpenCV."""

from __future__ import annotations

import numpy as np

from gpusift.images.errors import DecodeError
from gpusift.opencv_package import import_cv2


def imdecode(data: bytes, exif_orientation: bool, *, unchanged: bool = False) -> np.ndarray:
    """Decode a file.

    Parameters
    ----------
    data : bytes
        The whole file.
    exif_orientation : bool
        Apply the orientation in its EXIF data.
    unchanged : bool, optional
        Keep an alpha channel, and do not apply an orientation.

    Returns
    -------
    (M, N) or (M, N, C) array
        Grey, or colours as OpenCV orders them: blue, green, red, and alpha if it is kept.

    Raises
    ------
    DecodeError
        OpenCV does not decode it.
    """
    cv2 = import_cv2()

    flags = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    if not unchanged and not exif_orientation:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error.err)) from None
        complaint = " ".join(str(error.err or error).split())
        raise DecodeError(f"must be an image OpenCV accepts, but it says: {complaint}") from None
    if image is None:
        raise DecodeError("must be a whole image that OpenCV reads, but it is truncated, broken or something else")
    return image
