"""Files and folders wherever they are: on this machine, or where an fsspec URL says.

A file in an archive has a path below the archive's file, and a URL a path below its scheme. So every file has one path,
and paths can be compared: `zip://s/a.jpg::/data/b.zip` is file/data/b.zip/s/a.jpg.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import IO, Any

# A chain of fsspec: wrappers such as "simplecache::", a scheme, the path, and "::" with what that path lies in.
_URL = re.compile(
    r"(?P<wrappers>(?:\w+::)*)(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<path>.*?)(?P<container>::.*)?", re.DOTALL
)

HTTP = ("http", "https")

# Archives stay open, with their tables of contents, while they are among the last so many that were read from.
OPEN_ARCHIVES = 8

# Files whose size is not known are read in blocks of so many bytes.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Location:
    """A file or folder.

    Attributes
    ----------
    path : str
        Its path, absolute on this machine, or what follows "://" in its URL.
    scheme, wrappers, container : str
        The rest of the URL; empty on this machine.
    """

    path: str
    scheme: str = ""
    wrappers: str = ""
    container: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Make it from a path or a URL."""
        match = _URL.fullmatch(text)
        if not match:
            return cls(os.path.abspath(text))
        parts = match.groupdict(default="")
        if parts["scheme"] in ("file", "local") and not parts["wrappers"] + parts["container"]:
            return cls(os.path.abspath(parts["path"]))
        container = parts["container"] and "::" + cls.parse(parts["container"][2:]).url
        return cls(parts["path"], parts["scheme"], parts["wrappers"], container)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, outside of any archive."""
        return not self.scheme

    @property
    def url(self) -> str:
        """What it is made from: an absolute path, or a URL."""
        return f"{self.wrappers}{self.scheme}://{self.path}{self.container}" if self.scheme else self.path

    @property
    def parts(self) -> tuple[str, ...]:
        """Its path's parts, below those of the archive it is in."""
        path = self.path.strip("/")
        own = tuple(path.split("/")) if path else ()
        if self.container:
            return Location.parse(self.container[2:]).parts + own
        return (self.scheme or "file", *own)

    def child(self, name: str) -> Location:
        """Return what has this name in this folder."""
        separator = "" if not self.path or self.path.endswith("/") else "/"
        return replace(self, path=f"{self.path}{separator}{name}")

    def parent(self) -> Location:
        """Return the folder it is in."""
        head, separator, _ = self.path.rstrip("/").rpartition("/")
        return replace(self, path=head or separator)


def open_filesystem(location: Location, timeout: float = 60) -> tuple[Any, str, threading.RLock]:
    """Open the file system that a URL names.

    Parameters
    ----------
    location : Location
        Not on this machine.
    timeout : float, optional
        For an answer over HTTP, in seconds.

    Returns
    -------
    filesystem : fsspec.AbstractFileSystem
    path : str
        The location in it.
    lock : threading.RLock
        To be held while reading, since archives can be read by one thread at a time.

    Raises
    ------
    ImportError
        A package is missing, which the message names.
    Exception
        Whatever the file system raises.
    """
    if location.container:
        filesystem, lock = _archive(replace(location, path="").url, _stamp(location))
        return filesystem, filesystem._strip_protocol(location.path), lock
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if location.scheme in HTTP:
        try:
            import aiohttp
        except ImportError:
            raise ImportError('http needs aiohttp: pip install "gpusift[http]"') from None
        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=timeout)}
    filesystem, path = fsspec.core.url_to_fs(location.url, **({} if location.wrappers else options))
    return filesystem, path, threading.RLock()


@lru_cache(maxsize=OPEN_ARCHIVES)
def _archive(url: str, stamp: tuple[int, int] | None) -> tuple[Any, threading.RLock]:
    """Open an archive once; `stamp` makes it another one when its file changes."""
    import fsspec

    return fsspec.core.url_to_fs(url)[0], threading.RLock()


def _stamp(location: Location) -> tuple[int, int] | None:
    """Return the time and size of an archive's file, if that is on this machine."""
    container = Location.parse(location.container[2:])
    if not container.is_local:
        return None
    status = os.stat(container.path)
    return status.st_mtime_ns, status.st_size


def list_folder(location: Location) -> tuple[list[str], list[str]]:
    """List a folder that is not in an archive.

    Returns
    -------
    folders, files : list of str
        Names, sorted. Links to folders are left out.

    Raises
    ------
    Exception
        Whatever its file system raises.
    """
    folders, files = [], []
    if location.is_local:
        with os.scandir(location.path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif not entry.is_dir():
                    files.append(entry.name)
        return sorted(folders), sorted(files)
    filesystem, path, _ = open_filesystem(location)
    folder = path.strip("/")
    inside = folder + "/" if folder else ""
    for entry in filesystem.ls(path, detail=True):
        name = entry["name"].strip("/").removeprefix(inside)
        # A web page also links to what is not in its folder: those names are whole URLs.
        if name and "/" not in name:
            (folders if entry["type"] == "directory" else files).append(name)
    return sorted(folders), sorted(files)


def list_archive(location: Location) -> Iterator[str]:
    """Yield the paths of all files below a folder in an archive, relative to it, sorted; as the archive has them.

    Raises
    ------
    Exception
        Whatever the archive raises.
    """
    filesystem, path, lock = open_filesystem(location)
    with lock:
        filesystem.ls("", detail=False)  # fills the table of contents
        entries = list(filesystem.dir_cache.values())
    inside = path.rstrip("/") + "/" if path.strip("/") else ""
    for name in sorted(entry["name"] for entry in entries if entry["type"] == "file"):
        if name.startswith(inside):
            yield name[len(inside) :]


def read_bytes(location: Location, *, timeout: float, max_bytes: int) -> bytes:
    """Read a file; see `gpusift.sources.fetch`.

    Raises
    ------
    OSError
        It cannot be read, or is larger than `max_bytes`.
    """
    deadline = time.monotonic() + timeout
    try:
        if location.is_local:
            with open(_open_regular(location.path), "rb") as file:
                return _read(file, os.fstat(file.fileno()).st_size, max_bytes, math.inf)
        filesystem, path, lock = open_filesystem(location, timeout)
        if location.scheme in HTTP and not location.container:  # as it comes, without asking for its size first
            with filesystem.open(path, "rb", block_size=0, size=1) as file:
                return _read(file, 0, max_bytes, deadline)
        with lock, filesystem.open(path, "rb") as file:
            return _read(file, filesystem.size(path) or 0, max_bytes, deadline)
    except asyncio.TimeoutError:  # which is TimeoutError only from Python 3.11 on
        raise TimeoutError(errno.ETIMEDOUT, f"must be read within {timeout:g} s, but it was not") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of any file system, archive or network library
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def _open_regular(path: str) -> int:
    """Open a file without waiting for the other end of a pipe, and refuse pipes and devices."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "must be a regular file, but it is a pipe or a device", path)


def _read(file: IO[bytes], size: int, max_bytes: int, deadline: float) -> bytes:
    """Read a file whose size is said to be this, 0 if it is not known."""
    blocks: list[bytes] = []
    length = 0
    while max(size, length) <= max_bytes:
        block = file.read(min(max(size - length + 1, BLOCK), max_bytes + 1))
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        length += len(block)
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "must be read within the timeout, but it is still coming")
    raise OSError(errno.EFBIG, f"must have at most {max_bytes} bytes (max_bytes), but it has more")
