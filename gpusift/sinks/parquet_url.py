"""A sink in an object store: a folder of Parquet parts, each written by the task of a cluster that computed it.

The parts are those of `gpusift.sinks.parquet`. Beside them are `_gpusift.json`, the settings; `_failures.jsonl`; and
`_run`, the number of the run that writes: a part is written only while it is that of its run, so that a task which
outlives its run cannot add what a later run has computed once more.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gpusift.sinks.base import check_settings, record_of, settings_in
from gpusift.sinks.failures import Failures
from gpusift.sinks.parquet import FAILURES, SETTINGS, Row, write_file
from gpusift.storage.name_set import NameSet

if TYPE_CHECKING:
    from gpusift.features import Features

RUN = "_run"
READERS = 32  # threads that read the names in parts, at the start


def open_parquet_folder(
    url: str, settings: dict[str, Any], *, overwrite: bool = False, retry_failed: bool = False
) -> ParquetFolder:
    """Open a folder of parts, a new one, or that of an earlier run to go on with it.

    Parameters
    ----------
    url : str
        The folder, of a file system that fsspec knows and that workers reach: s3://bucket/folder, gs://..., or file://...
        on a disk that all share.
    settings : dict
        All that decides the results.
    overwrite : bool, optional
        Remove the parts of earlier runs.
    retry_failed : bool, optional
        Images that failed in earlier runs are to be tried again.

    Raises
    ------
    ImportError
        A package is missing: pyarrow, or that of the file system.
    OSError
        The folder cannot be read or written, or holds Parquet files of others.
    SettingsDiffer
        It was made with other settings.
    """
    folder = _Folder(url)
    there = folder.read(SETTINGS)
    if there is None and folder.parts():
        raise FileExistsError(17, "must be new, or results of gpusift extract, but has other Parquet files", url)
    if there is not None and not overwrite:
        check_settings(url, settings_in(there), settings)
    run = uuid.uuid4().hex
    folder.write(RUN, run.encode())  # before what is there is looked at: from now on no earlier run adds to it
    if overwrite:
        for name in (*folder.parts(), FAILURES):
            folder.remove(name)
    if there is None or overwrite:
        folder.write(SETTINGS, record_of(settings).encode())
    return ParquetFolder(folder, settings, run, retry_failed)


class ParquetFolder:
    """A sink whose rows are written by `write_file`, where they are computed; made by `open_parquet_folder`."""

    def __init__(self, folder: _Folder, settings: dict[str, Any], run: str, retry_failed: bool) -> None:
        self.settings = settings
        self.committed = NameSet()
        self.write_file = FileWriter(folder.url, settings, run)
        self._folder, self._run = folder, run
        with ThreadPoolExecutor(READERS) as readers:
            for names in readers.map(folder.names, folder.parts()):
                self.committed.update(names)
        self._local = TemporaryDirectory()
        path = Path(self._local.name) / FAILURES
        self._kept = folder.read(FAILURES) or b""
        if self._kept:
            path.write_bytes(self._kept)
        self.failures = Failures(path, self.committed, retry=retry_failed)

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take note of an image whose row is in a part."""
        self.committed.update([name])

    def commit(self) -> None:
        """Make safe what failed."""
        path = self.failures.path
        failed = path.read_bytes() if path.exists() else b""
        if failed != self._kept:
            _check_run(self._folder, self._run)
            self._folder.write(FAILURES, failed)
            self._kept = failed

    def close(self) -> None:
        """Commit and finish."""
        self.failures.close()
        self.commit()
        self._local.cleanup()


@dataclass(frozen=True)
class FileWriter:
    """Writes parts to a folder, for one run, on any machine."""

    folder: str
    settings: dict[str, Any]
    run: str

    def __call__(self, rows: Sequence[Row], part: str) -> None:
        """Write a part, or the same once more.

        Raises
        ------
        OSError
            It cannot be written, or another run has begun to write to this folder.
        """
        folder = _Folder(self.folder)
        _check_run(folder, self.run)
        write_file(folder.place, rows, self.settings, part)

    def drop(self, part: str) -> None:
        """Remove a part, if it is there."""
        _Folder(self.folder).remove(f"part-{part}.parquet")


def _check_run(folder: _Folder, run: str) -> None:
    if folder.read(RUN) != run.encode():
        raise OSError(None, "another run writes to this folder now, so this one must end", folder.url)


class _Folder:
    """A folder that fsspec opens."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self._system, self._root = fsspec.core.url_to_fs(url)
        is_local = "file" in self._system.protocol
        if is_local:
            self._system.makedirs(self._root, exist_ok=True)
        self.place = self._root if is_local else url.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None if there is none."""
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file; object stores do so whole or not at all."""
        self._system.pipe_file(f"{self._root}/{name}", data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self._system.exists(f"{self._root}/{name}"):
            self._system.rm_file(f"{self._root}/{name}")

    def parts(self) -> list[str]:
        """Return the names of the Parquet files in it, sorted."""
        self._system.invalidate_cache()
        return sorted(path.rpartition("/")[2] for path in self._system.glob(f"{self._root}/*.parquet"))

    def names(self, part: str) -> Iterable[str]:
        """Return the names of the images in a part."""
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile

        try:
            with self._system.open(f"{self._root}/{part}", "rb") as file:
                return ParquetFile(file).read(["name"])["name"].to_pylist()
        except ArrowInvalid as error:
            raise OSError(
                None, f"must be a part of gpusift's, but is not ({error}); remove it", f"{self.url}/{part}"
            ) from None
