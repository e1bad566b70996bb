"""Reading photographs in several threads, and hearing what the decoders print past Python."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from gpusift import images
from gpusift.images import DEFAULT_MAX_PIXELS, Decoded, ImageReadError
from gpusift.sources import fetch

if TYPE_CHECKING:
    from gpusift.sources import Source


@dataclass(frozen=True)
class Decoding:
    """How photographs are decoded; see `gpusift.images.decode`.

    Attributes
    ----------
    exif_orientation : bool
        Turn and mirror the picture as its EXIF data say.
    max_pixels : int
        Refuse a picture whose header tells of more pixels.
    max_size : int or None
        Make the picture smaller until its longer side has at most so many pixels.
    """

    exif_orientation: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_size: int | None = None


class Reader:
    """Reads photographs, in up to `n_threads` threads at once.

    Parameters
    ----------
    decoding : Decoding
        How.
    n_threads : int
        Threads that call `read`.
    listener : Listener, optional
        Hears what the decoders print, so that `read` can say of which picture it was.
    """

    def __init__(self, decoding: Decoding, n_threads: int, listener: Listener | None = None) -> None:
        self._decoding = decoding
        self._listener = listener
        self._n_threads = n_threads
        self._at_work = threading.Semaphore(n_threads)
        self._turn = threading.Lock()

    def read(self, source: Source) -> tuple[Decoded, list[str]]:
        """Fetch and decode a photograph.

        Returns
        -------
        decoded : Decoded
            The picture.
        messages : list of str
            What the decoder printed, if there is a listener.

        Raises
        ------
        OSError, ImageReadError
            It cannot be fetched, or decoded.
        """
        data = fetch(source)
        if self._listener is None:
            return self._decode(data, source), []
        with self._at_work:
            before = self._listener.size
            try:
                decoded, error = self._decode(data, source), None
            except ImageReadError as failed:
                decoded, error = None, failed
            quiet = self._listener.size == before
        messages = [] if quiet else self._messages(data, source)
        if decoded is None:
            said = f" (decoder: {messages[0]})" if messages else ""
            assert error is not None
            raise ImageReadError(source.url, error.reason + said)
        return decoded, messages

    def _decode(self, data: bytes, source: Source) -> Decoded:
        how = self._decoding
        return images.decode(
            data, source.url, exif_orientation=how.exif_orientation, max_pixels=how.max_pixels, max_size=how.max_size
        )

    def _messages(self, data: bytes, source: Source) -> list[str]:
        """Decode once more while no other thread does: what is printed then is about this picture."""
        assert self._listener is not None
        with self._alone():
            self._listener.clear()
            with suppress(ImageReadError):
                self._decode(data, source)
            return self._listener.lines()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._turn:
            for _ in range(self._n_threads):
                self._at_work.acquire()
        try:
            yield
        finally:
            for _ in range(self._n_threads):
                self._at_work.release()


class Listener:
    """Holds back what is printed on the process's stderr past Python; a context manager.

    The process's file descriptor 2 goes to a temporary file meanwhile, and `sys.stderr` to where the descriptor went
    before. So this is for programs, such as our command line, that own their process.
    """

    def __enter__(self) -> Listener:
        self._stderr: TextIO = sys.stderr
        self._stderr.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        if _writes_to(self._stderr, 2):
            sys.stderr = open(self._saved, "w", buffering=1, closefd=False)
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
        """Bytes held."""
        return os.fstat(self._file.fileno()).st_size

    def clear(self) -> None:
        """Forget what was printed until now."""
        os.lseek(2, 0, os.SEEK_SET)  # the offset is that of all who print
        os.ftruncate(2, 0)

    def lines(self) -> list[str]:
        """Return the different lines printed, without OpenCV's prefix."""
        lines = os.pread(self._file.fileno(), self.size, 0).decode(errors="replace").splitlines()
        return list(dict.fromkeys(images.without_prefix(line) for line in lines if line.strip()))


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False


def reason_of(error: BaseException) -> str:
    """Say in one line what is the matter, without the path, which the caller has."""
    said = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    if isinstance(error, MemoryError):
        said = f"must fit in memory, but does not ({said or 'out of memory'}); try a max_size, or upsampling 1"
    return " ".join(str(said).split()) or type(error).__name__
