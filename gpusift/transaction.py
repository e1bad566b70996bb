"""A file that changes by transactions, so that a library which writes all over it may be stopped at any moment.

HDF5 appends what is new, and changes what is old in place. Here all of this goes to memory until `commit`, which

1. appends what is new; whoever reads the file as it was takes no notice;
2. writes what changes to `<file>.journal`, whole or not at all;
3. changes the file, and removes the journal.

Stopped in 1 or 2, the file is as before. Stopped in 3, which takes some ten microseconds, `recover` does 3 again from
the journal.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from gpusift.files import remove_temporaries, write_at, write_whole

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
        self._position = 0
        self._pages: dict[int, bytearray] = {}  # of what is committed, those that change
        self._tail = bytearray()  # what follows

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._committed + len(self._tail)}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read so many bytes, or those up to the end."""
        data = bytearray(max(min(size, self._committed + len(self._tail) - self._position), 0))
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Read what fills a buffer, or reaches to the end."""
        view = memoryview(buffer).cast("B")
        first, last = self._position, self._position + len(view)
        old = os.pread(self._descriptor, max(min(last, self._committed) - first, 0), first)
        new = self._tail[max(first - self._committed, 0) : max(last - self._committed, 0)]
        view[: len(old)] = old
        view[len(old) : len(old) + len(new)] = new
        for number, start, end in _pages(first, first + len(old)):
            page = self._pages.get(number)
            if page is not None:
                view[start - first : end - first] = page[start - number * PAGE : end - number * PAGE]
        self._position += len(old) + len(new)
        return len(old) + len(new)

    def write(self, data: memoryview) -> int:
        """Write, to memory."""
        view = memoryview(data).cast("B")
        first, last = self._position, self._position + len(view)
        for number, start, end in _pages(first, min(last, self._committed)):
            if number not in self._pages:
                length = min(PAGE, self._committed - number * PAGE)
                self._pages[number] = bytearray(os.pread(self._descriptor, length, number * PAGE))
            self._pages[number][start - number * PAGE : end - number * PAGE] = view[start - first : end - first]
        if last > self._committed:
            start = max(first, self._committed)
            self._lengthen(start)
            self._tail[start - self._committed : last - self._committed] = view[start - first :]
        self._position = last
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length, but never to less than what is committed: HDF5 knows where its data end."""
        del self._tail[max(size - self._committed, 0) :]
        self._lengthen(size)
        return size

    def flush(self) -> None:
        """Do nothing: `commit` does."""

    def commit(self) -> None:
        """Change the file on the disk, wholly or not at all.

        Raises
        ------
        OSError
            It cannot be written, and is as before; or, with the journal there, `recover` will complete it.
        """
        try:
            write_at(self._descriptor, self._tail, self._committed)
            os.fsync(self._descriptor)
            if self._pages:
                write_whole(journal_of(self._path), _pack(self._pages))
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._committed)
            raise
        if self._pages:
            _apply(self._descriptor, ((number * PAGE, page) for number, page in self._pages.items()))
            journal_of(self._path).unlink()
        self._committed += len(self._tail)
        self._pages, self._tail = {}, bytearray()

    def close(self) -> None:
        """Let go of the file; what is not committed is lost."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lengthen(self, size: int) -> None:
        self._tail.extend(bytes(max(size - self._committed - len(self._tail), 0)))


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
