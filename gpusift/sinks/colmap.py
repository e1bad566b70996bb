"""A sink in a COLMAP database, see `gpusift.colmap`; its table `gpusift` has the run's settings.

An image gets a camera of its own, with COLMAP's guess of the focal length, 1.2 times the longer side: a sink sees
features, not files with EXIF. (`gpusift colmap` has COLMAP read the files; pycolmap can change cameras afterwards.)

A commit is one transaction of SQLite. pycolmap makes the tables; the rows are those that it writes, see `ColmapStore`.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gpusift.colmap import check_descriptors, keypoint_rows, side_files
from gpusift.colmap.cameras import import_pycolmap
from gpusift.features import Features
from gpusift.sinks.base import not_ours, record_of, settings_in
from gpusift.storage.atomic import sync_folder

FAILURES = None

CAMERA_MODEL = "SIMPLE_RADIAL"
FOCAL_LENGTH = 1.2  # in longer sides of the image: COLMAP's guess


def check(settings: dict[str, Any]) -> None:
    """See that pycolmap is there, and that features are such as COLMAP has them.

    Raises
    ------
    ImportError, ValueError
        They are not.
    """
    import_pycolmap()
    for name, wanted in (("descriptor_layout", "ubc"), ("exif_orientation", False)):
        if settings.get(name, wanted) != wanted:
            raise ValueError(f"{name} of a COLMAP database must be {wanted!r}, got {settings[name]!r}")


def settings_of(path: Path) -> dict[str, Any] | None:
    """Return the settings of the run that made this database; None if there is none.

    Raises
    ------
    FileExistsError
        There is something else.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise not_ours(path)
    try:
        with closing(sqlite3.connect(path, timeout=1)) as database:
            found = database.execute("SELECT record FROM gpusift").fetchone()
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error) or "not a database" in str(error):
            raise not_ours(path) from error
        number = errno.EIO if os.access(path, os.R_OK | os.W_OK) else errno.EACCES
        raise OSError(number, f"SQLite says: {error}", os.fspath(path)) from error
    settings = None if found is None else settings_in(found[0])
    if settings is None:
        raise not_ours(path)
    return settings


def clear(path: Path) -> None:
    """Remove the database.

    Raises
    ------
    FileExistsError
        There is something else than a file in its place.
    """
    if os.path.lexists(path) and not path.is_file():
        raise not_ours(path)
    for file in side_files(path):
        file.unlink(missing_ok=True)


def open_store(path: Path, settings: dict[str, Any]) -> ColmapStore:
    """Open a database that is a sink, or make it."""
    pycolmap = import_pycolmap()
    if not path.exists():
        _make(path, settings, pycolmap)
    return ColmapStore(path, pycolmap)


def _make(path: Path, settings: dict[str, Any], pycolmap: Any) -> None:
    """Make a database without images, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    clear(path)  # a log of what once was there would be read into what comes
    clear(temporary)
    temporary.touch()  # where it cannot be written, Python's OSError says why
    try:
        with _as_os_error(path):
            pycolmap.Database.open(temporary).close()
            with closing(sqlite3.connect(temporary)) as database, database:
                database.execute("CREATE TABLE gpusift (record TEXT)")
                database.execute("INSERT INTO gpusift VALUES (?)", (record_of(settings),))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        clear(temporary)
    sync_folder(path.parent)


class ColmapStore:
    """An open database; what is not committed is in memory.

    It is written with Python's SQLite: pycolmap ends the process when a transaction fails, on a full disk for one, and
    does not wait for the disk when it succeeds.
    """

    def __init__(self, path: Path, pycolmap: Any) -> None:
        self._path, self._colmap = path, pycolmap
        self._images: list[tuple[str, Features, tuple[int, int]]] = []
        self._reading = threading.Lock()
        with _as_os_error(path):
            self._database = _connect(path)
            self._reader = _connect(path)  # for `in`, of another thread
            self._database.execute("PRAGMA synchronous = FULL")
            numbers = "SELECT max(image_id) FROM images UNION SELECT max(camera_id) FROM cameras"
            self._number = max(number or 0 for (number,) in self._database.execute(numbers))

    def __contains__(self, name: object) -> bool:
        with self._reading, suppress(sqlite3.ProgrammingError):  # closed by another thread
            found = self._reader.execute("SELECT 1 FROM images WHERE name = ?", (_printable(str(name)),))
            return found.fetchone() is not None
        return False

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take an image's features, see `gpusift.sinks.Store`."""
        check_descriptors(features)
        if "\0" in name:
            raise ValueError(f"name must have no character 0, got {name!r}; rename the image")
        name.encode()  # a UnicodeEncodeError is a ValueError
        self._images.append((name, features, image_shape))

    def commit(self) -> None:
        """Write them in one transaction."""
        with _as_os_error(self._path):
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
        with _as_os_error(self._path), self._reading:
            self._reader.close()
            self._database.close()

    def abandon(self) -> None:
        """Close the database as it is."""
        with suppress(sqlite3.Error), self._reading:
            self._reader.close()
            self._database.close()

    def _write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Write an image, with a camera, a rig and a frame of its own."""
        self._number += 1
        number, (rows, cols) = self._number, image_shape
        camera = self._colmap.Camera.create_from_model_name(
            number, CAMERA_MODEL, FOCAL_LENGTH * max(rows, cols), cols, rows
        )
        sensor = int(camera.sensor_id.type)
        params = np.asarray(camera.params, "<f8").tobytes()
        keypoints = np.ascontiguousarray(keypoint_rows(features), "<f4")
        descriptors = np.ascontiguousarray(features.descriptors)
        kind = int(self._colmap.FeatureExtractorType.SIFT)
        self._insert(
            "cameras",
            camera_id=number,
            model=int(camera.model),
            width=cols,
            height=rows,
            params=params,
            prior_focal_length=0,
        )
        self._insert("rigs", rig_id=number, ref_sensor_id=number, ref_sensor_type=sensor)
        self._insert("images", image_id=number, name=name, camera_id=number)
        self._insert("frames", frame_id=number, rig_id=number)
        self._insert("frame_data", frame_id=number, data_id=number, sensor_id=number, sensor_type=sensor)
        self._insert("keypoints", image_id=number, rows=len(keypoints), cols=keypoints.shape[1], data=keypoints)
        self._insert(
            "descriptors",
            image_id=number,
            type=kind,
            rows=len(descriptors),
            cols=descriptors.shape[1],
            data=descriptors,
        )

    def _insert(self, table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        self._database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None)


def _printable(name: str) -> str:
    """Return a name such that SQLite takes it; one that it does not take is in no database."""
    return name.encode(errors="replace").decode()


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Make errors of the two libraries of SQLite OSErrors."""
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        number = errno.ENOSPC if "disk is full" in str(error) else errno.EIO
        raise OSError(number, f"SQLite says: {' '.join(str(error).split())}", os.fspath(path)) from error
