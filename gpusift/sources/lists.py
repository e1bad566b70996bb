"""Lists of paths: text files of one path or URL a line, on this machine, at a URL, or on standard input."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from gpusift.sources.filesystems import open_filesystem
from gpusift.sources.limits import Limits
from gpusift.sources.locations import Location
from gpusift.sources.reading import BLOCK, again_if_passing

# A line that is longer is no path.
MAX_LINE_BYTES = 1 << 16

# Byte order marks that begin a text which is not UTF-8; UTF-32's first, of which UTF-16's is the beginning.
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def open_list(path: str, limits: Limits) -> IO[bytes]:
    """Open a list so that it can be read twice, which standard input, pipes and URLs cannot.

    Parameters
    ----------
    path : str
        Path or URL of the list; "-" is standard input.
    limits : Limits
        For its bytes, and for the time of a web server.

    Returns
    -------
    file : binary file
        In UTF-8, or in bytes that are no text; for `lines_of`.

    Raises
    ------
    OSError
        It cannot be read, or is larger than a limit.
    """
    location = Location.parse(path)
    if path == "-":
        return _copy(sys.stdin.buffer.read, limits)
    if location.is_local:
        return open_local_list(location.path, limits)

    def copy() -> IO[bytes]:
        filesystem, inside, lock = open_filesystem(location, limits.listing_seconds, limits)
        options = {"block_size": 0, "size": 1} if location.is_web else {}
        with lock, filesystem.open(inside, "rb", **options) as file:
            return _copy(file.read, limits, time.monotonic() + limits.listing_seconds)

    return again_if_passing(copy, location)


def open_local_list(path: str | os.PathLike[str], limits: Limits) -> IO[bytes]:
    """Open a list on this machine, as `open_list` does; copy what cannot be read twice, or has to be decoded."""
    file = open(path, "rb")  # noqa: SIM115 (its reader closes it)
    try:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            if status.st_size > limits.list_bytes:
                raise OSError(errno.EFBIG, limits.exceeded("list_bytes", "a list"), path)
            head = file.read(len(codecs.BOM_UTF32_LE))
            file.seek(0)
            if _encoding(head) is None:
                return file
        copy = _copy(file.read, limits)
    except BaseException:
        file.close()
        raise
    file.close()
    return copy


def _encoding(head: bytes) -> str | None:
    """Return the encoding that a list's first bytes declare; None for UTF-8 and for bytes that are not text."""
    return next((name for mark, name in _ENCODINGS.items() if head.startswith(mark)), None)


def _copy(read: Callable[[int], bytes], limits: Limits, deadline: float | None = None) -> IO[bytes]:
    """Copy a list to a temporary file, which closing removes; in UTF-8 if the list declares UTF-16 or UTF-32."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
    try:
        head, length = b"", 0
        while len(head) < len(codecs.BOM_UTF32_LE) and (block := read(BLOCK)):
            head += block
        encoding = _encoding(head)
        decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        block = head
        while block:
            length += len(block)
            if length > limits.list_bytes:
                raise OSError(errno.EFBIG, limits.exceeded("list_bytes", "a list"))
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, limits.exceeded("listing_seconds", "the time for a list"))
            copy.write(os.fsencode(decoder.decode(block)) if decoder else block)
            block = read(BLOCK)
        if decoder:
            decoder.decode(b"", final=True)
    except UnicodeError as error:
        copy.close()
        raise OSError(errno.EILSEQ, f"a list must be valid {encoding} as its byte order mark says: {error}") from error
    except BaseException:
        copy.close()
        raise
    return copy


class Line(NamedTuple):
    """A line of a list.

    Attributes
    ----------
    number : int
        Counted from 1.
    text : str
        A path or URL, bytes that are not UTF-8 as `os.fsdecode` gives them.
    reason : str or None
        Why it is no path, if so; the text may be shortened then.
    """

    number: int
    text: str
    reason: str | None = None


def lines_of(file: IO[bytes]) -> Iterator[Line]:
    """Read a list from its beginning, without its empty lines."""
    number = 0
    file.seek(len(codecs.BOM_UTF8) if file.seek(0) == 0 and file.read(3) == codecs.BOM_UTF8 else 0)
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while rest := file.readline(MAX_LINE_BYTES):
                if rest.endswith(b"\n"):
                    break
            yield Line(number, os.fsdecode(line[:100]) + "...", f"a line must have less than {MAX_LINE_BYTES} bytes")
            continue
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if "\0" in text:
            yield Line(number, text[:100], "a path must not hold the character 0; a list has one path a line")
        elif text:
            yield Line(number, text)
