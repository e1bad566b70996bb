"""Writing files completely or not at all, even if the process is killed or the power fails; one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

# What a file system answers that cannot lock files, or cannot make the names in a folder durable.
NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

# Temporary files are named after their file, of whose name this many bytes are taken: file systems allow 255.
MAX_PREFIX_BYTES = 200

# The byte of a file that `Lock` locks: beyond those that SQLite locks, and beyond any file's end.
LOCKED_BYTE = 1 << 62

# struct flock of Linux on 64-bit machines: type, whence, start, length, process.
_FLOCK = struct.Struct("hh4xqqi4x")

_log = logging.getLogger("gpusift")


def write_whole(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a temporary file in the same folder, then rename it.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists; its folder is made if it does not.
    data : bytes or memoryview
        Its content.

    Raises
    ------
    OSError
        The file cannot be written; what was there before is still there.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file to write to; at the end of the context, unless by an exception, it becomes the file.

    The temporary file is in the same folder, has a name that nobody can predict, and can be read by this user only. The
    file then has the permissions of the one that it replaces, or those of any new file.

    Parameters and exceptions are those of `write_whole`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(".tmp", _prefix(path), path.parent)
    temporary = Path(name)
    try:
        os.close(descriptor)
        yield temporary
        with open(temporary, "rb") as file:
            os.fchmod(file.fileno(), _permissions(path))
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder beside a file, for a library that makes the file with others beside it; it is removed at the end.

    Its name cannot be predicted, and only this user can read it.

    Parameters and exceptions are those of `write_whole`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(".tmp", _prefix(path), path.parent)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def _prefix(path: Path) -> str:
    """Return the beginning of the names of a file's temporary files."""
    return f".{os.fsdecode(os.fsencode(path.name)[:MAX_PREFIX_BYTES])}."


def _permissions(path: Path) -> int:
    """Return the permissions of a file, or those of a new one."""
    with suppress(FileNotFoundError):
        return os.stat(path).st_mode & 0o777
    with open("/proc/self/status") as status:  # as os.umask changes it for all threads
        umask = next(line.split()[1] for line in status if line.startswith("Umask:"))
    return 0o666 & ~int(umask, 8)


def read_at(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill a buffer from an open file, up to the file's end: the system may return a part only."""
    done = 0
    while done < len(buffer) and (count := os.preadv(descriptor, [buffer[done:]], offset + done)):
        done += count


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all bytes into an open file: the system may take a part only, without an error."""
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)


def remove_temporaries(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process leaves of `replacing` and `temporary_folder`; no other one may write the file."""
    path = Path(path)
    for temporary in path.parent.glob(f"{escape(_prefix(path))}*.tmp"):
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make durable which files were made, renamed and removed in a folder, if its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


class Lock:
    """Keeps other processes out while this one writes. It ends with the process, however that ends.

    On a file system that has no locks it does nothing, but warns.

    Parameters
    ----------
    path : str or path-like
        A file for the lock alone; its folder is made if it does not exist. It is removed by `release`.
    file : str or path-like, optional
        What is written, if it is one file and exists: it is locked, too, so that it makes no difference by which of its
        names (hard links, mounts) it is reached.

    Raises
    ------
    BlockingIOError
        Another process has it.
    OSError
        It cannot be made.
    """

    _descriptor = -1

    def __init__(self, path: str | os.PathLike[str], file: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path)
        self._held: list[int] = []  # descriptors of what is written
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while not self._take():
                pass
            if file is not None and os.path.isfile(file):
                self.hold(file)
        except BaseException:
            self.release()
            raise

    def hold(self, file: str | os.PathLike[str]) -> None:
        """Lock the file that is written, which was made meanwhile; nothing is done if that is locked already.

        Raises
        ------
        BlockingIOError
            Another process has it.
        """
        status = os.stat(file)
        if any(os.path.samestat(os.fstat(descriptor), status) for descriptor in self._held):
            return
        self._held.append(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        try:
            # Neither an flock nor a lock of the process: HDF5 takes the one, SQLite the other, and loses it by a close.
            lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCKED_BYTE, 1, 0)
            fcntl.fcntl(self._held[-1], fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fspath(file)) from None
            if error.errno not in NOT_SUPPORTED:
                raise

    def release(self) -> None:
        """Let other processes write, also if the lock's file cannot be removed; the next process then removes it."""
        while self._held:
            os.close(self._held.pop())
        if self._descriptor >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:  # of a caller that an exception kept from releasing it
        if self._descriptor >= 0:
            self.release()

    def _take(self) -> bool:
        """Open and lock the lock's file; return False if its holder has removed it meanwhile."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _flock(descriptor, self._path)
            if self._is_current(descriptor):
                self._descriptor = descriptor  # which `release` closes
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)
        return self._descriptor >= 0

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False


def _flock(descriptor: int, path: Path) -> None:
    """Lock an open file, or warn that its file system cannot."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        _log.warning(
            "%s: the file system cannot lock files (%s); make sure that no other process writes to the same output",
            path,
            error.strerror,
        )
