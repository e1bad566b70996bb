"""What the formats of sinks share: the protocols of a sink and its store, and the record of a run's settings."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Container
from pathlib import Path
from typing import Any, Protocol

from gpusift.features import Features
from gpusift.sinks.failures import Failures

FORMAT = "gpusift extract"


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
