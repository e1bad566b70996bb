"""Opening what a URL names: file systems of fsspec, web servers with limits, and archives."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from gpusift.sources.limits import DEFAULT_LIMITS, Limits
from gpusift.sources.locations import HTTP, Location

# This many archives stay open, with their tables of contents: those that were read last.
OPEN_ARCHIVES = 8

# Suffixes of archives that a SOURCE may be, and the scheme that opens each; a compression is told by its first bytes.
ARCHIVES = {
    ".zip": "zip",
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz"), "tar"),
}
OTHER_ARCHIVES = (".7z", ".rar", ".tar.zst", ".tzst", ".tar.lz4")

ZIP_ENTRY = b"PK\x01\x02"  # begins an entry in the table of contents of a zip

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}

_archives: OrderedDict[tuple[str, tuple[int, int] | None], tuple[Any, threading.RLock]] = OrderedDict()
_archives_lock = threading.Lock()


def archive_scheme(path: str) -> str | None:
    """Return the scheme that opens an archive of this name, such as "tar" for "photos.tgz"; None if it is none."""
    return next((scheme for suffix, scheme in ARCHIVES.items() if path.lower().endswith(suffix)), None)


def open_filesystem(
    location: Location, timeout: float | None = 60, limits: Limits | None = None
) -> tuple[Any, str, threading.RLock]:
    """Open the file system that a URL names.

    Parameters
    ----------
    location : Location
        Not on this machine.
    timeout : float, optional
        For a whole answer over HTTP, in seconds.
    limits : Limits, optional
        On a web server, and on the table of contents of an archive that is not open yet.

    Returns
    -------
    filesystem : fsspec.AbstractFileSystem
    path : str
        The location's path in it.
    lock : threading.RLock
        To be held while reading: an archive can be read by one thread at a time.

    Raises
    ------
    ImportError
        A package is missing, which the message names.
    Exception
        Whatever the file system raises.
    """
    if location.container:
        filesystem, lock = _open_archive(location, limits)
        return filesystem, filesystem._strip_protocol(location.path), lock
    import fsspec

    options = {} if location.wrappers else _options(location, timeout, limits or DEFAULT_LIMITS)
    filesystem, path = fsspec.core.url_to_fs(location.url, **options)
    return filesystem, path, threading.RLock()


def _options(location: Location, timeout: float | None, limits: Limits) -> dict[str, Any]:
    """Return fsspec's options for a URL: for a web server, limits of time and of redirects."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if location.scheme not in HTTP:
        return options
    try:
        import aiohttp
    except ImportError:
        raise ImportError('http needs aiohttp: pip install "gpusift[http]"') from None
    idle = limits.idle_seconds
    times = aiohttp.ClientTimeout(total=timeout, sock_connect=idle, sock_read=idle)
    return {**options, "client_kwargs": {"timeout": times}, "max_redirects": limits.redirects}


def _open_archive(location: Location, limits: Limits | None) -> tuple[Any, threading.RLock]:
    """Open an archive, or take the open one unless its file has changed."""
    container = Location.parse(location.container[2:])
    key = replace(location, path="").url, _stamp(container)
    with _archives_lock:
        if key in _archives:
            _archives.move_to_end(key)
            return _archives[key]
    archive = _new_archive(location, container, limits), threading.RLock()
    with _archives_lock:
        _archives[key] = archive
        while len(_archives) > OPEN_ARCHIVES:
            _archives.popitem(last=False)
    return archive


def _new_archive(location: Location, container: Location, limits: Limits | None) -> Any:
    """Read an archive's table of contents."""
    import fsspec

    if location.scheme not in ("zip", "tar") or location.wrappers:
        return fsspec.core.url_to_fs(replace(location, path="").url)[0]
    is_plain = not (container.is_local or container.wrappers or container.container)
    options = _options(container, None, limits or DEFAULT_LIMITS) if is_plain else {}
    file = fsspec.open(container.url, "rb", **options).open()
    try:
        contents = _Contents(_decompressed(file) if location.scheme == "tar" else file, limits)
        archive = fsspec.get_filesystem_class(location.scheme)(fo=contents, skip_instance_cache=True)
        contents.limits = None  # a member is bounded by its reader
    except BaseException:
        file.close()
        raise
    return archive


def _decompressed(file: Any) -> Any:
    """Return what a compressed file holds, as a file."""
    from fsspec.compression import compr

    head = file.read(6)
    file.seek(0)
    name = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), None)
    return compr[name](file, mode="rb") if name else file


class _Contents:
    """An archive's file; while its table of contents is read, the bytes that are read are counted.

    A member's name in a tar, or the table of a zip, is read at once, however long its header says that it is.
    """

    def __init__(self, file: Any, limits: Limits | None) -> None:
        self._file, self._read, self._entries, self.limits = file, 0, 0, limits

    def read(self, size: int = -1) -> bytes:
        """Read this many bytes."""
        if self.limits is None:
            return self._file.read(size)
        self._read += max(size, 0)
        if self._read > self.limits.listing_bytes + self.limits.entries * 512:  # a tar's headers have 512 bytes
            raise OSError(errno.EFBIG, self.limits.exceeded("listing_bytes", "an archive's table of contents"))
        data = self._file.read(size)
        self._entries += data.count(ZIP_ENTRY)  # which have no size of their own: zipfile makes an object of each
        if self._entries > self.limits.entries:
            raise OSError(errno.EFBIG, self.limits.exceeded("entries", "the number of entries in an archive"))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Say that `seek` works."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> _Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stamp(container: Location) -> tuple[int, int] | None:
    """Return the time and size of an archive's file, if that is on this machine."""
    if not container.is_local:
        return None
    status = os.stat(container.path)
    return status.st_mtime_ns, status.st_size
