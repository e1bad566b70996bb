"""Looking for image files: what an argument stands for, a file, a folder or a glob, wherever it is."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gpusift.errors import reason_of
from gpusift.sources.locations import HTTP, Location, list_archive, list_folder, open_filesystem

# What a folder is searched for; a file that is named itself may have any suffix.
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".exr", ".gif", ".hdr", ".jp2", ".jpe", ".jpeg", ".jpg", ".pam", ".pbm", ".pfm", ".pgm"}
    | {".pic", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"}
)

# Folders in folders: a server may say that each folder has another one in it.
MAX_DEPTH = 64


@dataclass(frozen=True)
class SourceFailure:
    """A path, URL or name that gave no image, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Search:
    """A file, or a folder and what to look for in it.

    The parts of a path below the folder are matched one by one against `wildcards`, of which "**" matches any number of
    parts. A state says which wildcard the next part has to match: several where "**" is among them. Whatever is below a
    folder that matched them all matches too.
    """

    text: str  # the argument
    location: Location
    is_folder: bool = False
    wildcards: tuple[str, ...] = ()

    @property
    def base(self) -> tuple[str, ...]:
        """Return the folder that names are relative to."""
        return (self.location if self.is_folder else self.location.parent()).parts

    def begin(self) -> frozenset[int]:
        """Return the states before the first part."""
        return self._with_skipped({0})

    def follow(self, states: frozenset[int], part: str, *, below: bool) -> frozenset[int]:
        """Return the states after a folder; none if nothing in it can match. `below`: go on in one that matched."""
        end = len(self.wildcards)
        after = {i for i in states if (below if i == end else self.wildcards[i] == "**")}
        after |= {i + 1 for i in states if i < end and fnmatch.fnmatchcase(part, self.wildcards[i])}
        return self._with_skipped(after)

    def matches(self, states: frozenset[int], part: str) -> bool:
        """Say whether a file in a folder with these states matches."""
        return len(self.wildcards) in self.follow(states, part, below=True)

    def _with_skipped(self, states: set[int]) -> frozenset[int]:
        for i, wildcard in enumerate(self.wildcards):
            if wildcard == "**" and i in states:
                states.add(i + 1)
        return frozenset(states)


def resolve(argument: str) -> Search | SourceFailure:
    """Tell files, folders and globs apart."""
    location = Location.parse(argument)
    try:
        if location.is_local:
            there, is_folder = os.path.lexists(location.path), os.path.isdir(location.path)
        elif location.scheme in HTTP and not location.container:  # anything may be there: asking is reading
            there, is_folder = "*" not in location.path, location.path.endswith("/")
        else:
            filesystem, path, lock = open_filesystem(location)
            with lock:
                there, is_folder = filesystem.exists(path), filesystem.isdir(path)
    except Exception as error:
        return SourceFailure(argument, reason_of(error))
    if there:
        return Search(argument, location, is_folder)
    if not glob.has_magic(location.path):
        return SourceFailure(argument, "no such file or folder")
    fixed = re.split(r"[*?[]", location.path, maxsplit=1)[0]
    folder, slash, _ = fixed.rpartition("/")
    wildcards = location.path[len(folder + slash) :].split("/")
    return Search(argument, replace(location, path=folder or slash), True, tuple(wildcards))


def files_of(
    search: Search | SourceFailure, pattern: str | None, recursive: bool
) -> Iterator[Location | SourceFailure]:
    """Yield the files that an argument stands for."""
    if isinstance(search, SourceFailure) or not search.is_folder:
        yield search if isinstance(search, SourceFailure) else search.location
        return

    def wanted(name: str) -> bool:
        if pattern is not None:
            return fnmatch.fnmatchcase(name, pattern)
        return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES

    if search.location.container:
        files = _files_in_archive(search, wanted, recursive)
    else:
        files = _files_in_folder(search.location, search, search.begin(), wanted, recursive, MAX_DEPTH)
    empty = True
    for file in files:
        empty = False
        yield file
    if empty and search.wildcards:
        yield SourceFailure(search.text, "no image file matches")


def _files_in_folder(
    folder: Location, search: Search, states: frozenset[int], wanted: Callable[[str], bool], recursive: bool, depth: int
) -> Iterator[Location | SourceFailure]:
    if depth == 0:
        yield SourceFailure(folder.url, f"folders must be at most {MAX_DEPTH} deep")
        return
    try:
        folders, files = list_folder(folder)
    except Exception as error:
        yield SourceFailure(folder.url, reason_of(error))
        return
    for name in files:
        if not name.startswith(".") and wanted(name) and search.matches(states, name):
            yield folder.child(name)
    for name in folders:
        below = search.follow(states, name, below=recursive)
        if below and not name.startswith("."):
            yield from _files_in_folder(folder.child(name), search, below, wanted, recursive, depth - 1)


def _files_in_archive(
    search: Search, wanted: Callable[[str], bool], recursive: bool
) -> Iterator[Location | SourceFailure]:
    try:
        paths = list(list_archive(search.location))
    except Exception as error:
        yield SourceFailure(search.location.url, reason_of(error))
        return
    for path in paths:
        if path.startswith("/"):
            yield SourceFailure(search.location.child(path).url, f"a name in an archive must be relative, got {path!r}")
            continue
        *folders, name = path.split("/")
        states = search.begin()
        for part in folders:
            states = search.follow(states, part, below=recursive)
        hidden = any(part.startswith(".") and part.strip(".") for part in (*folders, name))
        if not hidden and wanted(name) and search.matches(states, name):
            yield search.location.child(path)
