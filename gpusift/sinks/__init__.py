"""Where the features of many images go: outputs that survive a kill at any moment, and that the next run resumes.

===========================  ==========================================  ==========================================
output                       what it becomes                             what a commit is
===========================  ==========================================  ==========================================
`*.h5`, `*.hdf5`             one file in hloc's layout                   a transaction of
                             (`gpusift.hdf5`)                            `gpusift.storage.transaction`
`*.db`                       a COLMAP database (`gpusift.colmap`)        a transaction of SQLite
`*.parquet`                  a folder of Parquet files, for pandas,      a record in a journal; enough records
                             Polars, Spark (`gpusift.sinks.parquet`)     become the next file
a folder                     an `.npz` file for each image               renaming of files
                             (`gpusift.npz`)
`<format>:<path>`            the format of that name: `hdf5`, `colmap`,
                             `parquet` or `npz`
a URL                        a folder of Parquet files that the tasks    a file
                             of a cluster write
                             (`gpusift.sinks.parquet_url`)
===========================  ==========================================  ==========================================

Each output records the settings of the run that made it, and is resumed only with the same ones. Beside it, or in its
folder, the file `failures.jsonl` has the images that failed, see `gpusift.sinks.failures`.

A new format is one module with a `gpusift.sinks.base.Format`, and one entry in `FORMATS`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from gpusift.sinks.base import (
    BASE,
    ClosedSinkError,
    Format,
    OutputExistsError,
    OutputInUseError,
    RefusedImageError,
    SettingsDiffer,
    Sink,
    Store,
)
from gpusift.sinks.colmap import ColmapFormat
from gpusift.sinks.failures import Failures
from gpusift.sinks.hdf5 import Hdf5Format
from gpusift.sinks.local import open_local, recorded_settings
from gpusift.sinks.npz import NpzFormat
from gpusift.sinks.parquet import ParquetFormat
from gpusift.sinks.parquet_url import open_parquet_folder, recorded_settings_of_url

__all__ = [
    "BASE",
    "FORMATS",
    "ClosedSinkError",
    "Failures",
    "Format",
    "OutputExistsError",
    "OutputInUseError",
    "RefusedImageError",
    "SettingsDiffer",
    "Sink",
    "Store",
    "format_of",
    "open_sink",
    "recorded_base",
]

# All formats; a path whose suffix is none of theirs is a folder of the last one.
FORMATS: tuple[Format, ...] = (Hdf5Format(), ColmapFormat(), ParquetFormat(), NpzFormat())

# What looks like the suffix of a file; ".2026" or ".10" does not.
FILE_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")

URL_FORMAT = ParquetFormat.name  # the one format that tasks write to a URL


def format_of(output: str | os.PathLike[str]) -> tuple[Format, str]:
    """Return the format of an output, and its path or URL.

    Parameters
    ----------
    output : str or path-like
        See the head of this module.

    Raises
    ------
    ValueError
        Its suffix is that of a file in some other format.
    """
    text = os.fspath(output)
    formats = {format_.name: format_ for format_ in FORMATS}
    name, _, path = text.partition(":")
    if name in formats:
        return formats[name], path
    if is_url(text):
        return formats[URL_FORMAT], text
    suffix = Path(text).suffix.lower()
    for format_ in FORMATS:
        if suffix in format_.suffixes:
            return format_, text
    if FILE_SUFFIX.fullmatch(suffix) and not text.endswith("/") and not os.path.isdir(text):
        known = ", ".join(suffix for format_ in FORMATS for suffix in format_.suffixes)
        raise ValueError(
            f"output must end in one of {known}, or be a folder without a suffix, got {text!r}; "
            f"{FORMATS[-1].name}:{text} is a folder of that name"
        )
    return FORMATS[-1], text


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def recorded_base(output: str | os.PathLike[str], *, by_tasks: bool = False) -> str | None:
    """Return the folder that the names in an output are relative to; None if there is no output, or it has no record.

    Parameters, and exceptions, are those of `open_sink`.
    """
    format_, path = _writable(output, by_tasks)
    settings = recorded_settings_of_url(path) if is_url(path) else recorded_settings(format_, Path(path))
    base = (settings or {}).get(BASE)
    return base if isinstance(base, str) else None


def open_sink(
    output: str | os.PathLike[str],
    settings: dict[str, Any],
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    by_tasks: bool = False,
) -> Sink:
    """Open an output: a new one, or that of an earlier run to resume it.

    Parameters
    ----------
    output : str or path-like
        See the head of this module.
    settings : dict
        All that decides the results, as JSON can hold it; see `gpusift.stream.settings_of`.
    overwrite : bool, optional
        Replace results that gpusift wrote, or a file.
    retry_failed : bool, optional
        Images that failed in earlier runs are to be tried again.
    by_tasks : bool, optional
        Results are written by the tasks of a cluster if the output is a URL.

    Returns
    -------
    sink : Sink

    Raises
    ------
    ImportError
        A package is missing that the format needs.
    OSError
        The output cannot be read or written.
    OutputExistsError
        Something else is in its place, which even `overwrite` may not replace.
    OutputInUseError
        Another process writes to it.
    SettingsDiffer
        It was made with other settings.
    ValueError
        The output is a URL that nothing can write to, or the format cannot hold results of these settings.
    """
    format_, path = _writable(output, by_tasks)
    settings = json.loads(json.dumps(format_.settle(settings)))
    if is_url(path):
        return open_parquet_folder(path, settings, overwrite=overwrite, retry_failed=retry_failed)
    return open_local(format_, Path(path), settings, overwrite=overwrite, retry_failed=retry_failed)


def _writable(output: str | os.PathLike[str], by_tasks: bool) -> tuple[Format, str]:
    """Return the format and the path of an output, unless it is a URL that nothing can write to."""
    format_, path = format_of(output)
    if is_url(path) and not (by_tasks and format_.name == URL_FORMAT):
        raise ValueError(
            f"output must be a path on this machine, got {path!r}; copy it there afterwards, or have a Dask cluster "
            "write Parquet files to the URL"
        )
    return format_, path
