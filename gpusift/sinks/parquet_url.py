"""A sink in an object store: a folder of Parquet files, each written by the task of a cluster that computed it.

The files are those of `gpusift.parquet`. Beside them are `_gpusift.json`, the settings; `_failures.jsonl`; and `_run`,
the number of the run that writes, empty when none does.

A task writes a file `_pending-<run>-<key>.parquet`, which engines and `gpusift.parquet.read` leave out. The calling
process renames it when the task's result is there, and then its images are done. So each image is in exactly
one file, although the scheduler may run a task twice, a worker that was considered lost may continue, and a task may
outlive its run. The next run removes the files that were not accepted.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gpusift.parquet import FILE, SETTINGS
from gpusift.sinks.base import OutputExistsError, Row, check_settings, record_of, refuse_irregular, settings_in
from gpusift.sinks.failures import Failures
from gpusift.sinks.parquet import FAILURES, write_file
from gpusift.storage.name_set import NameSet

if TYPE_CHECKING:
    from gpusift.features import Features

RUN = "_run"
OWN_FILES = (SETTINGS, FAILURES, RUN)
PENDING = "_pending-"
READERS = 32  # threads that read the names in files, at the start


def open_parquet_folder(
    url: str, settings: dict[str, Any], *, overwrite: bool = False, retry_failed: bool = False
) -> ParquetFolder:
    """Open a folder of Parquet files: a new one, or that of an earlier run to resume it.

    Parameters
    ----------
    url : str
        The folder, of a file system that fsspec opens and that workers reach: s3://bucket/folder, gs://..., or
        file://... on a disk that all machines share.
    settings : dict
        All that decides the results.
    overwrite : bool, optional
        Remove the files of earlier runs.
    retry_failed : bool, optional
        Images that failed in earlier runs are to be tried again.

    Raises
    ------
    ImportError
        A package is missing: pyarrow, or that of the file system.
    OSError
        The folder cannot be read or written.
    OutputExistsError
        The folder holds other Parquet files, another program's `_gpusift.json`, or a link or pipe in a file's place.
    SettingsDiffer
        It was made with other settings.
    """
    folder = _Folder(url)
    recorded = _settings_in(folder)
    if not overwrite:
        check_settings(url, recorded, settings)
    run = uuid.uuid4().hex
    folder.write(RUN, run.encode())  # before the files are listed: from now on no earlier run adds to them
    folder.remove_pending()
    if overwrite:
        for name in (*folder.files(), FAILURES):
            folder.remove(name)
    if recorded is None or overwrite:
        folder.write(SETTINGS, record_of(settings).encode())
    return ParquetFolder(folder, settings, run, retry_failed)


def recorded_settings_of_url(url: str) -> dict[str, Any] | None:
    """Return the settings of the run that made a folder, as `open_parquet_folder` compares them."""
    return _settings_in(_Folder(url))


def _settings_in(folder: _Folder) -> dict[str, Any] | None:
    """Return the settings of the run that made a folder; None if it has neither settings nor Parquet files."""
    record = folder.read(SETTINGS)
    if record is None:
        if folder.files():
            raise OutputExistsError(folder.url)
        return None
    settings = settings_in(record)
    if settings is None:
        raise OutputExistsError(f"{folder.url}/{SETTINGS}")
    return settings


class ParquetFolder:
    """A sink whose rows are written by `file_writer`, where they are computed; made by `open_parquet_folder`."""

    def __init__(self, folder: _Folder, settings: dict[str, Any], run: str, retry_failed: bool) -> None:
        self.settings = settings
        self.file_writer = RunWriter(folder.url, settings, run)
        self._names = NameSet()
        self._folder, self._run = folder, run
        with ThreadPoolExecutor(READERS) as readers:
            for names in readers.map(folder.names, folder.files()):
                self._names.update(names)
        self._local = TemporaryDirectory()
        path = Path(self._local.name) / FAILURES
        self._kept = folder.read(FAILURES) or b""
        if self._kept:
            path.write_bytes(self._kept)
        self.failures = Failures(path, self, retry=retry_failed)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None = None) -> None:
        """Note an image whose row is in a file."""
        self._names.update([name])

    def commit(self) -> None:
        """Make durable the record of what failed."""
        path = self.failures.path
        failed = path.read_bytes() if path.exists() else b""
        if failed != self._kept:
            _check_run(self._folder, self._run)
            self._folder.write(FAILURES, failed)
            self._kept = failed

    def close(self) -> None:
        """Commit, end the run, so that its late tasks write no more, and remove files that were not accepted."""
        self.failures.close()
        self.commit()
        if self._folder.read(RUN) == self._run.encode():
            self._folder.write(RUN, b"")
            self._folder.remove_pending()
        self._local.cleanup()


@dataclass(frozen=True)
class RunWriter:
    """Writes Parquet files to a folder, for one run, on any machine; see `gpusift.sinks.base.FileWriter`."""

    folder: str
    settings: dict[str, Any]
    run: str

    def __call__(self, rows: Sequence[Row], key: str) -> None:
        """Write a file that is pending, or the same once more.

        Raises
        ------
        OSError
            It cannot be written, or another run has begun to write to this folder.
        """
        folder = _Folder(self.folder)
        _check_run(folder, self.run)
        write_file(folder.place, self._pending(key), rows, self.settings)

    def accept(self, key: str) -> None:
        """Rename a pending file, so that its images are done.

        Raises
        ------
        OSError
            It cannot be renamed, or another run has begun to write to this folder.
        """
        folder = _Folder(self.folder)
        _check_run(folder, self.run)
        folder.rename(self._pending(key), f"{FILE}{key}.parquet")

    def _pending(self, key: str) -> str:
        return f"{PENDING}{self.run}-{key}.parquet"


def _check_run(folder: _Folder, run: str) -> None:
    if folder.read(RUN) != run.encode():
        raise OSError(None, "this run is over, or another one writes to this folder now", folder.url)


class _Folder:
    """A folder that fsspec opens."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self._system, self._root = fsspec.core.url_to_fs(url)
        is_local = "file" in self._system.protocol
        if is_local:
            self._system.makedirs(self._root, exist_ok=True)
            refuse_irregular(Path(self._root, name) for name in OWN_FILES)
        self.place = self._root if is_local else url.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None if it does not exist."""
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file; object stores do so whole or not at all."""
        self._system.pipe_file(f"{self._root}/{name}", data)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        if self._system.exists(f"{self._root}/{name}"):
            self._system.rm_file(f"{self._root}/{name}")

    def remove_pending(self) -> None:
        """Remove files that were not accepted, and what killed processes left of them."""
        for name in (*self.files(f"{PENDING}*.parquet"), *self.files(f".{PENDING}*.tmp")):
            self.remove(name)

    def rename(self, name: str, new: str) -> None:
        """Rename a file; object stores copy it, without this machine, and remove the old one."""
        self._system.mv(f"{self._root}/{name}", f"{self._root}/{new}")

    def files(self, pattern: str = "[!_]*.parquet") -> list[str]:
        """Return the names of files in it, by default of the Parquet files, sorted."""
        self._system.invalidate_cache()
        return sorted(path.rpartition("/")[2] for path in self._system.glob(f"{self._root}/{pattern}"))

    def names(self, file: str) -> Iterable[str]:
        """Return the names of the images in a file."""
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile

        try:
            with self._system.open(f"{self._root}/{file}", "rb") as opened:
                return ParquetFile(opened).read(["name"])["name"].to_pylist()
        except ArrowInvalid as error:
            raise OSError(
                None, f"must be a Parquet file of gpusift's, but is not ({error}); remove it", f"{self.url}/{file}"
            ) from None
