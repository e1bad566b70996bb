"""Where the features of many images go: files that a run may end at any moment of, and that the next one goes on with.

=======================  =========================================  =================================================
`open_sink(output)`      what it becomes                            a commit is
=======================  =========================================  =================================================
`*.h5`, `*.hdf5`         one file, hloc's layout (`gpusift.hdf5`)   a transaction of `gpusift.transaction`
`*.db`                   a COLMAP database (`gpusift.colmap`)       a transaction of SQLite
`*.parquet`,             a folder of Parquet files, for pandas,     a record in a journal, which becomes the next part
`parquet:<folder>`       Polars, Spark (`gpusift.sink_parquet`)     when there is enough for one
anything else            a folder of `.npz` files (`gpusift.npz`)   renaming of files
=======================  =========================================  =================================================

Each sink holds the settings of the run that made it, and is opened again only with the same. Beside it, or in its
folder, is `failures.jsonl` with the images that failed, see `gpusift.failures`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from gpusift.failures import Failures
from gpusift.features import Features
from gpusift.files import Lock

__all__ = ["Failures", "Sink", "SettingsDiffer", "Store", "open_sink"]

# Features written since the last commit are in memory, but in HDF5; more than so many bytes are committed at once.
MAX_PENDING = 64 << 20

FORMAT = "gpusift extract"
HDF5_SUFFIXES = (".h5", ".hdf5")
PARQUET_PREFIX = "parquet:"


class Sink(Protocol):
    """Where the features of many images go.

    Attributes
    ----------
    settings : dict
        Those of the run, as JSON has them.
    failures : Failures
        The images that failed.
    """

    settings: dict[str, Any]
    failures: Failures

    @property
    def committed(self) -> Container[str]:
        """Names of the images whose results are in it, from earlier runs and this one; for any thread."""

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take an image's features; a ValueError says that this sink cannot hold this image."""

    def commit(self) -> None:
        """Make safe all that was written."""

    def close(self) -> None:
        """Commit and finish."""


class Store(Protocol):
    """What a file format does for a sink; errors of writing are OSErrors."""

    def __contains__(self, name: object) -> bool:
        """Whether an image's features are committed; for any thread."""

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take an image's features; a ValueError says that the format cannot hold this image, and is harmless."""

    def commit(self) -> None:
        """Make safe all that was written, all of it or nothing."""

    def finish(self) -> None:
        """Complete the files, all being committed; then nothing is called any more."""

    def abandon(self) -> None:
        """Let go of the files as they are, what is not committed being lost; raises nothing."""


class SettingsDiffer(ValueError):  # noqa: N818 - it says what is the matter
    """A sink that was made with other settings.

    Attributes
    ----------
    differences : dict
        Name of each setting that differs -> its values there and now; None where there is none.
    """

    def __init__(self, output: str, differences: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(output, differences)
        self.output, self.differences = output, differences

    def __str__(self) -> str:
        each = "; ".join(
            f"{name} {json.dumps(there)} there, {json.dumps(now)} now"
            for name, (there, now) in self.differences.items()
        )
        return (
            f"settings must be those that {self.output} was made with, got others: {each}; "
            "give the same ones, another output, or overwrite it"
        )


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


def record_of(settings: dict[str, Any]) -> str:
    """Return what a sink keeps of the run that made it, as JSON."""
    return json.dumps({"made by": FORMAT, "settings": settings})


def settings_in(record: str | bytes) -> dict[str, Any] | None:
    """Return the settings in a sink's record of its run; None if that is no such record."""
    try:
        found = json.loads(record)
    except ValueError:
        return None
    if isinstance(found, dict) and found.get("made by") == FORMAT and isinstance(found.get("settings"), dict):
        return dict(found["settings"])
    return None


def check_settings(path: str | os.PathLike[str], there: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Raise a SettingsDiffer unless two runs have the same settings, or there was no earlier one."""
    if there is None:
        return
    names = [name for name in {**there, **now} if there.get(name) != now.get(name)]
    if names:
        raise SettingsDiffer(os.fspath(path), {name: (there.get(name), now.get(name)) for name in names})


def not_ours(path: Path) -> FileExistsError:
    """Return the error for something that is in a sink's place."""
    said = (
        "must be new, or results of gpusift extract, but it is something else; choose another output, or overwrite it"
    )
    return FileExistsError(errno.EEXIST, said, os.fspath(path))


def _format_of(output: str) -> tuple[Path, ModuleType]:
    """Return the path of a sink, and the module of its format."""
    if "://" in output:
        raise ValueError(f"output must be a path on this machine, got {output!r}; copy it there afterwards")
    if output.startswith(PARQUET_PREFIX) or output.rstrip("/").endswith(".parquet"):
        from gpusift import sink_parquet

        return Path(output.removeprefix(PARQUET_PREFIX)), sink_parquet
    if output.endswith(HDF5_SUFFIXES):
        from gpusift import sink_hdf5

        return Path(output), sink_hdf5
    if output.endswith(".db"):
        from gpusift import sink_colmap

        return Path(output), sink_colmap
    from gpusift import sink_npz

    return Path(output), sink_npz


def _lock(file: Path, path: Path) -> Lock:
    try:
        return Lock(file)
    except BlockingIOError:
        said = "must be written by one process at a time, and another one writes into it; wait until that has ended"
        raise BlockingIOError(errno.EAGAIN, said, os.fspath(path)) from None
