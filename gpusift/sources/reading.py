"""Reading one local or remote file, with limits of time and size, and retries after transient errors of a server."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import stat
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

from gpusift.errors import is_of_machine
from gpusift.sources.filesystems import open_filesystem
from gpusift.sources.locations import Location

# Files whose size is not known are read in blocks of this many bytes.
BLOCK = 1 << 20

# Seconds before each retry after a transient error of a server.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)

# HTTP statuses of transient errors.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

Result = TypeVar("Result")


def read_bytes(location: Location, *, timeout: float, max_bytes: int) -> bytes:
    """Read a file; see `gpusift.sources.fetch`.

    Raises
    ------
    OSError
        It cannot be read, or is larger than `max_bytes`.
    """
    deadline = time.monotonic() + timeout
    if location.is_local:
        with open(_open_regular(location.path), "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, max_bytes, math.inf)

    def read() -> bytes:
        filesystem, path, lock = open_filesystem(location, timeout)
        if location.is_web:  # as it comes, without asking for its size first
            with filesystem.open(path, "rb", block_size=0, size=1) as file:
                return _read(file, 0, max_bytes, deadline)
        with lock, filesystem.open(path, "rb") as file:
            return _read(file, filesystem.size(path) or 0, max_bytes, deadline)

    return again_if_passing(read, location, deadline)


def again_if_passing(attempt: Callable[[], Result], location: Location, deadline: float = math.inf) -> Result:
    """Call a function that reads from a file system, and repeat it after transient errors of a web server.

    Parameters
    ----------
    attempt : callable
        The function.
    location : Location
        The file or folder that it reads.
    deadline : float, optional
        Time of `time.monotonic` after which no attempt starts.

    Raises
    ------
    OSError
        Of the last attempt. An exception of any file system, archive or network library is made an OSError.
    ImportError, MemoryError, RuntimeError
        A library, memory or a thread is missing on this machine.
    """
    for delay in (*RETRY_SECONDS, None):
        try:
            return attempt()
        except Exception as error:
            if is_of_machine(error):
                raise
            if delay is None or not _may_pass(error) or time.monotonic() + delay > deadline:
                raise _as_oserror(error, location) from error
        time.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


def _may_pass(error: Exception) -> bool:
    """Return whether an error of a web server is transient."""
    return getattr(error, "status", None) in PASSING or type(error).__name__ == "ServerDisconnectedError"


def _as_oserror(error: Exception, location: Location) -> OSError:
    """Return an OSError with the reason of the exception; an error of HTTP has its status."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if isinstance(error, asyncio.TimeoutError):  # which is TimeoutError only from Python 3.11 on
        return TimeoutError(errno.ETIMEDOUT, "must be sent in time, but it was not", location.url)
    status = getattr(error, "status", None)
    if location.is_web and isinstance(error, FileNotFoundError):  # as fsspec has a 404
        return FileNotFoundError(errno.ENOENT, "HTTP 404 (Not Found)", location.url)
    if type(error).__name__ == "TooManyRedirects":
        return OSError(errno.ELOOP, f"HTTP {status}: too many redirects (limit redirects)", location.url)
    if isinstance(status, int):
        return OSError(errno.EIO, f"HTTP {status} ({getattr(error, 'message', '')})", location.url)
    if isinstance(error, OSError):
        return error
    return OSError(errno.EIO, f"{type(error).__name__}: {error}", location.url)


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


def _read(file: IO[bytes] | Any, size: int, max_bytes: int, deadline: float) -> bytes:
    """Read a file that claims to have this size; 0 if it is not known."""
    blocks: list[bytes] = []
    length = 0
    while max(size, length) <= max_bytes:
        block = file.read(min(max(size - length + 1, BLOCK), max_bytes + 1))
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        length += len(block)
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "must be read within the timeout, but more is still to come")
    raise OSError(errno.EFBIG, f"must have at most {max_bytes} bytes (max_bytes), but it has more")
