"""Writing files whole or not at all, also when the process is killed or the power fails; one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a file beside its place, then let it take that place.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists; its folder is made if it does not.
    data : bytes or memoryview
        What it is to hold.

    Raises
    ------
    OSError
        It cannot be written; what was there before is still there.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a place beside a file's to write to; when that has ended without an exception, it becomes the file.

    Parameters and exceptions are those of `write_whole`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_at(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill a buffer from an open file, as far as that goes: the system may give a part only, though there is more."""
    done = 0
    while done < len(buffer) and (more := os.preadv(descriptor, [buffer[done:]], offset + done)):
        done += more


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of some bytes into an open file: the system may take a part only, without an error."""
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)


def remove_temporaries(path: str | os.PathLike[str]) -> None:
    """Remove what `write_whole` leaves beside a file when its process is killed; no other one may be writing it."""
    path = Path(path)
    for temporary in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        temporary.unlink(missing_ok=True)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Have the disk hold the names in a folder: files that were made, renamed or removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lock:
    """Keeps other processes out while this one writes; gone with the process, however it ends.

    Parameters
    ----------
    path : str or path-like
        A file for this alone; its folder is made if it does not exist. It is removed by `release`.

    Raises
    ------
    BlockingIOError
        Another process has it.
    OSError
        It cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_there():
                    return
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # its holder removed it meanwhile

    def release(self) -> None:
        """Let others write."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False
