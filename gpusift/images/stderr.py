"""Collecting what decoders print on the process's stderr, which bypasses Python's `sys.stderr`."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

# "[ WARN:0@0.356] global grfmt_png.cpp:793 readFromStreamOrBuffer " before a message of OpenCV's.
_LOG_PREFIX = re.compile(r"^\[ *[A-Z]+:\d+@[\d.]+\]( global)?( \S+:\d+ \S+)? *")


class Listener:
    """Context manager that collects what is written to the process's file descriptor 2.

    Within the context, the descriptor refers to a temporary file, and `sys.stderr` to the descriptor's former target.
    So this is for programs that own their process, such as gpusift's command line.
    """

    def __enter__(self) -> Listener:
        self._stderr: TextIO = sys.stderr
        self._stderr.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        if _writes_to(self._stderr, 2):
            encoding, errors = self._stderr.encoding, self._stderr.errors
            sys.stderr = open(self._saved, "w", buffering=1, encoding=encoding, errors=errors, closefd=False)
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr is not self._stderr:
            sys.stderr.close()
            sys.stderr = self._stderr
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes collected."""
        return os.fstat(self._file.fileno()).st_size

    def clear(self) -> None:
        """Discard what was printed until now."""
        os.lseek(2, 0, os.SEEK_SET)  # all writers share the offset
        os.ftruncate(2, 0)

    def lines(self) -> list[str]:
        """Return the distinct lines printed, without OpenCV's prefix."""
        lines = os.pread(self._file.fileno(), self.size, 0).decode(errors="replace").splitlines()
        return list(dict.fromkeys(without_prefix(line) for line in lines if line.strip()))


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """Collect what decoders print, in programs that own their process (see `Listener`).

    Yields
    ------
    messages : list of str
        Filled at the end with the distinct lines printed, without OpenCV's prefix.
    """
    messages: list[str] = []
    with Listener() as listener:
        try:
            yield messages
        finally:
            messages += listener.lines()


def without_prefix(line: str) -> str:
    """Remove OpenCV's prefix from a message: its level, time and place in the source.

    Parameters
    ----------
    line : str
        A line from stderr.
    """
    return _LOG_PREFIX.sub("", line).strip()
