"""Importing OpenCV, which any of its four distributions on PyPI brings."""

from __future__ import annotations

import re
from functools import cache
from types import ModuleType

OLDEST = (4, 11)
DISTRIBUTIONS = "opencv-python, opencv-python-headless, opencv-contrib-python or opencv-contrib-python-headless"


@cache
def import_cv2() -> ModuleType:
    """Import `cv2`.

    gpusift does not depend on one of the distributions: they all install the same folder, so that each would replace
    the installed one.

    Returns
    -------
    module
        cv2.

    Raises
    ------
    ImportError
        It is not installed, cannot be loaded, or is too old; the message says what to install.
    """
    needed = ".".join(map(str, OLDEST))
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"images are read, drawn and verified by OpenCV, which cannot be imported ({error}): pip install "
            f'"gpusift[opencv]", or any of {DISTRIBUTIONS}, {needed} or newer'
        ) from error
    version = tuple(map(int, re.findall(r"\d+", cv2.__version__)[:2]))
    if version < OLDEST:
        raise ImportError(
            f"OpenCV must be at least {needed}, got {cv2.__version__}: upgrade the distribution that is installed "
            f"({DISTRIBUTIONS})"
        )
    return cv2
