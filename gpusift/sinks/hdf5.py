"""A sink in one HDF5 file with hloc's layout, see `gpusift.hdf5`; its attribute `gpusift` records the run's settings.

HDF5 does not promise a valid file when its writer is killed. So the file changes by transactions (see
`gpusift.storage.transaction`): after a kill it holds what was committed. For some ten microseconds of each commit it is
valid only together with the journal at its end; the next run, or `gpusift.hdf5.recover`, completes it from there. Data
that were not committed may follow the end of the file: readers ignore them, and the next run cuts them off.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpusift.features import Features
from gpusift.hdf5 import SUFFIXES, hloc_data, recover, write_group
from gpusift.profiles import arguments_of
from gpusift.sinks.base import OutputExistsError, OutputInUseError, RefusedImageError, is_file, record_of, settings_in
from gpusift.storage.atomic import remove_temporaries, write_whole
from gpusift.storage.transaction import TransactionalFile

ATTRIBUTE = "gpusift"

SIZE, ARRAYS = "image_size", ("keypoints", "descriptors")  # which the group of each image with a result has

# Of HDF5 1.8: groups for any number of images, and no mark in the file that a writer has it open.
VERSIONS = ("v108", "v108")


class Hdf5Format:
    """HDF5 files; see `gpusift.sinks.base.Format`."""

    name = "hdf5"
    suffixes = SUFFIXES
    failures_file = None
    sift_parameters: Mapping[str, Any] = arguments_of("colmap")
    exif_orientation = False  # hloc and COLMAP read images as they are stored
    max_size: int | None = None

    def own_files(self, path: Path) -> list[Path]:
        """Return no files: all is in the one file."""
        return []

    def settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings: the format takes any."""
        return settings

    def recorded_settings(self, path: Path) -> dict[str, Any] | None:
        """Return the settings of the run that made this file; None if there is no file yet."""
        import h5py

        if not is_file(path):
            return None
        recover(path)
        try:
            with h5py.File(path) as file:
                settings = settings_in(file.attrs.get(ATTRIBUTE, ""))
        except Exception as error:  # h5py raises errors of many kinds for a damaged or hostile file
            if isinstance(error, BlockingIOError) or "already open for" in str(error):
                raise OutputInUseError(path, "must not be open in another program for writing, but it is") from error
            if not os.access(path, os.R_OK):
                raise
            raise OutputExistsError(path) from error
        if settings is None:
            raise OutputExistsError(path)
        return settings

    def clear(self, path: Path) -> None:
        """Remove the file."""
        if is_file(path):
            path.unlink()

    def open_store(self, path: Path, settings: dict[str, Any]) -> Hdf5Store:
        """Open the file, or make it."""
        import h5py

        remove_temporaries(path)
        recover(path)
        if not path.exists():
            memory = io.BytesIO()
            with h5py.File(memory, "w", libver=VERSIONS) as file:
                file.attrs[ATTRIBUTE] = record_of(settings)
            write_whole(path, memory.getvalue())
        return Hdf5Store(path, settings.get("normalization", "l2"))


class Hdf5Store:
    """An open file. Before a commit, new data are on the disk after the committed data, and changed data in memory."""

    def __init__(self, path: Path, normalization: str) -> None:
        import h5py

        self._normalization = normalization
        self._disk = TransactionalFile(path)
        try:
            self._file = h5py.File(self._disk, "r+", libver=VERSIONS)
        except BaseException:
            self._disk.close()
            raise
        try:
            self._file.flush()  # HDF5 sets the length: what a killed process has appended is cut off
            self._disk.commit()
        except BaseException:
            self.abandon()
            raise

    def __contains__(self, name: object) -> bool:
        import h5py

        name = str(name)
        if "\0" in name or not self._is_inside(name):
            return False
        try:
            size = self._file.get(f"{name}/{SIZE}")
            has_rest = all(self._file.id.links.exists(f"{name}/{key}".encode()) for key in ARRAYS)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError):  # not a name of a group, or a link
            return False
        # A group without these belongs to other names, or to another program; data in other files do not count.
        is_own = isinstance(size, h5py.Dataset) and size.shape == (2,) and not (size.is_virtual or size.external)
        return is_own and has_rest

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None) -> None:
        """Take an image's features, see `gpusift.sinks.base.Store`."""
        try:
            if "\0" in name:
                raise ValueError("a name ends at a character 0")
            if not self._is_inside(name):
                raise ValueError("a group in it is a link, which may lead to another file")
            data = hloc_data(features, image_shape, self._normalization)
            write_group(self._file, name, data, features.provenance)
        except (TypeError, ValueError) as error:
            self._disk.check()
            raise RefusedImageError(
                f"name must be possible for a group in HDF5, got {name!r}: {error}; rename the image"
            ) from None
        finally:
            self._disk.check()

    def _is_inside(self, name: str) -> bool:
        """Whether a group is in this file, wherever it is: no part of its path is a link of HDF5 to somewhere else."""
        import h5py

        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            try:
                link = self._file.get("/".join(parts[:end]), getlink=True)
            except (KeyError, TypeError, ValueError):  # the rest does not exist
                return True
            if link is None:
                return True
            if not isinstance(link, h5py.HardLink):
                return False
        return True

    def commit(self) -> None:
        """Write them in one transaction."""
        self._file.flush()
        self._disk.commit()

    def finish(self) -> None:
        """Close the file."""
        self._file.close()
        self._disk.commit()
        self._disk.close()

    def abandon(self) -> None:
        """Close the file as it was at the last commit."""
        with suppress(Exception):
            self._file.close()
        self._disk.close()
