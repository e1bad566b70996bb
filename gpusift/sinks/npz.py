"""A sink of `.npz` files: a folder with `<image name>.npz` for each image, and the run's settings in `gpusift.json`."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpusift import npz
from gpusift.errors import is_of_machine
from gpusift.features import Features
from gpusift.sinks.base import OutputExistsError, RefusedImageError, record_of, settings_in_folder
from gpusift.storage.atomic import remove_temporaries, sync_folder, write_whole

SETTINGS = "gpusift.json"
PENDING = ".gpusift.pending"
RESERVED = {SETTINGS, PENDING, "failures.jsonl", ".gpusift.lock"}

# Errors of a file that its name causes; the sink itself is sound.
NAME_ERRORS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.EILSEQ}


class NpzFormat:
    """Folders of `.npz` files; see `gpusift.sinks.base.Format`."""

    name = "npz"
    suffixes: tuple[str, ...] = ()
    failures_file = "failures.jsonl"
    sift_parameters: Mapping[str, Any] = {}
    exif_orientation = True
    max_size: int | None = None

    def own_files(self, path: Path) -> list[Path]:
        """Return the file of settings and the folder of what is not committed."""
        return [path / SETTINGS, path / PENDING]

    def settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings: the format takes any."""
        return settings

    def recorded_settings(self, path: Path) -> dict[str, Any] | None:
        """Return the settings of the run that made this folder; None if it has neither settings nor `.npz` files."""
        return settings_in_folder(path, SETTINGS, _npz_files(path))

    def clear(self, path: Path) -> None:
        """Remove the `.npz` files and the settings, unless some file is not gpusift's."""
        for file in _npz_files(path):
            if not _is_ours(file):
                raise OutputExistsError(file, "must be gpusift's to be overwritten, but it is some other .npz file")
        for file in _npz_files(path):
            file.unlink()
        (path / SETTINGS).unlink(missing_ok=True)

    def open_store(self, path: Path, settings: dict[str, Any]) -> NpzStore:
        """Open the folder, or make it a sink."""
        remove_temporaries(path / SETTINGS)
        if not (path / SETTINGS).exists():
            write_whole(path / SETTINGS, record_of(settings).encode())
        return NpzStore(path)


class NpzStore:
    """A folder of `.npz` files. What is not committed is in a hidden folder in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending = folder / PENDING
        self._files: dict[Path, Path] = {}  # final name -> temporary file
        self._folded: set[str] = set()  # the final names, folded
        self._written = 0
        shutil.rmtree(self._pending, ignore_errors=True)

    def __contains__(self, name: object) -> bool:
        """Whether the folder has an image's result: a whole file of gpusift's, under this name."""
        return not self._is_reserved(str(name)) and _is_ours(self._path(str(name)))

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None) -> None:
        """Take an image's features, see `gpusift.sinks.base.Store`."""
        path = self._path(name)
        self._commit_if_named_alike(path)
        if self._is_reserved(name):
            raise RefusedImageError(f"name must not begin with that of a file of the output's own, got {name!r}")
        try:
            if not self._files.keys().isdisjoint(path.parents):
                raise NotADirectoryError(errno.ENOTDIR, "another image's result has the name of its folder")
            if os.path.realpath(path.parent) != os.fspath(path.parent):
                raise NotADirectoryError(errno.ENOTDIR, "a folder in it is a link, which may lead out of the output")
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "something else has the name of its result", os.fspath(path))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in NAME_ERRORS:
                raise
            reason = getattr(error, "strerror", None) or error
            raise RefusedImageError(
                f"name must be possible for a file, got {name!r}: {reason}; rename the image"
            ) from None
        self._written += 1
        temporary = self._pending / f"{self._written}.npz"
        self._pending.mkdir(exist_ok=True)
        npz.write(temporary, features, image_shape)
        self._files[path] = temporary
        self._folded.add(_folded(path))

    def _commit_if_named_alike(self, path: Path) -> None:
        """Give waiting files their names, if one is this file's where case or the form of Unicode does not count."""
        if _folded(path) in self._folded:
            self.commit()

    def commit(self) -> None:
        """Have the disk hold the files, then give them their names."""
        for temporary in self._files.values():
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        above = set(self._folder.parents)
        folders = {folder for path in self._files for folder in path.parents} - above
        for path, temporary in self._files.items():
            os.replace(temporary, path)
        self._files, self._folded = {}, set()
        for folder in folders:
            sync_folder(folder)

    def finish(self) -> None:
        """Remove the hidden folder."""
        shutil.rmtree(self._pending, ignore_errors=True)

    def abandon(self) -> None:
        """Remove the hidden folder and what is in it."""
        shutil.rmtree(self._pending, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"

    @staticmethod
    def _is_reserved(name: str) -> bool:
        """Whether the result of this name would lie in a folder that has the name of a file of the sink's own."""
        first, slash, _ = name.partition("/")
        return bool(slash) and first in RESERVED


def _folded(path: Path) -> str:
    """Return what two names have in common that are one name where case or Unicode's forms make no difference."""
    return unicodedata.normalize("NFKD", os.fspath(path).casefold()).casefold()


def _npz_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        if PENDING in folders:
            folders.remove(PENDING)
        yield from (Path(where, file) for file in files if file.endswith(".npz"))


def _is_ours(file: Path) -> bool:
    """Whether a file has an image's features; links do not count, as they may lead out of the output.

    Raises
    ------
    OSError
        The machine cannot read it, so that nothing is known of it.
    """
    try:
        if file.is_symlink() or not file.is_file():
            return False
        with zipfile.ZipFile(file) as archive:
            return {"positions.npy", "image_shape.npy"} <= set(archive.namelist())
    except OSError as error:
        if is_of_machine(error) or error.errno == errno.EIO:
            raise
        return False
    except (ValueError, OverflowError, NotImplementedError, struct.error, zipfile.BadZipFile):
        return False
