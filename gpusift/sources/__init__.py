"""Where photographs come from: files, folders, globs, lists, archives, and URLs that fsspec opens (buckets, the web).

An image's name is its path, with forward slashes and suffix, relative to a base folder, so that no two files share a
name. The base is the folder given, the folder of the file given, or the part of the glob before its first wildcard; of
several, the deepest folder that holds all of these. For a list it is the current folder, and for what lies elsewhere
the root of its file system, server or bucket: a name does not depend on the other lines. A URL's path begins with its
scheme, and an archive counts as a folder. Results record their base, and later runs use the same one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO

from gpusift.sources.filesystems import archive_scheme
from gpusift.sources.limits import DEFAULT_LIMITS, Limits
from gpusift.sources.lists import lines_of, open_list
from gpusift.sources.locations import Location
from gpusift.sources.names import (
    BaseDiffersError,
    Parts,
    base_of_line,
    choose_base,
    deepest_common,
    parts_of,
    shard_of,
    text_of,
    wrong_name,
)
from gpusift.sources.reading import read_bytes
from gpusift.sources.search import Search, SourceFailure, Wanted, files_of, resolve
from gpusift.storage.name_set import NameSet

__all__ = [
    "BaseDiffersError",
    "DEFAULT_MAX_BYTES",
    "Limits",
    "Source",
    "SourceFailure",
    "Sources",
    "expand",
    "fetch",
    "wrong_name",
]

# A file larger than this is refused instead of read, in bytes.
DEFAULT_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Source:
    """An image that is to be read.

    Attributes
    ----------
    name : str
        The name of its results: relative, "/" between folders, with suffix; it never leads out of a folder.
    url : str
        An absolute path, or a URL that fsspec opens.
    """

    name: str
    url: str

    @property
    def public_url(self) -> str:
        """The URL without a query that signs it, for logs and records."""
        return Location.parse(self.url).public_url


class Sources(Iterator["Source | SourceFailure"]):
    """Images, one after the other; made by `expand`.

    Attributes
    ----------
    base : str
        Path or URL of the folder that names are relative to; empty if they are of this machine and others. It is what
        `expand` was given as `kept_base`, also where that folder has moved.
    left_out : Counter
        Suffix, in lower case -> number of files of folders that were left out for it until now.
    """

    def __init__(self, images: Iterator[Source | SourceFailure], base: str, left_out: Counter[str]) -> None:
        self._images, self.base, self.left_out = images, base, left_out

    def __next__(self) -> Source | SourceFailure:
        return next(self._images)


def expand(
    arguments: Sequence[str],
    *,
    root: str | None = None,
    kept_base: str | None = None,
    pattern: str | None = None,
    recursive: bool = True,
    files_from: str | None = None,
    shard: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Sources:
    """Find and name the images that arguments and lists stand for, one after the other.

    The names of one folder, or of one archive, are in memory at a time.

    Parameters
    ----------
    arguments : sequence of str
        Files (of any suffix), folders (hidden files and folders and links to folders left out), globs (`**` for any
        depth), archives (`.zip`, `.tar`, `.tgz`, ...), URLs of all these that fsspec knows, "-" for a list on standard
        input. A `file:` URL is percent-encoded.
    root : str, optional
        Make names relative to this folder instead.
    kept_base : str, optional
        `Sources.base` of earlier results that are resumed: names are relative to it.
    pattern : str, optional
        What a file's name in a folder must match, such as "*.JPG"; otherwise it must have one of
        `gpusift.sources.search.IMAGE_SUFFIXES`.
    recursive : bool, optional
        Search folders to any depth.
    files_from : str, optional
        A list: path or URL of a text file with one path or URL a line, or "-". Lines are no folders and no globs. It is
        bytes, or UTF-8, UTF-16 or UTF-32 with a byte order mark.
    shard : (int, int), optional
        (i, n): only images of the i-th of n shards, counted from 0; an image's shard follows from its name alone.
    limits : Limits, optional
        On what is read to find images.

    Returns
    -------
    sources : Sources
        An iterator of Source or SourceFailure in the order of arguments, sorted within each folder, files before
        subfolders. Of images with the same name, only the first is yielded.

    Raises
    ------
    BaseDiffersError
        The images are not under `kept_base`, or `root` is another folder.
    ValueError
        An argument is not under `root`.
    OSError
        A list cannot be read, or goes beyond a limit.
    """
    searches = [resolve(argument, limits) for argument in arguments if argument != "-"]
    paths = [path for path in ("-" if "-" in arguments else None, files_from) if path]
    with ExitStack() as open_lists:
        lists = [open_lists.enter_context(open_list(path, limits)) for path in dict.fromkeys(paths)]
        bases = [search.base for search in searches if isinstance(search, Search)]
        base = _base(root, kept_base, bases, lists)
        if root is not None and not all(each[: len(base)] == base for each in bases):
            raise ValueError(f"images must lie under root {root}, but some of {' '.join(arguments)} do not")
        wanted = Wanted(pattern, recursive, limits)
        files = chain(*(files_of(search, wanted) for search in searches), *map(_lines, lists))
        images: Iterator[Source | SourceFailure] = (_named(file, base) for file in files)
        if len(searches) != 1 or lists:
            images = _each_once(images)
        if shard is not None:
            images = filter(partial(_in_shard, shard=shard), images)
        return Sources(
            _and_close(images, open_lists.pop_all()), text_of(base) if kept_base is None else kept_base, wanted.left_out
        )


def _base(root: str | None, kept: str | None, bases: list[Parts], lists: list[IO[bytes]]) -> Parts:
    """Return the folder that names are relative to; without a root, all lines of the lists are looked at for that."""
    if root is not None:
        return choose_base(root, kept, ())
    current = Location.parse(os.curdir).parts
    lines = (base_of_line(line, current) for each in lists for line in _lines(each) if isinstance(line, Location))
    natural = deepest_common(chain(bases, lines))
    if not natural and not bases:  # no image is known of
        return parts_of(kept or "")
    return choose_base(None, kept, natural)


def _lines(file: IO[bytes]) -> Iterator[Location | SourceFailure]:
    """Read a list from its beginning."""
    for _, line, reason in lines_of(file):
        location = Location.parse(line)
        if reason is None and archive_scheme(location.path):
            reason = "a line must name an image, but this is an archive; give it as an argument"
        yield location if reason is None else SourceFailure(line, reason)


def _named(file: Location | SourceFailure, base: Parts) -> Source | SourceFailure:
    """Name a file by its path below a folder."""
    if isinstance(file, SourceFailure):
        return file
    parts = file.parts
    if parts[: len(base)] != base:
        return SourceFailure(file.public_url, f"images must lie under {text_of(base)}, but this one does not")
    name = "/".join(parts[len(base) :])
    if "::" in name and not file.is_local:
        return SourceFailure(file.public_url, f"a name must not hold '::', which joins URLs, got {name!r}")
    reason = wrong_name(name)
    return SourceFailure(file.public_url, reason) if reason else Source(name, file.url)


def _each_once(images: Iterator[Source | SourceFailure]) -> Iterator[Source | SourceFailure]:
    """Skip images whose name has been yielded already."""
    with closing(NameSet()) as names:
        for image in images:
            if isinstance(image, Source):
                if image.name in names:
                    continue
                names.update([image.name])
            yield image


def _in_shard(image: Source | SourceFailure, shard: tuple[int, int]) -> bool:
    number, n_shards = shard
    return shard_of(image.name, n_shards) == number


def _and_close(images: Iterator[Source | SourceFailure], resources: ExitStack) -> Iterator[Source | SourceFailure]:
    """Close resources at the end of the images, or when the iterator is closed."""
    with resources:
        yield from images


def fetch(source: Source, *, timeout: float = 60.0, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """Read an image's file.

    Parameters
    ----------
    source : Source
        Of `expand`.
    timeout : float, optional
        For the whole file, in seconds, over a network. Some file systems only notice between two blocks. A
        request that a web server answers with a transient error, such as 503, is repeated within it.
    max_bytes : int, optional
        Larger files are refused; no more than this is ever in memory.

    Returns
    -------
    data : bytes

    Raises
    ------
    OSError
        It cannot be read (TimeoutError: in time), is no regular file, or is too large.
    ImportError
        A package is missing that the file system needs.
    """
    return read_bytes(Location.parse(source.url), timeout=timeout, max_bytes=max_bytes)
