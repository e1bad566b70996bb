"""Looking for image files: what an argument stands for, a file, a folder, a glob or an archive, wherever it is."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gpusift.errors import raise_if_of_machine, reason_of
from gpusift.sources.filesystems import OTHER_ARCHIVES, archive_scheme, open_filesystem
from gpusift.sources.limits import DEFAULT_LIMITS, Limits
from gpusift.sources.listing import list_archive, list_folder
from gpusift.sources.locations import Location

# What a folder is searched for; a file that is named itself may have any suffix.
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".exr", ".gif", ".hdr", ".j2k", ".jfif", ".jif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pam", ".pbm", ".pfm", ".pgm", ".pic", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class SourceFailure:
    """A path, URL or name that gave no image, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Wanted:
    """Which files of folders are taken.

    Attributes
    ----------
    pattern : str or None
        What a file's name must match; otherwise its suffix must be one of `IMAGE_SUFFIXES`.
    recursive : bool
        Whether folders are searched to any depth.
    limits : Limits
        On what is searched.
    left_out : Counter
        Suffix, in lower case -> number of files that were left out for it.
    """

    pattern: str | None = None
    recursive: bool = True
    limits: Limits = DEFAULT_LIMITS
    left_out: Counter[str] = field(default_factory=Counter)

    def takes(self, name: str) -> bool:
        """Say whether a file of this name is taken, and count it if not."""
        suffix = os.path.splitext(name)[1].lower()
        taken = suffix in IMAGE_SUFFIXES if self.pattern is None else fnmatch.fnmatchcase(name, self.pattern)
        if not taken:
            self.left_out[suffix] += 1
        return taken


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
        """Return the states after a folder; none if nothing in it can match. `below`: search one that matched."""
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


def resolve(argument: str, limits: Limits) -> Search | SourceFailure:
    """Tell files, folders, globs and archives apart."""
    location = Location.parse(argument)
    try:
        exists, is_folder = _kind(location, limits)
    except Exception as error:
        return SourceFailure(argument, reason_of(error))
    if exists and not is_folder:
        return _file_or_archive(argument, location, limits)
    if exists:
        return Search(argument, location, is_folder)
    if not glob.has_magic(location.path):
        return SourceFailure(argument, "no such file or folder")
    fixed = re.split(r"[*?[]", location.path, maxsplit=1)[0]
    folder, slash, _ = fixed.rpartition("/")
    wildcards = location.path[len(folder + slash) :].split("/")
    return Search(argument, replace(location, path=folder or slash), True, tuple(wildcards))


def _kind(location: Location, limits: Limits) -> tuple[bool, bool]:
    """Return whether a location exists, and whether it is a folder."""
    if location.is_local:
        return os.path.lexists(location.path), os.path.isdir(location.path)
    if location.is_web:  # anything may be there: asking is reading
        return "*" not in location.path, location.path.endswith("/")
    filesystem, path, lock = open_filesystem(location, limits=limits)
    with lock:
        return filesystem.exists(path), filesystem.isdir(path)


def _file_or_archive(argument: str, location: Location, limits: Limits) -> Search | SourceFailure:
    """Return the search for a file: an archive is a folder, unless it is in another archive."""
    path = location.parts[-1] if location.is_web else location.path
    if path.lower().endswith(OTHER_ARCHIVES):
        return SourceFailure(argument, "an archive must be .zip or .tar, also .gz, .bz2 or .xz; extract this one first")
    scheme = archive_scheme(path)
    if scheme is None:
        return Search(argument, location)
    if location.container:
        return SourceFailure(argument, "an archive in an archive is not opened; extract it first")
    inside = Location.parse(f"{scheme}://::{location.url}")
    try:
        open_filesystem(inside, limits=limits)
    except Exception as error:
        return SourceFailure(argument, f"cannot open the archive: {reason_of(error)}")
    return Search(argument, inside, True)


def files_of(search: Search | SourceFailure, wanted: Wanted) -> Iterator[Location | SourceFailure]:
    """Yield the files that an argument stands for."""
    if isinstance(search, SourceFailure):
        yield search
        return
    if not search.is_folder:
        yield search.location
        return
    if search.location.container:
        files = _files_in_archive(search, wanted)
    else:
        files = _files_in_folder(search.location, search, search.begin(), wanted, wanted.limits.depth)
    empty = True
    for file in files:
        empty = False
        yield file
    if empty and search.wildcards:
        yield SourceFailure(search.text, "no image file matches")


def _files_in_folder(
    folder: Location, search: Search, states: frozenset[int], wanted: Wanted, depth: int
) -> Iterator[Location | SourceFailure]:
    if depth == 0:
        yield SourceFailure(folder.url, f"folders must be at most {wanted.limits.depth} deep (limit depth)")
        return
    try:
        listing = list_folder(folder, wanted.limits)
    except Exception as error:
        raise_if_of_machine(error, folder.url)
        yield SourceFailure(folder.url, reason_of(error))
        return
    for name, reason in listing.failures:
        if not name.startswith("."):
            yield SourceFailure((folder.child(name) if name else folder).url, reason)
    for name in listing.files:
        if not name.startswith(".") and search.matches(states, name) and wanted.takes(name):
            yield folder.child(name)
    for name in listing.folders:
        below = search.follow(states, name, below=wanted.recursive)
        if below and not name.startswith("."):
            yield from _files_in_folder(folder.child(name), search, below, wanted, depth - 1)


def _files_in_archive(search: Search, wanted: Wanted) -> Iterator[Location | SourceFailure]:
    try:
        paths = list(list_archive(search.location, wanted.limits))
    except Exception as error:
        raise_if_of_machine(error, search.location.url)
        yield SourceFailure(search.location.url, reason_of(error))
        return
    for path in paths:
        if path.startswith("/"):
            yield SourceFailure(search.location.child(path).url, f"a name in an archive must be relative, got {path!r}")
            continue
        *folders, name = path.split("/")
        states = search.begin()
        for part in folders:
            states = search.follow(states, part, below=wanted.recursive)
        hidden = any(part.startswith(".") and part.strip(".") for part in (*folders, name))
        if not hidden and search.matches(states, name) and wanted.takes(name):
            yield search.location.child(path)
