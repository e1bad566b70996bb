"""A sink of `.npz` files: a folder with `<image name>.npz` for each image; `gpusift.json` has the run's settings."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpusift import npz
from gpusift.features import Features
from gpusift.sinks.base import not_ours, record_of, settings_in
from gpusift.storage.atomic import remove_temporaries, sync_folder, write_whole

FAILURES = "failures.jsonl"
SETTINGS = "gpusift.json"
PENDING = ".gpusift.pending"

# What an image's name may do to its file; the sink itself is well.
NAME_ERRORS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.EILSEQ}


def check(settings: dict[str, Any]) -> None:
    """Do nothing: any settings will do."""


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the run that made this folder; None if there is none, or one without `.npz` files.

    Raises
    ------
    FileExistsError
        It has other files of this kind.
    """
    if not (folder / SETTINGS).exists():
        if any(_npz_files(folder)):
            raise not_ours(folder)
        return None
    settings = settings_in((folder / SETTINGS).read_bytes())
    if settings is None:
        raise not_ours(folder / SETTINGS)
    return settings


def clear(folder: Path) -> None:
    """Remove results of gpusift's.

    Raises
    ------
    FileExistsError
        It has `.npz` files that are not gpusift's: these are not removed.
    """
    for file in _npz_files(folder):
        if not _is_ours(file):
            said = "must be gpusift's to be overwritten, but it is some other .npz file; choose another folder"
            raise FileExistsError(errno.EEXIST, said, os.fspath(file))
    for file in _npz_files(folder):
        file.unlink()
    (folder / SETTINGS).unlink(missing_ok=True)


def open_store(folder: Path, settings: dict[str, Any]) -> NpzStore:
    """Open a folder that is a sink, or make it one."""
    remove_temporaries(folder / SETTINGS)
    if not (folder / SETTINGS).exists():
        write_whole(folder / SETTINGS, record_of(settings).encode())
    return NpzStore(folder)


class NpzStore:
    """A folder of `.npz` files; what is not committed is in a hidden folder in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending = folder / PENDING
        self._files: dict[Path, Path] = {}
        self._written = 0
        shutil.rmtree(self._pending, ignore_errors=True)

    def __contains__(self, name: object) -> bool:
        try:
            return self._path(str(name)).exists()
        except (OSError, ValueError):
            return False

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take an image's features, see `gpusift.sinks.Store`."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a folder of this name", os.fspath(path))
            os.stat(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in NAME_ERRORS:
                raise ValueError(f"name must do for a file, got {name!r}: {error.strerror}; rename the image") from None
            raise
        self._written += 1
        temporary = self._pending / f"{self._written}.npz"
        npz.save(temporary, features, image_shape)
        self._files[path] = temporary

    def commit(self) -> None:
        """Have the disk hold them, then give them their names."""
        for temporary in self._files.values():
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        above = set(self._folder.parents)
        folders = {folder for path in self._files for folder in path.parents} - above
        for path, temporary in list(self._files.items()):
            os.replace(temporary, path)
            del self._files[path]  # where Ctrl-C comes in between, the next commit does the rest
        for folder in folders:
            sync_folder(folder)

    def finish(self) -> None:
        """Do nothing more: every file is final."""
        shutil.rmtree(self._pending, ignore_errors=True)

    def abandon(self) -> None:
        """Remove what is not committed."""
        shutil.rmtree(self._pending, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"


def _npz_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        if PENDING in folders:
            folders.remove(PENDING)
        yield from (Path(where, file) for file in files if file.endswith(".npz"))


def _is_ours(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return {"positions.npy", "image_shape.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
