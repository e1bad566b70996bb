"""What COLMAP makes of image files before it looks for features: cameras, rigs, frames, positions by GPS."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLDEST_PYCOLMAP = 4  # descriptors with a type


@dataclass
class Imported:
    """What COLMAP knows of one image: pycolmap's objects."""

    image: Any
    camera: Any
    rig: Any
    frame: Any
    priors: list[Any]

    def write(self, database: Any) -> None:
        """Write it into another database, under the same numbers; the camera unless it is there."""
        if not database.exists_camera(self.camera.camera_id):
            database.write_camera(self.camera, use_camera_id=True)
            database.write_rig(self.rig, use_rig_id=True)
        database.write_frame(self.frame, use_frame_id=True)
        database.write_image(self.image, use_image_id=True)
        for prior in self.priors:
            database.write_pose_prior(prior, use_pose_prior_id=True)


def import_pycolmap() -> Any:
    """Return the module pycolmap.

    Raises
    ------
    ImportError
        It is not installed, or too old; the message says how to install it.
    """
    import cv2  # noqa: F401 - after pycolmap and Pillow, a PNG that OpenCV writes crashes (pycolmap 4.2.1, OpenCV 5.0)

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


def reader_options(camera_model: str, camera_params: Sequence[float] | None) -> Any:
    """Make COLMAP's options for reading images.

    Parameters
    ----------
    camera_model : str
        The name of a model of COLMAP's.
    camera_params : sequence of float or None
        Its parameters, in COLMAP's order; None to guess them from EXIF.

    Returns
    -------
    pycolmap.ImageReaderOptions

    Raises
    ------
    ValueError
        There is no such model, or it has other parameters.
    """
    pycolmap = import_pycolmap()
    models = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if camera_model not in models:
        raise ValueError(f"camera_model must be one of {', '.join(models)}, got {camera_model!r}")
    if camera_params is None:
        return pycolmap.ImageReaderOptions(camera_model=camera_model)
    params = [float(value) for value in camera_params]
    expected = pycolmap.Camera.create_from_model_name(0, camera_model, 1.0, 1, 1)
    if len(params) != len(expected.params):
        raise ValueError(f"camera_params of {camera_model} must be {expected.params_info}, got {params}")
    return pycolmap.ImageReaderOptions(camera_model=camera_model, camera_params=", ".join(map(repr, params)))


def import_images(folder: Path, names: Sequence[str], reader: Any, single_camera: bool) -> dict[str, Imported]:
    """Have COLMAP import image files.

    Parameters
    ----------
    folder : path
        The folder of all images.
    names : sequence of str
        Paths in this folder, with forward slashes.
    reader : pycolmap.ImageReaderOptions
        See `reader_options`.
    single_camera : bool
        All images are of one camera; otherwise those that EXIF says are of the same one share it.

    Returns
    -------
    imported : dict
        By name; images that COLMAP did not take are missing.
    """
    pycolmap = import_pycolmap()
    mode = pycolmap.CameraMode.SINGLE if single_camera else pycolmap.CameraMode.AUTO
    known = [name for name in names if _is_utf8(name)]
    if not known:
        return {}  # no names would be all files of the folder
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "images.db"
        pycolmap.Database.open(path).close()
        pycolmap.import_images(path, folder, mode, known, reader)
        with pycolmap.Database.open(path) as database:
            return _read(database)


def _read(database: Any) -> dict[str, Imported]:
    cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
    rigs = {rig.rig_id: rig for rig in database.read_all_rigs()}
    frames = {frame.frame_id: frame for frame in database.read_all_frames()}
    priors: dict[int, list[Any]] = {}
    for prior in database.read_all_pose_priors():
        priors.setdefault(prior.corr_data_id.id, []).append(prior)
    found = {}
    for image in database.read_all_images():
        frame = frames[image.frame_id]
        known = priors.get(image.image_id, [])
        found[image.name] = Imported(image, cameras[image.camera_id], rigs[frame.rig_id], frame, known)
    return found


def _is_utf8(name: str) -> bool:
    """Whether COLMAP can take a file's name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
