"""Where photographs come from: files, folders, globs, lists, and whatever fsspec opens (archives, buckets, the web).

An image's name is its path, with forward slashes and suffix, relative to the folder given, the folder of the file
given, or the part of the glob before its first wildcard. Of several, the deepest folder that holds all of these counts.
So no two files share a name. A URL's path begins with its scheme, and an archive counts as a folder.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import IO

from gpusift.sources.locations import Location, read_bytes
from gpusift.sources.search import Search, SourceFailure, files_of, resolve
from gpusift.storage.name_set import NameSet

__all__ = ["DEFAULT_MAX_BYTES", "Source", "SourceFailure", "expand", "fetch", "wrong_name"]

# Results are called by an image's name with more at its end; file systems allow 255 bytes.
MAX_PART_BYTES = 230
MAX_NAME_BYTES = 2000

# A file larger than this is refused instead of read, in bytes.
DEFAULT_MAX_BYTES = 1 << 30

# A line of a list that is longer is no path.
MAX_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class Source:
    """An image that is to be read.

    Attributes
    ----------
    name : str
        What its results are called: relative, "/" between folders, with suffix; it never leads out of a folder.
    url : str
        An absolute path, or a URL that fsspec opens.
    """

    name: str
    url: str


def expand(
    arguments: Sequence[str],
    *,
    root: str | None = None,
    pattern: str | None = None,
    recursive: bool = True,
    files_from: str | None = None,
) -> Iterator[Source | SourceFailure]:
    """Find and name the images that arguments and lists stand for, one after the other.

    The names of one folder, or of one archive, are in memory at a time.

    Parameters
    ----------
    arguments : sequence of str
        Files (of any suffix), folders (hidden files and folders and links to folders left out), globs (`**` for any
        depth), URLs of all these that fsspec knows, "-" for a list on standard input.
    root : str, optional
        Make names relative to this folder instead.
    pattern : str, optional
        What a file's name in a folder must match, such as "*.JPG"; otherwise it must have one of
        `gpusift.sources.search.IMAGE_SUFFIXES`.
    recursive : bool, optional
        Search folders to any depth.
    files_from : str, optional
        A list: path or URL of a text file with one path or URL a line, or "-". Lines are no folders and no globs.

    Returns
    -------
    found : iterator of Source or SourceFailure
        In the order of arguments, sorted within each folder, files before subfolders. What comes twice is given once.

    Raises
    ------
    ValueError
        An argument is not under `root`.
    OSError
        A list cannot be read.
    """
    searches = [resolve(argument) for argument in arguments if argument != "-"]
    bases = [search.base for search in searches if isinstance(search, Search)]
    top = Location.parse(root).parts if root else None
    if top is not None and not all(base[: len(top)] == top[: len(base)] for base in bases):
        raise ValueError(f"images must lie under root {root}, but some of {' '.join(arguments)} do not")
    paths = [path for path in ("-" if "-" in arguments else None, files_from) if path]
    lists = [_open_list(path) for path in dict.fromkeys(paths)]
    if top is None:
        lines = (line.parent().parts for lines in lists for line in _lines(lines) if isinstance(line, Location))
        top = _deepest_common(chain(bases, lines))
    found = chain.from_iterable(files_of(search, pattern, recursive) for search in searches)
    return _name(chain(found, *map(_lines, lists)), top, lists, once=len(searches) == 1 and not lists)


def _name(
    found: Iterable[Location | SourceFailure], top: tuple[str, ...], lists: list[IO[bytes]], once: bool
) -> Iterator[Source | SourceFailure]:
    """Give each file its name, and each name once; `once`: nothing comes twice. Close the lists at the end."""
    named = NameSet()
    with closing(named), ExitStack() as open_lists:
        for one in lists:
            open_lists.enter_context(one)
        for file in found:
            named_one = file if isinstance(file, SourceFailure) else _named(file, top)
            if isinstance(named_one, Source) and not once:
                if named_one.name in named:
                    continue
                named.update([named_one.name])
            yield named_one


def _named(file: Location, top: tuple[str, ...]) -> Source | SourceFailure:
    """Name a file by its path below a folder."""
    parts = file.parts
    if parts[: len(top)] != top:
        return SourceFailure(file.url, f"images must lie under {'/'.join(top[1:])}, but this one does not")
    name = "/".join(parts[len(top) :])
    if "::" in name and not file.is_local:
        return SourceFailure(file.url, f"a name must not hold '::', which joins URLs, got {name!r}")
    reason = wrong_name(name)
    return SourceFailure(file.url, reason) if reason else Source(name, file.url)


def wrong_name(name: str) -> str | None:
    """Say why results must not be called by this name, if so: it might lead out of their folder, or cannot be a file's.

    Parameters
    ----------
    name : str
        As in `Source`.
    """
    parts = re.split(r"[/\\]", name)
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        return f"a name must be text that files can be called by, got {name!r}"
    if any(part in ("", ".", "..") for part in parts) or re.match("[A-Za-z]:", name):
        return f"a name must stay within a folder, without empty parts, '.', '..' or a drive, got {name!r}"
    if any(ord(character) < 32 for character in name):
        return f"a name must not hold control characters, got {name!r}"
    if max(sizes) > MAX_PART_BYTES or sum(sizes) + len(sizes) > MAX_NAME_BYTES:
        return f"a name must have at most {MAX_PART_BYTES} bytes between slashes and {MAX_NAME_BYTES} in all"
    return None


def _deepest_common(bases: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    common: tuple[str, ...] | None = None
    for base in bases:
        if common is None:
            common = base
        while common != base[: len(common)]:
            common = common[:-1]
    return common or ()


def _open_list(path: str) -> IO[bytes]:
    """Open a list so that it can be read twice, which standard input, pipes and URLs cannot."""
    location = Location.parse(path)
    if path == "-":
        return _spool(sys.stdin.buffer)
    if location.is_local:
        file = open(path, "rb")  # noqa: SIM115 (its reader closes it)
        if file.seekable():
            return file
        with file:
            return _spool(file)
    try:
        import fsspec

        with fsspec.open(path, "rb") as file:
            return _spool(file)
    except OSError:
        raise
    except Exception as error:  # of any file system or network library
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


def _spool(source: IO[bytes]) -> IO[bytes]:
    """Copy a list to a file that is gone when it is closed."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
    try:
        shutil.copyfileobj(source, copy)
    except BaseException:
        copy.close()
        raise
    return copy


def _lines(file: IO[bytes]) -> Iterator[Location | SourceFailure]:
    """Read a list from its beginning; empty lines are left out."""
    file.seek(0)
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while rest := file.readline(MAX_LINE_BYTES):
                if rest.endswith(b"\n"):
                    break
            yield SourceFailure(os.fsdecode(line[:100]) + "...", f"a line must have less than {MAX_LINE_BYTES} bytes")
            continue
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if "\0" in text:
            yield SourceFailure(text[:100], "a path must not hold the character 0; a list has one path a line")
        elif text:
            yield Location.parse(text)


def fetch(source: Source, *, timeout: float = 60.0, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """Read an image's file.

    Parameters
    ----------
    source : Source
        Of `expand`.
    timeout : float, optional
        For the whole file, in seconds, over a network. Some file systems only notice between two blocks.
    max_bytes : int, optional
        Larger files are refused; no more than this is ever in memory.

    Returns
    -------
    data : bytes

    Raises
    ------
    OSError
        It cannot be read (TimeoutError: in time), is no regular file, is too large, or a package is missing.
    """
    return read_bytes(Location.parse(source.url), timeout=timeout, max_bytes=max_bytes)
