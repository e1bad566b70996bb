"""Cameras and positions of image files, as COLMAP's own import of images makes them: from EXIF, or guessed."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusift.opencv_package import import_cv2
from gpusift.sinks.base import RefusedImageError
from gpusift.sources.locations import Location

OLDEST_PYCOLMAP = 4  # descriptors with a type

CAMERA_MODEL = "SIMPLE_RADIAL"
FOCAL_LENGTH = 1.2  # in longer sides of the image: COLMAP's guess

SINGLE = "single"  # the key of the one camera of all images
FOLDER = "folder "  # begins the key of the camera of a folder
PER = ("folder", "image")  # what has a camera of its own

UNKNOWN = (math.nan, math.nan, math.nan)

# Direction of gravity in camera coordinates (x right, y down), by EXIF's orientation.
GRAVITY = {1: (0.0, 1.0, 0.0), 3: (0.0, -1.0, 0.0), 6: (1.0, 0.0, 0.0), 8: (-1.0, 0.0, 0.0)}


@dataclass(frozen=True)
class ImageFile:
    """What COLMAP reads from an image file.

    Attributes
    ----------
    camera : pycolmap.Camera
        Its camera, without a number.
    key : str or None
        Images with the same key share a camera; None: the image has a camera of its own.
    position : (float, float, float)
        Latitude and longitude in degrees, altitude in metres, by GPS; `UNKNOWN` if EXIF has none.
    gravity : (float, float, float)
        Direction of gravity in camera coordinates, by EXIF's orientation; `UNKNOWN` if EXIF has none.
    """

    camera: Any
    key: str | None = None
    position: tuple[float, float, float] = UNKNOWN
    gravity: tuple[float, float, float] = UNKNOWN


class CameraReader:
    """Reads the cameras of image files.

    Parameters
    ----------
    model : str
        The name of a camera model of COLMAP's.
    params : sequence of float or None
        Its parameters, in COLMAP's order; None to take the focal length from EXIF, or to guess it.
    single : bool
        All images are of one camera, and so of one size.
    per : {"folder", "image"}, optional
        Each folder, whose images are of one size, or each image has a camera of its own. By default, and if not
        `single`, those images share a camera that EXIF says are of the same one.

    Raises
    ------
    ImportError
        pycolmap is not installed, or too old.
    ValueError
        There is no such model, or it has other parameters; or `per` is unknown, or not for a single camera.
    """

    def __init__(self, model: str, params: Sequence[float] | None, single: bool, per: str | None = None) -> None:
        if per not in (None, *PER) or (single and per):
            raise ValueError(f"camera_per must be 'folder', 'image' or None, and None with single_camera, got {per!r}")
        self._per = per
        self._pycolmap = import_pycolmap()
        self._model, self._single = model, single
        self._params = None if params is None else [float(value) for value in params]
        models = [name for name in self._pycolmap.CameraModelId.__members__ if name != "INVALID"]
        if model not in models:
            raise ValueError(f"camera_model must be one of {', '.join(models)}, got {model!r}")
        expected = self._camera(1.0, (1, 1))
        if self._params is not None and len(self._params) != len(expected.params):
            raise ValueError(f"camera_params of {model} must be {expected.params_info}, got {self._params}")

    def read(self, url: str | None, image_shape: tuple[int, int], name: str = "") -> ImageFile:
        """Read an image's camera from its file, or guess it if the file is not on this machine.

        Parameters
        ----------
        url : str or None
            Where the image is.
        image_shape : (int, int)
            Rows and columns of the image that features are of.
        name : str, optional
            The image's name, which has its folder.

        Raises
        ------
        RefusedImageError
            COLMAP does not read the file, or reads another size.
        """
        if url is None or not (location := Location.parse(url)).is_local:
            return ImageFile(self._guessed(image_shape), self._key(name, None))
        bitmap = self._bitmap(Path(location.path))
        if (bitmap.height, bitmap.width) != image_shape:
            raise RefusedImageError(
                f"must have the {bitmap.height} rows and {bitmap.width} columns that COLMAP reads, got "
                f"{image_shape[0]} and {image_shape[1]}; COLMAP does not turn pictures as EXIF says"
            )
        focal_length = bitmap.exif_focal_length()
        camera = self._guessed(image_shape) if focal_length is None else self._camera(focal_length, image_shape)
        camera.has_prior_focal_length |= focal_length is not None
        model = bitmap.exif_camera_model()
        key = None if model is None else f"{model} {image_shape[1]} x {image_shape[0]}"
        position = bitmap.exif_latitude(), bitmap.exif_longitude(), bitmap.exif_altitude()
        gravity = GRAVITY.get(bitmap.exif_orientation(), UNKNOWN)
        return ImageFile(camera, self._key(name, key), UNKNOWN if None in position else position, gravity)

    def _key(self, name: str, by_exif: str | None) -> str | None:
        if self._single:
            return SINGLE
        if self._per == "folder":
            return f"{FOLDER}{name.rpartition('/')[0]}"
        return None if self._per == "image" else by_exif

    def _bitmap(self, path: Path) -> Any:
        with quiet(self._pycolmap):
            bitmap = self._pycolmap.Bitmap.read(path, False)
        if bitmap is None:
            raise RefusedImageError("must be an image that COLMAP reads, but COLMAP does not")
        return bitmap

    def _guessed(self, image_shape: tuple[int, int]) -> Any:
        return self._camera(FOCAL_LENGTH * max(image_shape), image_shape)

    def _camera(self, focal_length: float, image_shape: tuple[int, int]) -> Any:
        rows, cols = image_shape
        camera = self._pycolmap.Camera.create_from_model_name(0, self._model, focal_length, cols, rows)
        if self._params is not None:
            if len(self._params) == len(camera.params):
                camera.params = self._params
            camera.has_prior_focal_length = True
        return camera


def import_pycolmap() -> Any:
    """Return the module pycolmap.

    Raises
    ------
    ImportError
        It is not installed, or too old; the message says how to install it.
    """
    import_cv2()  # after pycolmap and Pillow, a PNG that OpenCV writes crashes (pycolmap 4.2.1, OpenCV 5.0)

    terminate = signal.getsignal(signal.SIGTERM)
    try:
        import pycolmap
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"COLMAP databases need pycolmap: pip install pycolmap ({error})") from error
    version = pycolmap.__version__
    if int(version.split(".")[0]) < OLDEST_PYCOLMAP:
        raise ImportError(f"pycolmap must be at least {OLDEST_PYCOLMAP}.0, got {version}: pip install -U pycolmap")
    with suppress(TypeError, ValueError):  # set by no Python code; or in another thread than the main one
        signal.signal(signal.SIGTERM, terminate)  # pycolmap takes it, and would end in a core dump
    return pycolmap


@contextmanager
def quiet(pycolmap: Any) -> Iterator[None]:
    """Turn COLMAP's log off: gpusift reports the errors of images."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
