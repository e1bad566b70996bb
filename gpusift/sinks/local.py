"""A sink on this machine, in any format: one writer at a time, settings that must match, commits, failures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpusift.features import Features
from gpusift.sinks.base import (
    ClosedSinkError,
    Format,
    OutputExistsError,
    OutputInUseError,
    RefusedImageError,
    Store,
    check_settings,
    refuse_irregular,
)
from gpusift.sinks.failures import Failures
from gpusift.sources import wrong_name
from gpusift.storage.atomic import Lock

# Results are in memory until the next commit (but for HDF5); more bytes than these are committed at once.
MAX_PENDING = 64 << 20

LOCK = ".gpusift.lock"  # in an output that is a folder


class LocalSink:
    """A sink of some format; made by `open_local`.

    Any exception while it writes closes it, but a `RefusedImageError`: what was committed is kept, all else is dropped,
    and only `close` may be called, which then does nothing.
    """

    file_writer = None

    def __init__(self, path: Path, store: Store, settings: dict[str, Any], failures: Failures, lock: Lock) -> None:
        self.path, self.settings, self.failures = path, settings, failures
        self._store, self._lock = store, lock
        self._names: set[str] = set()  # written, not committed
        self._bytes = 0
        self._open = True

    def __contains__(self, name: object) -> bool:
        return self._open and (name in self._names or name in self._store)

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None = None) -> None:
        """Take an image's features.

        Parameters
        ----------
        name : str
            The image's name.
        features : Features
            On any device.
        image_shape : (int, int)
            Rows and columns of the image.
        url : str, optional
            Where the image is, for formats that look at the file: COLMAP's cameras come from it.

        Raises
        ------
        ClosedSinkError
            The sink is closed.
        OSError
            The output cannot be written.
        RefusedImageError
            The output has such an image, or cannot hold this one; it is as before.
        """
        self._check_open()
        if reason := wrong_name(name):
            raise RefusedImageError(reason)
        if name in self:
            raise RefusedImageError(f"name must be that of an image that {self.path} does not have yet, got {name!r}")
        host = features.to_host()
        with self._closed_by_errors():
            self._store.write(name, host, (int(image_shape[0]), int(image_shape[1])), url)
        self._names.add(name)
        self._bytes += sum(getattr(array, "nbytes", 0) for array in vars(host).values())
        if self._bytes > MAX_PENDING:
            self.commit()

    def commit(self) -> None:
        """Make durable all that was written.

        Raises
        ------
        ClosedSinkError
            The sink is closed.
        OSError
            The output cannot be written; it holds what was committed before.
        """
        self._check_open()
        if self._names:
            with self._closed_by_errors():
                self._store.commit()
                self._names, self._bytes = set(), 0

    def close(self) -> None:
        """Commit, complete the files, and release the lock.

        Raises
        ------
        OSError
            As `commit`.
        """
        if self._open:
            self.commit()
            with self._closed_by_errors():
                self.failures.close()  # asks the store which images succeeded
                self._store.finish()
            self._open = False
            self._lock.release()

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedSinkError(f"{self.path} must be open, but it is closed; open it again")

    @contextmanager
    def _closed_by_errors(self) -> Iterator[None]:
        try:
            yield
        except RefusedImageError:
            raise
        except BaseException as error:
            self._open = False
            self._store.abandon()
            self._lock.release()
            if not isinstance(error, OSError):
                raise
            reason = f"{error.strerror or error}; what was committed is kept, and the same command resumes from it"
            raise OSError(error.errno or 0, reason, os.fspath(self.path)) from error


def open_local(
    format_: Format, path: Path, settings: dict[str, Any], *, overwrite: bool, retry_failed: bool
) -> LocalSink:
    """Open an output on this machine; see `gpusift.sinks.open_sink`."""
    shown, path = os.fspath(path), real_path(path)
    failures, lock_path = _files_of(format_, path)
    lock = None
    try:
        lock = _lock(path, lock_path, format_.failures_file is None)  # within: an interrupt may come right after it
        refuse_irregular([failures, *format_.own_files(path)])
        if overwrite:
            format_.clear(path)
            failures.unlink(missing_ok=True)
        else:
            check_settings(shown, format_.recorded_settings(path), settings)
        store = format_.open_store(path, settings)
        try:
            if format_.failures_file is None and path.exists():
                lock.hold(path)
            return LocalSink(path, store, settings, Failures(failures, store, retry=retry_failed), lock)
        except BaseException:
            store.abandon()
            raise
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def recorded_settings(format_: Format, path: Path) -> dict[str, Any] | None:
    """Return the settings of the run that made an output; None if there is none. It is not opened, but locked."""
    path = real_path(path)
    if not path.exists():
        return None
    _, lock_path = _files_of(format_, path)
    with _locked(path, lock_path, format_.failures_file is None):
        refuse_irregular(format_.own_files(path))
        return format_.recorded_settings(path)


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes from writing to an output that is one file.

    Raises
    ------
    OutputInUseError
        Another process writes to it.
    """
    path = real_path(Path(path))
    with _locked(path, lock_file(path), True):
        yield


def _files_of(format_: Format, path: Path) -> tuple[Path, Path]:
    """Return the file of failures of an output, and its lock."""
    if format_.failures_file is None:
        return path.with_name(f"{path.name}.failures.jsonl"), lock_file(path)
    if path.exists() and not path.is_dir():
        raise OutputExistsError(path)
    return path / format_.failures_file, path / LOCK


def real_path(path: Path) -> Path:
    """Return the path of an output with its links resolved: its lock and failures lie beside the file itself."""
    return Path(os.path.realpath(path))


def lock_file(path: Path) -> Path:
    """Return the lock of an output that is one file."""
    return path.with_name(f"{path.name}.lock")


@contextmanager
def _locked(path: Path, file: Path, is_file: bool) -> Iterator[None]:
    lock = None
    try:
        lock = _lock(path, file, is_file)
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock(path: Path, file: Path, is_file: bool) -> Lock:
    refuse_irregular([file])
    try:
        return Lock(file, path if is_file else None)
    except BlockingIOError:
        raise OutputInUseError(path) from None
