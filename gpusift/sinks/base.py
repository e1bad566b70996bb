"""What sinks and their formats must provide, the errors that they raise, and the record of a run's settings."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpusift.features import Features
from gpusift.sinks.failures import Failures

FORMAT = "gpusift extract"

BASE = "base"  # the setting with the folder that names are relative to; `gpusift.sources.expand` compares it

# An image's name, its features, and its rows and columns.
Row = tuple[str, Features, tuple[int, int]]


class Sink(Protocol):
    """An open output: where the features of many images go.

    ``name in sink`` says whether the sink has an image's result, committed or not; it may be asked by any thread.

    Attributes
    ----------
    settings : dict
        Settings of the run, as JSON holds them.
    failures : Failures
        Images that failed.
    file_writer : FileWriter or None
        Writes results where they are computed; `write` then only notes that they are written. None: `write` does.
    """

    settings: dict[str, Any]
    failures: Failures

    @property
    def file_writer(self) -> FileWriter | None:
        """Writes results where they are computed, or None."""

    def __contains__(self, name: object) -> bool: ...

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None = None) -> None:
        """Take an image's features; a `RefusedImageError` says that this sink cannot hold this image."""

    def commit(self) -> None:
        """Make durable all that was written."""

    def close(self) -> None:
        """Commit, complete the files, and let other processes write."""


class FileWriter(Protocol):
    """Writes the results of a cluster's task where they were computed; it is sent there by pickle.

    A task may run more than once, and may end after its run has ended. So its file counts only when the calling process
    accepts it.
    """

    def __call__(self, rows: Sequence[Row], key: str) -> None:
        """Write a file of rows, which does not count yet; the same key replaces the file."""

    def accept(self, key: str) -> None:
        """Accept a file; called once, by the calling process, when it has the task's result."""


class Store(Protocol):
    """An output in one format, open for writing; a `LocalSink` drives it. Errors of writing are OSErrors."""

    def __contains__(self, name: object) -> bool:
        """Whether an image's result is committed; may be asked by any thread."""

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None) -> None:
        """Take an image's features, on the host.

        Raises
        ------
        RefusedImageError
            The format cannot hold this image; the store is as before.
        """

    def commit(self) -> None:
        """Make durable all that was written: all of it or nothing."""

    def finish(self) -> None:
        """Complete the files after the last commit; nothing is called afterwards."""

    def abandon(self) -> None:
        """Release the files as they are; what is not committed is lost. Raises nothing."""


class Format(Protocol):
    """A kind of output: one module of this package, and one entry in `gpusift.sinks.FORMATS`."""

    @property
    def name(self) -> str:
        """The format's name: `<name>:<path>` is an output of this format, whatever its suffix."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of its outputs, in lower case."""

    @property
    def failures_file(self) -> str | None:
        """Name of the file of failures in the output's folder; None if the output is a file: failures are beside it."""

    @property
    def sift_parameters(self) -> Mapping[str, Any]:
        """Parameters of SIFT that its readers expect, used where the caller gives none."""

    @property
    def exif_orientation(self) -> bool:
        """Whether images are turned as EXIF says, where the caller does not say."""

    @property
    def max_size(self) -> int | None:
        """Longer side above which images are shrunk, where the caller does not say."""

    def own_files(self, path: Path) -> Iterable[Path]:
        """Return files that the format writes, other than results; links and pipes in their place are refused."""

    def settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Check a run's settings, before anything is made or removed, and add defaults of the format's own.

        Raises
        ------
        ImportError
            A package is missing.
        ValueError
            The format cannot hold results of these settings.
        """

    def recorded_settings(self, path: Path) -> dict[str, Any] | None:
        """Return the settings of the run that made an output; None if there is no output yet.

        Raises
        ------
        OutputExistsError
            Something else is in its place.
        """

    def clear(self, path: Path) -> None:
        """Remove an output.

        Raises
        ------
        OutputExistsError
            It holds files that gpusift did not write; nothing is removed.
        """

    def open_store(self, path: Path, settings: dict[str, Any]) -> Store:
        """Open an output, or make it."""


class OutputExistsError(FileExistsError):
    """Something that gpusift did not write is in an output's place."""

    def __init__(self, path: str | os.PathLike[str], reason: str | None = None) -> None:
        reason = reason or "must be new, or results of gpusift extract, but it is something else"
        super().__init__(errno.EEXIST, f"{reason}; choose another output", os.fspath(path))


class OutputInUseError(BlockingIOError):
    """Another process writes to the output."""

    def __init__(self, path: str | os.PathLike[str], reason: str | None = None) -> None:
        reason = reason or "must be written by one process at a time, and another one is writing; wait until it ends"
        super().__init__(errno.EAGAIN, reason, os.fspath(path))


class RefusedImageError(ValueError):
    """A sink cannot hold the result of one image; others are not affected."""


class ClosedSinkError(ValueError):
    """A sink was used after it was closed, or after an error had closed it."""


class SettingsDiffer(ValueError):  # noqa: N818 - it says what is the matter
    """An output was made with other settings.

    Attributes
    ----------
    differences : dict
        Name of each setting that differs -> its recorded value and the one of this run; None where there is none.
    """

    def __init__(self, output: str, differences: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(output, differences)
        self.output, self.differences = output, differences

    def __str__(self) -> str:
        each = "; ".join(
            f"{name} was {json.dumps(recorded)}, is {json.dumps(now)}"
            for name, (recorded, now) in self.differences.items()
        )
        return (
            f"settings must be those that {self.output} was made with, got others: {each}; "
            "give the same ones, choose another output, or overwrite it"
        )


def record_of(settings: dict[str, Any]) -> str:
    """Return the record of a run that an output keeps, as JSON."""
    return json.dumps({"made by": FORMAT, "settings": settings})


def settings_in(record: object) -> dict[str, Any] | None:
    """Return the settings in an output's record of its run; None if it is not such a record."""
    if not isinstance(record, (str, bytes)):
        return None
    try:
        content = json.loads(record)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, dict) and content.get("made by") == FORMAT and isinstance(content.get("settings"), dict):
        return dict(content["settings"])
    return None


def settings_in_folder(folder: Path, record: str, results: Iterator[Path]) -> dict[str, Any] | None:
    """Return the settings that a folder's file records; None if it has neither that file nor results.

    Raises
    ------
    OutputExistsError
        The folder has results without settings, or the file is another program's.
    """
    path = folder / record
    if not path.exists():
        if any(results):
            raise OutputExistsError(folder)
        return None
    settings = settings_in(path.read_bytes())
    if settings is None:
        raise OutputExistsError(path)
    return settings


def refuse_irregular(files: Iterable[Path]) -> None:
    """Refuse an output in which a link or a pipe has the name of a file of the sink's own.

    What is written to a link goes elsewhere, and a pipe has its reader wait.

    Raises
    ------
    OutputExistsError
        A file is neither a regular file nor a folder.
    """
    for file in files:
        try:
            mode = os.lstat(file).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            raise OutputExistsError(file, "must be a file of gpusift's, but it is a link")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OutputExistsError(file, "must be a file of gpusift's, but it is a pipe or a device")


def is_file(path: Path) -> bool:
    """Whether an output that is one file exists.

    Raises
    ------
    OutputExistsError
        Something else than a file is in its place.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        raise OutputExistsError(path)
    return False


def check_settings(output: str, recorded: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Raise a SettingsDiffer unless the settings are the recorded ones, or none are recorded.

    The folder that names are relative to is compared by `gpusift.sources.expand`.
    """
    if recorded is None:
        return
    names = [name for name in {**recorded, **now} if name != BASE and recorded.get(name) != now.get(name)]
    if names:
        raise SettingsDiffer(output, {name: (recorded.get(name), now.get(name)) for name in names})
