"""A file that changes by transactions, so that a library that writes at arbitrary offsets may be killed at any moment.

HDF5 appends new data, and changes old data in place. What it appends goes to the disk at once: whoever reads the file
ignores what follows its end. What it changes goes to memory until `commit`, which

1. makes the appended data durable;
2. appends a journal, all changes with a checksum, behind them;
3. makes the changes in the file, and cuts off the journal.

If the process is killed before the journal is complete, the file is as before, but longer. HDF5 knows where its data
end, and cuts off the rest when the file is opened for writing again. If the process is killed in step 3, which takes
some ten microseconds, `recover` repeats that step. The journal is in the file itself. So every path to the file finds
it, a copy or backup of the file has its own, and it is never applied to another file.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from gpusift.storage.atomic import read_at, write_at

PAGE = 4096
CHANGE = struct.Struct("<QQ")  # offset, length

# The last bytes of a file with a journal: length of the file after the commit, offset and checksum of the journal.
MAGIC = b"gpusift journal\n"
FOOTER = struct.Struct("<QQI16s")

Change = tuple[int, bytes | bytearray]


def recover(path: Path) -> None:
    """Complete the commit in which an earlier process was killed; a file without a whole journal is not changed.

    Parameters
    ----------
    path : Path
        The file; it need not exist.

    Raises
    ------
    OSError
        It cannot be read or written.
    """
    if not has_journal(path):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        journal = _journal_in(descriptor)
        if journal is not None:
            changes, length = journal
            _apply(descriptor, changes)
            os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)


def has_journal(path: Path) -> bool:
    """Say whether a process was killed during a commit to a file, so that it takes `recover` to read it."""
    try:
        with open(path, "rb") as file:
            return _journal_in(file.fileno()) is not None
    except FileNotFoundError:
        return False


class TransactionalFile:
    """A binary file, as h5py needs one, that changes on the disk when `commit` is called, and then completely.

    Parameters
    ----------
    path : Path
        The file, after `recover`.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._committed = os.fstat(self._descriptor).st_size
        self._size = self._committed  # after the next commit
        self._position = 0
        self._pages: dict[int, bytearray] = {}  # committed pages that the next commit changes
        self._error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read this many bytes, or those up to the end."""
        data = bytearray(max(min(size, self._size - self._position), 0))
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Read what fills a buffer, or reaches to the end."""
        pages, first = self._pages, self._position  # these pages, as another thread's commit may end meanwhile
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

        It raises no error, as a library that meets one in the middle of its work may not survive it: `check` does.
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
        """Set the length; committed data stay on the disk until `commit`."""
        self._lengthen(size)
        self._size = size
        self._to_disk(lambda: os.ftruncate(self._descriptor, max(size, self._committed)))
        return size

    def flush(self) -> None:
        """Do nothing: `commit` does."""

    def check(self) -> None:
        """Raise the first error of writing.

        Raises
        ------
        OSError
            Something could not be written; nothing can be committed any more.
        """
        if self._error is not None:
            raise self._error

    def commit(self) -> None:
        """Change the file on the disk, completely or not at all.

        Raises
        ------
        OSError
            The file cannot be written, and is as before; or, with its journal complete, `recover` will complete it.
            Nothing can be committed any more.
        """
        self.check()
        self._error = OSError(errno.EINTR, "a commit was interrupted")  # unless it comes to its end
        try:
            os.fsync(self._descriptor)
            if self._pages:
                self._write_journal()
                _apply(self._descriptor, ((number * PAGE, page) for number, page in self._pages.items()))
            before, self._committed = self._committed, self._size
            if self._pages or self._size < before:
                os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            self._error = error
            raise
        self._pages, self._error = {}, None

    def close(self) -> None:
        """Close the file; what is not committed is lost."""
        if self._descriptor >= 0:
            with suppress(OSError):
                if _journal_in(self._descriptor) is None:  # whose changes need the appended data
                    os.ftruncate(self._descriptor, self._committed)
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_journal(self) -> None:
        """Append the changes to the file, and make them durable."""
        changes = b"".join(CHANGE.pack(number * PAGE, len(page)) + page for number, page in self._pages.items())
        offset = max(self._size, self._committed)
        footer = FOOTER.pack(self._size, offset, _checksum(changes, self._size, offset), MAGIC)
        write_at(self._descriptor, changes + footer, offset)
        os.fsync(self._descriptor)

    def _lengthen(self, size: int) -> None:
        """Have zeros follow, up to this length; beyond the committed data the disk has them by itself."""
        self._change(self._size, bytes(max(min(size, self._committed) - self._size, 0)))
        self._size = max(self._size, size)

    def _change(self, first: int, data: memoryview | bytes) -> None:
        """Change committed bytes, in memory."""
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


def _checksum(changes: bytes, length: int, offset: int) -> int:
    return zlib.crc32(changes, zlib.crc32(CHANGE.pack(length, offset)))


def _journal_in(descriptor: int) -> tuple[list[Change], int] | None:
    """Return the changes in a file's journal, and the file's length after them; None if it has no whole journal."""
    size = os.fstat(descriptor).st_size
    start = size - FOOTER.size
    footer = bytearray(FOOTER.size)
    if start < 0:
        return None
    read_at(descriptor, memoryview(footer), start)
    length, offset, checksum, magic = FOOTER.unpack(footer)
    if magic != MAGIC or not length <= offset <= start:
        return None
    changes = bytearray(start - offset)
    read_at(descriptor, memoryview(changes), offset)
    if _checksum(bytes(changes), length, offset) != checksum:
        return None
    unpacked = list(_unpack(bytes(changes)))
    if any(first + len(data) > offset for first, data in unpacked):  # no journal of ours
        return None
    return unpacked, length


def _unpack(changes: bytes) -> Iterator[Change]:
    """Yield offsets and bytes."""
    end = 0
    while end + CHANGE.size <= len(changes):
        offset, length = CHANGE.unpack_from(changes, end)
        end += CHANGE.size + length
        yield offset, changes[end - length : end]


def _apply(descriptor: int, changes: Iterable[Change]) -> None:
    for offset, data in changes:
        write_at(descriptor, data, offset)
    os.fsync(descriptor)
