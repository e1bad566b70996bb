"""What is in a folder: on this machine, in a bucket, on a web server's page, in an archive."""

from __future__ import annotations

import errno
import html
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from gpusift.errors import reason_of
from gpusift.sources.filesystems import open_filesystem
from gpusift.sources.limits import Limits
from gpusift.sources.locations import Location
from gpusift.sources.reading import BLOCK, again_if_passing

# A link of a web page; neither of its parts goes beyond the tag, so that a page takes time in proportion to its length.
_LINK = re.compile(rb"""<a\s[^<>]*?href\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)'|([^\s"'<>]+))""", re.IGNORECASE)

HTML = "text/html"

# A tag that is longer is no link.
MAX_TAG_BYTES = 1 << 16


@dataclass
class Listing:
    """Names of a folder's entries.

    Attributes
    ----------
    folders, files : list of str
        Sorted. Links to folders are left out; a link that leads nowhere is a file.
    failures : list of (str, str)
        Entries whose kind cannot be told, and why; the name is empty for the rest of a folder that cannot be read on.
    """

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def list_folder(location: Location, limits: Limits) -> Listing:
    """List a folder that is not in an archive.

    Raises
    ------
    Exception
        Whatever its file system raises; an OSError if it goes beyond a limit.
    """
    if location.is_local:
        listing = _list_local(location.path, limits)
    elif location.is_web:
        listing = _sorted_by_kind(_web_entries(location, limits), limits)
    else:
        listing = _sorted_by_kind(_remote_entries(location), limits)
    return Listing(sorted(listing.folders), sorted(listing.files), listing.failures)


def list_archive(location: Location, limits: Limits) -> Iterator[str]:
    """Yield the paths of all files below a folder in an archive, relative to it, sorted; as the archive has them.

    Raises
    ------
    Exception
        Whatever the archive raises.
    """
    filesystem, path, lock = open_filesystem(location, limits=limits)
    with lock:
        filesystem.ls("", detail=False)  # fills the table of contents
        entries = list(filesystem.dir_cache.values())
    _check_count(len(entries), limits)
    inside = path.rstrip("/") + "/" if path.strip("/") else ""
    for name in sorted(entry["name"] for entry in entries if entry["type"] == "file"):
        if name.startswith(inside):
            yield name[len(inside) :]


def _list_local(path: str, limits: Limits) -> Listing:
    """List a folder on this machine; an entry that cannot be examined does not affect the others."""
    listing = Listing()
    with os.scandir(path) as entries:
        while True:
            try:
                entry = next(entries, None)
            except OSError as error:  # of reading on in the folder
                listing.failures.append(("", reason_of(error)))
                return listing
            if entry is None:
                return listing
            _add_local(listing, entry)
            _check_count(len(listing.folders) + len(listing.files) + len(listing.failures), limits)


def _add_local(listing: Listing, entry: os.DirEntry[str]) -> None:
    try:
        if entry.is_dir(follow_symlinks=False):
            listing.folders.append(entry.name)
            return
        is_link = entry.is_symlink()
    except OSError as error:
        listing.failures.append((entry.name, reason_of(error)))
        return
    if not (is_link and os.path.isdir(entry.path)):  # whoever reads a link that leads nowhere is told why
        listing.files.append(entry.name)


def _sorted_by_kind(entries: Iterable[tuple[str, bool]], limits: Limits) -> Listing:
    """Make a listing of names and whether each is a folder's."""
    listing = Listing()
    for name, is_folder in entries:
        (listing.folders if is_folder else listing.files).append(name)
        _check_count(len(listing.folders) + len(listing.files), limits)
    return listing


def _remote_entries(location: Location) -> Iterator[tuple[str, bool]]:
    """Yield a folder's entries by fsspec."""
    filesystem, path, _ = open_filesystem(location)
    folder = path.strip("/")
    inside = folder + "/" if folder else ""
    for entry in filesystem.ls(path, detail=True):
        name = entry["name"].strip("/").removeprefix(inside)
        if name and "/" not in name:
            yield name, entry.get("type") == "directory"


def _web_entries(location: Location, limits: Limits) -> Iterator[tuple[str, bool]]:
    """Yield what a web server's page for a folder links to in that folder, each once."""
    page = Location.parse(location.url.rstrip("/") + "/")
    yield from again_if_passing(lambda: _linked_entries(page, limits), location).items()


def _linked_entries(page: Location, limits: Limits) -> dict[str, bool]:
    """Return the names that a page links to in its folder, and whether each is a folder's."""
    entries: dict[str, bool] = {}
    folder = urlsplit(page.url)
    for link in _links(page, limits):
        try:
            target = urlsplit(urljoin(page.url, link))
        except ValueError:  # no URL
            continue
        name = target.path.removeprefix(folder.path)
        if target.netloc == folder.netloc and target.path.startswith(folder.path) and "/" not in name.rstrip("/"):
            entries.setdefault(name.rstrip("/"), name.endswith("/"))
    entries.pop("", None)
    return entries


def _links(location: Location, limits: Limits) -> Iterator[str]:
    """Yield the links of a web page, which is read in blocks up to a limit."""
    filesystem, path, _ = open_filesystem(location, limits.listing_seconds, limits)
    deadline = time.monotonic() + limits.listing_seconds
    with filesystem.open(path, "rb", block_size=0, size=1) as file:
        kind = file.r.headers.get("Content-Type", HTML).partition(";")[0].strip().lower()
        if kind != HTML:
            return
        rest, count = b"", 0
        for block in _blocks(file, limits, deadline):
            text = rest + block
            for match in _LINK.finditer(text):
                count += 1
                _check_count(count, limits)
                yield html.unescape((match[1] or match[2] or match[3] or b"").decode(errors="surrogateescape"))
            open_tag = text[max(text.rfind(b"<"), len(text) - MAX_TAG_BYTES, 0) :]
            rest = open_tag if open_tag.startswith(b"<") and b">" not in open_tag else b""


def _blocks(file: Any, limits: Limits, deadline: float) -> Iterator[bytes]:
    """Read a page within the limits of bytes and time."""
    length = 0
    while block := file.read(BLOCK):
        length += len(block)
        if length > limits.listing_bytes:
            raise OSError(errno.EFBIG, limits.exceeded("listing_bytes", "a folder's page"))
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, limits.exceeded("listing_seconds", "the time for a folder's page"))
        yield block


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.entries:
        raise OSError(errno.EFBIG, limits.exceeded("entries", "the number of entries in a folder or archive"))
