"""A file that changes by transactions, so that a library which writes all over it may be stopped at any moment.

HDF5 appends what is new, and changes what is old in place. What it appends goes to the disk at once: whoever reads the
file as it was takes no notice of what follows its end. What it changes goes to memory until `commit`, which

1. has the disk hold what was appended;
2. writes what changes to `<file>.journal`, whole or not at all;
3. changes the file, and removes the journal.

Stopped before 3, the file is as before, but longer: HDF5 knows where its data end, and cuts off the rest when it is
opened for writing again. Stopped in 3, which takes some ten microseconds, `recover` does 3 again from the journal.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from gpusift.storage.atomic import read_at, remove_temporaries, write_at, write_whole

PAGE = 4096
MAGIC = b"gpusift journal\n"
CHECKSUM = struct.Struct("<I")
CHANGE = struct.Struct("<QQ")  # offset, length


def journal_of(path: Path) -> Path:
    """Return where a file's journal is."""
    return path.with_name(f"{path.name}.journal")


def recover(path: Path) -> None:
    """Complete what an earlier process was stopped in.

    Parameters
    ----------
    path : Path
        The file; there need be none, nor a journal.

    Raises
    ------
    OSError
        It cannot be written.
    """
    journal = journal_of(path)
    remove_temporaries(journal)
    if not path.exists() or not journal.exists():
        journal.unlink(missing_ok=True)
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        _apply(descriptor, _unpack(journal.read_bytes()))
    finally:
        os.close(descriptor)
    journal.unlink()


class TransactionalFile:
    """A binary file with what h5py needs of one, that changes on the disk when `commit` is called, and then wholly.

    Parameters
    ----------
    path : Path
        The file, after `recover`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._committed = os.fstat(self._descriptor).st_size
        self._size = self._committed  # what is to be committed
        self._position = 0
        self._pages: dict[int, bytearray] = {}  # of what is committed, those that change
        self._error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read so many bytes, or those up to the end."""
        data = bytearray(max(min(size, self._size - self._position), 0))
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Read what fills a buffer, or reaches to the end."""
        pages, first = self._pages, self._position  # those pages: another thread's commit may end meanwhile
        view = memoryview(buffer).cast("B")[: max(self._size - first, 0)]
        read_at(self._descriptor, view, first)
        for number, start, end in _pages(first, min(first + len(view), self._committed)):
            if number in pages:
                piece = pages[number][start - number * PAGE : end - number * PAGE]
                view[start - first : start - first + len(piece)] = piece
        self._position += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:
        """Write: to memory what is committed already, to the disk what follows.

        No error is raised, for a library that meets one in the midst of its work may not get over it: `check` does.
        """
        view = memoryview(data).cast("B")
        first, last = self._position, self._position + len(view)
        self._lengthen(first)
        self._change(first, view[: max(self._committed - first, 0)])
        start = max(first, self._committed)
        if start < last:
            self._to_disk(lambda: write_at(self._descriptor, view[start - first :], start))
        self._position, self._size = last, max(self._size, last)
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length; what is committed keeps its own on the disk until `commit`."""
        self._lengthen(size)
        self._size = size
        self._to_disk(lambda: os.ftruncate(self._descriptor, max(size, self._committed)))
        return size

    def flush(self) -> None:
        """Do nothing: `commit` does."""

    def check(self) -> None:
        """See that all that was written could be.

        Raises
        ------
        OSError
            Of the first error; nothing can be committed any more.
        """
        if self._error is not None:
            raise self._error

    def commit(self) -> None:
        """Change the file on the disk, wholly or not at all.

        Raises
        ------
        OSError
            It cannot be written, and is as before; or, with the journal there, `recover` will complete it. Nothing can
            be committed any more.
        """
        self.check()
        self._error = OSError(errno.EINTR, "a commit was interrupted")  # unless it comes to its end
        journal = journal_of(self._path)
        try:
            os.fsync(self._descriptor)
            if self._pages:
                write_whole(journal, _pack(self._pages))
                _apply(self._descriptor, ((number * PAGE, page) for number, page in self._pages.items()))
            before, self._committed = self._committed, max(self._size, self._committed)
            if self._pages:
                journal.unlink()
            if self._size < before:
                os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            self._error = error
            raise
        self._committed, self._pages, self._error = self._size, {}, None

    def close(self) -> None:
        """Let go of the file; what is not committed is lost."""
        if self._descriptor >= 0:
            with suppress(OSError):
                if not journal_of(self._path).exists():  # whose changes need what was appended
                    os.ftruncate(self._descriptor, self._committed)
            os.close(self._descriptor)
            self._descriptor = -1

    def _lengthen(self, size: int) -> None:
        """Have zeros follow, up to this length; beyond what is committed the disk has them by itself."""
        self._change(self._size, bytes(max(min(size, self._committed) - self._size, 0)))
        self._size = max(self._size, size)

    def _change(self, first: int, data: memoryview | bytes) -> None:
        """Change bytes that are committed, in memory."""
        for number, start, end in _pages(first, first + len(data)):
            if number not in self._pages:
                page = bytearray(min(PAGE, self._committed - number * PAGE))
                read_at(self._descriptor, memoryview(page), number * PAGE)
                self._pages[number] = page
            self._pages[number][start - number * PAGE : end - number * PAGE] = data[start - first : end - first]

    def _to_disk(self, write: Callable[[], object]) -> None:
        """Write to the disk; after an error nothing more."""
        if self._error is None:
            try:
                write()
            except OSError as error:
                self._error = error


def _pages(first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Divide a range of bytes: number of each page, and which bytes of the file are in it and in the range."""
    for number in range(first // PAGE, -(-last // PAGE) if last > first else 0):
        yield number, max(first, number * PAGE), min(last, (number + 1) * PAGE)


def _pack(pages: dict[int, bytearray]) -> bytes:
    changes = b"".join(CHANGE.pack(number * PAGE, len(page)) + page for number, page in pages.items())
    return MAGIC + CHECKSUM.pack(zlib.crc32(changes)) + changes


def _unpack(journal: bytes) -> list[tuple[int, bytes]]:
    """Return offsets and bytes; none if the journal is not whole."""
    changes, found = journal[len(MAGIC) + CHECKSUM.size :], []
    if journal[: len(MAGIC) + CHECKSUM.size] != MAGIC + CHECKSUM.pack(zlib.crc32(changes)):
        return []
    at = 0
    while at < len(changes):
        offset, length = CHANGE.unpack_from(changes, at)
        at += CHANGE.size + length
        found.append((offset, changes[at - length : at]))
    return found


def _apply(descriptor: int, changes: Iterable[tuple[int, bytes | bytearray]]) -> None:
    for offset, data in changes:
        write_at(descriptor, data, offset)
    os.fsync(descriptor)
