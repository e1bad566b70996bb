"""A sink in a COLMAP database; its tables `gpusift` and `gpusift_cameras` record the run's settings and its cameras.

What COLMAP expects of features is in `gpusift.sinks.colmap.conventions`. Cameras are those of COLMAP's own import: the
focal length from EXIF, or 1.2 times the longer side; images of one camera, by EXIF, share it; positions are from EXIF,
too. Of an image that is not on this machine the focal length is guessed.

A commit is one transaction of SQLite. pycolmap makes the tables; the rows are those that it writes.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.sinks.base import OutputExistsError, OutputInUseError, RefusedImageError, is_file, record_of, settings_in
from gpusift.sinks.colmap.cameras import CAMERA_MODEL, SINGLE, UNKNOWN, CameraReader, ImageFile, import_pycolmap
from gpusift.sinks.colmap.conventions import (
    SIFT_PARAMETERS,
    check_descriptors,
    is_colmaps_own,
    keypoint_rows,
    side_files,
)
from gpusift.sinks.colmap.masks import Masks
from gpusift.storage.atomic import remove_temporaries, sync_folder, temporary_folder

# Settings of this format's own, with their defaults; see `CameraReader` and `Masks`.
CAMERA_SETTINGS: dict[str, Any] = {
    "camera_model": CAMERA_MODEL,
    "camera_params": None,
    "single_camera": False,
    "camera_per": None,
}
OWN_SETTINGS: dict[str, Any] = {**CAMERA_SETTINGS, "mask_path": None}

MAX_SIZE = 3200  # longer side of an image, above which COLMAP's SIFT shrinks it

NUMBERED = ("images", "cameras", "frames", "rigs", "pose_priors")

HAS_IMAGE = "SELECT 1 FROM images WHERE name = ?"
HAS_RESULT = "SELECT 1 FROM images JOIN keypoints USING (image_id) JOIN descriptors USING (image_id) WHERE name = ?"

TABLES = (
    "CREATE TABLE gpusift (record TEXT)",
    "CREATE TABLE gpusift_cameras (key TEXT PRIMARY KEY, camera_id INTEGER)",
)


class ColmapFormat:
    """COLMAP databases; see `gpusift.sinks.base.Format`."""

    name = "colmap"
    suffixes = (".db",)
    failures_file = None
    sift_parameters: Mapping[str, Any] = SIFT_PARAMETERS
    exif_orientation = False  # COLMAP reads pictures as they are stored
    max_size: int | None = MAX_SIZE

    def own_files(self, path: Path) -> list[Path]:
        """Return the files that SQLite writes beside the database."""
        return side_files(path)[1:]

    def settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Check that pycolmap is installed and features are such as COLMAP has them; add the settings of cameras."""
        for name, wanted in (("descriptor_layout", "ubc"), ("exif_orientation", False)):
            if settings.get(name, wanted) != wanted:
                raise ValueError(f"{name} of a COLMAP database must be {wanted!r}, got {settings[name]!r}")
        settings = {**OWN_SETTINGS, **settings}
        _camera_reader(settings)
        Masks(settings["mask_path"])
        return settings

    def recorded_settings(self, path: Path) -> dict[str, Any] | None:
        """Return the settings of the run that made this database; None if there is none yet, or only COLMAP's own."""
        if not is_file(path):
            return None
        try:
            with closing(sqlite3.connect(path, timeout=1)) as database:
                if database.execute("SELECT 1 FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone():
                    raise OutputExistsError(
                        path, "must have tables only, as COLMAP makes them, but has views or triggers"
                    )
                if is_colmaps_own(database):
                    return None
                record = database.execute("SELECT record FROM gpusift").fetchone()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error) or "not a database" in str(error):
                raise OutputExistsError(path) from error
            if "locked" in str(error):
                raise OutputInUseError(path, f"must not be in use by another program (SQLite says: {error})") from error
            number = errno.EIO if os.access(path, os.R_OK | os.W_OK) else errno.EACCES
            raise OSError(number, f"SQLite says: {error}", os.fspath(path)) from error
        settings = None if record is None else settings_in(record[0])
        if settings is None:
            raise OutputExistsError(path)
        return settings

    def clear(self, path: Path) -> None:
        """Remove the database or other file, unless it is a database of COLMAP's own."""
        with suppress(sqlite3.DatabaseError):
            if is_file(path):
                with closing(sqlite3.connect(path, timeout=1)) as database:
                    if is_colmaps_own(database):
                        raise OutputExistsError(path, "must not be a database of COLMAP's own to be overwritten")
        _remove(path)

    def open_store(self, path: Path, settings: dict[str, Any]) -> ColmapStore:
        """Open the database, or make it."""
        remove_temporaries(path)
        if not path.exists():
            self._make(path, settings)
        elif self.recorded_settings(path) is None:
            with as_os_error(path), closing(sqlite3.connect(path)) as database, database:
                _add_record(database, settings)
        return ColmapStore(path, _camera_reader(settings), Masks(settings["mask_path"]))

    def _make(self, path: Path, settings: dict[str, Any]) -> None:
        """Make a database without images, whole or not at all."""
        pycolmap = import_pycolmap()
        self.clear(path)  # SQLite would read the log of an earlier database into the new one
        with temporary_folder(path) as folder:
            temporary = folder / "database.db"
            temporary.touch()  # where it cannot be written, Python's OSError says why
            with as_os_error(path):
                pycolmap.Database.open(temporary).close()
                with closing(sqlite3.connect(temporary)) as database:
                    with database:
                        _add_record(database, settings)
                    _checkpoint(database)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_folder(path.parent)


def _remove(path: Path) -> None:
    for file in side_files(path):
        file.unlink(missing_ok=True)


def _add_record(database: sqlite3.Connection, settings: dict[str, Any]) -> None:
    """Add the tables of this sink's own to a database."""
    for table in TABLES:
        database.execute(table)
    database.execute("INSERT INTO gpusift VALUES (?)", (record_of(settings),))


def _checkpoint(database: sqlite3.Connection) -> None:
    """Move SQLite's log into the database's file. Closing does so too, but ignores that it fails."""
    busy, pages, moved = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy or pages != moved:
        raise sqlite3.OperationalError("its log cannot be moved into the file")


def _camera_reader(settings: dict[str, Any]) -> CameraReader:
    return CameraReader(*(settings[name] for name in CAMERA_SETTINGS))


class ColmapStore:
    """An open database. What is not committed is in memory.

    It is written with Python's SQLite: pycolmap ends the process when a transaction fails, on a full disk for example,
    and does not wait for the disk when it succeeds.
    """

    def __init__(self, path: Path, cameras: CameraReader, masks: Masks) -> None:
        self._path, self._cameras, self._masks, self._colmap = path, cameras, masks, import_pycolmap()
        self._images: list[tuple[str, Features, ImageFile]] = []  # not committed
        self._reading = threading.Lock()
        with as_os_error(path), ExitStack() as opened:
            self._database = opened.enter_context(closing(_connect(path)))
            self._reader = opened.enter_context(closing(_connect(path)))  # for `in`, of another thread
            self._database.execute("PRAGMA synchronous = FULL")
            self._last = {table: self._largest(table) for table in NUMBERED}
            shared = self._database.execute(
                "SELECT key, camera_id, width, height FROM gpusift_cameras JOIN cameras USING (camera_id)"
            )
            self._shared = {key: (number, (width, height)) for key, number, width, height in shared}
            opened.pop_all()

    def __contains__(self, name: object) -> bool:
        with suppress(UnicodeEncodeError):
            return self._finds(HAS_RESULT, str(name))
        return False

    def _finds(self, query: str, name: str) -> bool:
        with self._reading, suppress(sqlite3.ProgrammingError):  # closed by another thread
            return self._reader.execute(query, (name,)).fetchone() is not None
        return False

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None) -> None:
        """Take an image's features, see `gpusift.sinks.base.Store`."""
        try:
            check_descriptors(features)
            name.encode()
        except UnicodeEncodeError as error:
            raise RefusedImageError(f"name must be UTF-8, got {name!r}: {error.reason}; rename the image") from None
        except ValueError as error:
            raise RefusedImageError(str(error)) from None
        if "\0" in name:
            raise RefusedImageError(f"name must have no character 0, got {name!r}; rename the image")
        if self._finds(HAS_IMAGE, name):
            raise RefusedImageError(
                f"the database must not have the image without features, as another program wrote it, got {name!r}"
            )
        image = self._cameras.read(url, image_shape, name)
        self._check_size_of_shared(image)
        self._images.append((name, self._masks.applied(features, name, image_shape), image))

    def commit(self) -> None:
        """Write them in one transaction."""
        with as_os_error(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for image in self._images:
                    self._write(*image)
                self._database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise
        self._images = []

    def finish(self) -> None:
        """Close the database: SQLite moves all of it into the one file."""
        with as_os_error(self._path), self._reading:
            self._reader.close()
            with closing(self._database):
                _checkpoint(self._database)

    def abandon(self) -> None:
        """Close the database as it is."""
        with suppress(sqlite3.Error), self._reading:
            self._reader.close()
            self._database.close()

    def _check_size_of_shared(self, image: ImageFile) -> None:
        """Refuse an image of another size than the one camera of all images, or of its folder."""
        key, size = image.key, (image.camera.width, image.camera.height)
        pending = ((other.camera.width, other.camera.height) for _, _, other in self._images if other.key == key)
        first = self._shared[key][1] if key in self._shared else next(pending, size)
        if key is not None and size != first:
            of = "a single camera" if key == SINGLE else "the camera of their folder"
            raise RefusedImageError(
                f"must be of the first image's size, as all are of {of}: {first[0]} x {first[1]} pixels, "
                f"got {size[0]} x {size[1]}"
            )

    def _write(self, name: str, features: Features, image: ImageFile) -> None:
        """Write an image, its camera unless the database has it, and its features."""
        sensor = int(image.camera.sensor_id.type)
        camera = self._camera(image, sensor)
        number, frame = self._next("images"), self._next("frames")
        self._insert("images", image_id=number, name=name, camera_id=camera)
        self._insert("frames", frame_id=frame, rig_id=camera)
        self._insert("frame_data", frame_id=frame, data_id=number, sensor_id=camera, sensor_type=sensor)
        if image.position != UNKNOWN or image.gravity != UNKNOWN:
            self._insert_prior(number, camera, sensor, image)
        keypoints = np.ascontiguousarray(keypoint_rows(features), "<f4")
        descriptors = np.ascontiguousarray(features.descriptors)
        rows, (_, cols) = len(keypoints), descriptors.shape
        kind = int(self._colmap.FeatureExtractorType.SIFT)
        self._insert("keypoints", image_id=number, rows=rows, cols=keypoints.shape[1], data=keypoints)
        self._insert("descriptors", image_id=number, type=kind, rows=rows, cols=cols, data=descriptors)

    def _camera(self, image: ImageFile, sensor: int) -> int:
        """Return the number of an image's camera, also that of its rig; write both unless the database has them."""
        if image.key is not None and image.key in self._shared:
            return self._shared[image.key][0]
        camera, number = image.camera, self._next("cameras", "rigs")
        size = {"width": camera.width, "height": camera.height}
        params = np.asarray(camera.params, "<f8").tobytes()
        prior = int(camera.has_prior_focal_length)
        self._insert(
            "cameras", camera_id=number, model=int(camera.model), **size, params=params, prior_focal_length=prior
        )
        self._insert("rigs", rig_id=number, ref_sensor_id=number, ref_sensor_type=sensor)
        if image.key is not None:
            self._insert("gpusift_cameras", key=image.key, camera_id=number)
            self._shared[image.key] = number, (camera.width, camera.height)
        return number

    def _insert_prior(self, number: int, camera: int, sensor: int, image: ImageFile) -> None:
        """Write what is known of where an image was taken, and how the camera was held."""
        systems = self._colmap.PosePriorCoordinateSystem
        self._insert(
            "pose_priors",
            pose_prior_id=self._next("pose_priors"),
            corr_data_id=number,
            corr_sensor_id=camera,
            corr_sensor_type=sensor,
            position=np.asarray(image.position, "<f8").tobytes(),
            position_covariance=np.full((3, 3), np.nan, "<f8").tobytes(),
            gravity=np.asarray(image.gravity, "<f8").tobytes(),
            coordinate_system=int(systems.UNDEFINED if image.position == UNKNOWN else systems.WGS84),
        )

    def _next(self, *tables: str) -> int:
        """Return the next number in some tables."""
        number = 1 + max(self._last[table] for table in tables)
        self._last.update(dict.fromkeys(tables, number))
        return number

    def _largest(self, table: str) -> int:
        return int(self._database.execute(f"SELECT max({table[:-1]}_id) FROM {table}").fetchone()[0] or 0)

    def _insert(self, table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        self._database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None)


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Raise errors of the two libraries of SQLite as OSErrors."""
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        number = errno.ENOSPC if "disk is full" in str(error) else errno.EIO
        raise OSError(number, f"SQLite says: {' '.join(str(error).split())}", os.fspath(path)) from error
