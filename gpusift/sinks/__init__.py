"""Where the features of many images go: files that a run may end at any moment of, and that the next one goes on with.

=======================  =========================================  =================================================
`open_sink(output)`      what it becomes                            a commit is
=======================  =========================================  =================================================
`*.h5`, `*.hdf5`         one file, hloc's layout (`gpusift.hdf5`)   a transaction of `gpusift.storage.transaction`
`*.db`                   a COLMAP database (`gpusift.colmap`)       a transaction of SQLite
`*.parquet`,             a folder of Parquet files, for pandas,     a record in a journal, which becomes the next part
`parquet:<folder>`       Polars, Spark (`gpusift.sinks.parquet`)     when there is enough for one
anything else            a folder of `.npz` files (`gpusift.npz`)   renaming of files
=======================  =========================================  =================================================

Each sink holds the settings of the run that made it, and is opened again only with the same. Beside it, or in its
folder, is `failures.jsonl` with the images that failed, see `gpusift.sinks.failures`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gpusift.features import Features
from gpusift.sinks.base import SettingsDiffer, Sink, Store, check_settings, not_ours
from gpusift.sinks.failures import Failures
from gpusift.storage.atomic import Lock

__all__ = ["Failures", "Sink", "SettingsDiffer", "Store", "open_sink"]

# Features written since the last commit are in memory, but in HDF5; more than so many bytes are committed at once.
MAX_PENDING = 64 << 20

HDF5_SUFFIXES = (".h5", ".hdf5")
PARQUET_PREFIX = "parquet:"


def open_sink(
    output: str | os.PathLike[str],
    settings: dict[str, Any],
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
) -> Sink:
    """Open a sink, a new one, or that of an earlier run to go on with it.

    Parameters
    ----------
    output : str or path-like
        A local path, see the head of this module.
    settings : dict
        All that decides the results, as JSON can hold it; `normalization` is that of the SIFT, for hloc's layout;
        `dtype`, of Parquet's columns.
    overwrite : bool, optional
        Replace what is there: results that gpusift wrote, or a file.
    retry_failed : bool, optional
        Images that failed in earlier runs are to be tried again.

    Returns
    -------
    sink : Sink

    Raises
    ------
    BlockingIOError
        Another process writes into it.
    FileExistsError
        There is something else than a sink, and `overwrite` is not set; or what even that does not replace.
    ImportError
        A package is missing that the format needs.
    OSError
        It cannot be written.
    SettingsDiffer
        It was made with other settings.
    ValueError
        The output is a URL, or the format is for other settings.
    """
    path, format_ = _format_of(os.fspath(output))
    settings = json.loads(json.dumps(settings))
    in_folder = format_.FAILURES is not None
    failures = path / format_.FAILURES if in_folder else path.with_name(f"{path.name}.failures.jsonl")
    if in_folder and os.path.lexists(path) and not path.is_dir():
        raise not_ours(path)
    format_.check(settings)  # before anything is made or removed
    lock = _lock(path / ".gpusift.lock" if in_folder else path.with_name(f"{path.name}.lock"), path)
    try:
        if overwrite:
            format_.clear(path)
            failures.unlink(missing_ok=True)
        else:
            check_settings(path, format_.settings_of(path), settings)
        store = format_.open_store(path, settings)
        try:
            return OpenSink(path, store, settings, Failures(failures, store, retry=retry_failed), lock)
        except BaseException:
            store.abandon()
            raise
    except BaseException:
        lock.release()
        raise


class OpenSink:
    """A sink in the files of some format; made by `open_sink`.

    After an OSError it is closed, and only `close` may be called, which does nothing.
    """

    def __init__(self, path: Path, store: Store, settings: dict[str, Any], failures: Failures, lock: Lock) -> None:
        self.path, self.settings, self.failures = path, settings, failures
        self._store, self._lock = store, lock
        self._names: set[str] = set()
        self._bytes = 0
        self._open = True

    @property
    def committed(self) -> Container[str]:
        """Names of the images whose results are in it, those included that the next commit makes safe."""
        return self

    def __contains__(self, name: object) -> bool:
        return self._open and (name in self._names or name in self._store)

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take an image's features, on any device.

        Raises
        ------
        OSError
            The sink cannot be written.
        ValueError
            It has such an image, or cannot hold this one; it is as before.
        """
        self._check_open()
        if name in self:
            raise ValueError(f"must be an image that is not in {self.path} yet, got {name!r}")
        host = features.to_host()
        with self._closed_by_errors():
            self._store.write(name, host, (int(image_shape[0]), int(image_shape[1])))
        self._names.add(name)
        self._bytes += sum(getattr(array, "nbytes", 0) for array in vars(host).values())
        if self._bytes > MAX_PENDING:
            self.commit()

    def commit(self) -> None:
        """Make safe all that was written.

        Raises
        ------
        OSError
            The sink cannot be written; it holds what was committed before.
        """
        self._check_open()
        if self._names:
            with self._closed_by_errors():
                self._store.commit()
            self._names, self._bytes = set(), 0

    def close(self) -> None:
        """Commit and finish.

        Raises
        ------
        OSError
            As `commit`.
        """
        if self._open:
            self.commit()
            with self._closed_by_errors():
                self.failures.close()  # asks what is in the store
                self._store.finish()
            self._open = False
            self._lock.release()

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError(f"{self.path} must be open, but it is closed; open_sink opens it again")

    @contextmanager
    def _closed_by_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._open = False
            self._store.abandon()
            self._lock.release()
            said = f"{error.strerror or error}; what was committed is kept, and the same command goes on from it"
            raise OSError(error.errno or 0, said, os.fspath(self.path)) from error


def _format_of(output: str) -> tuple[Path, ModuleType]:
    """Return the path of a sink, and the module of its format."""
    if "://" in output:
        raise ValueError(f"output must be a path on this machine, got {output!r}; copy it there afterwards")
    if output.startswith(PARQUET_PREFIX) or output.rstrip("/").endswith(".parquet"):
        from gpusift.sinks import parquet

        return Path(output.removeprefix(PARQUET_PREFIX)), parquet
    if output.endswith(HDF5_SUFFIXES):
        from gpusift.sinks import hdf5

        return Path(output), hdf5
    if output.endswith(".db"):
        from gpusift.sinks import colmap

        return Path(output), colmap
    from gpusift.sinks import npz

    return Path(output), npz


def _lock(file: Path, path: Path) -> Lock:
    try:
        return Lock(file)
    except BlockingIOError:
        said = "must be written by one process at a time, and another one writes into it; wait until that has ended"
        raise BlockingIOError(errno.EAGAIN, said, os.fspath(path)) from None
