"""Reading photographs in several threads, with what their decoders print."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gpusift import images
from gpusift.images import DEFAULT_MAX_PIXELS, Decoded, ImageReadError
from gpusift.images.jpeg import PlainJpeg, plain_jpeg
from gpusift.images.stderr import Listener
from gpusift.sources import fetch

if TYPE_CHECKING:
    from gpusift.sources import Source

OPENCV, NVIMGCODEC = "opencv", "nvimgcodec"
DECODERS = (OPENCV, NVIMGCODEC)

Result = TypeVar("Result")


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
    decoder : str
        "opencv", or "nvimgcodec": plain JPEG files (`gpusift.images.jpeg.plain_jpeg`) by nvImageCodec on the
        device that computes, all else by OpenCV.

    Raises
    ------
    ValueError
        There is no such decoder.
    """

    exif_orientation: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_size: int | None = None
    decoder: str = OPENCV

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder must be {' or '.join(map(repr, DECODERS))}, got {self.decoder!r}")


class Reader:
    """Reads photographs, in up to `n_threads` threads at once.

    Parameters
    ----------
    decoding : Decoding
        How.
    n_threads : int
        Threads that call `read`, `decode` and `beside`.
    listener : Listener, optional
        Hears what the decoders print, so that `read` can say of which picture it was.
    """

    def __init__(self, decoding: Decoding, n_threads: int, listener: Listener | None = None) -> None:
        self._decoding = decoding
        self._listener = listener
        self._n_threads = n_threads
        self._at_work = threading.Semaphore(n_threads)
        self._turn = threading.Lock()

    @property
    def max_size(self) -> int | None:
        """Most pixels of a picture's longer side."""
        return self._decoding.max_size

    def read(self, source: Source) -> tuple[Decoded | PlainJpeg, list[str]]:
        """Fetch a photograph, and decode it unless that is nvImageCodec's part.

        Returns
        -------
        picture : Decoded or PlainJpeg
            The picture, or the file, which has been checked.
        messages : list of str
            What the decoder printed, if there is a listener.

        Raises
        ------
        OSError, ImageReadError
            It cannot be fetched, or decoded.
        """
        data = fetch(source)
        if self._decoding.decoder == NVIMGCODEC:
            header = images.check(data, source.url, self._decoding.max_pixels)
            jpeg = plain_jpeg(data, scans=header.passes, exif_orientation=self._decoding.exif_orientation)
            if jpeg is not None:
                return jpeg, []
        return self.decode(data, source)

    def decode(self, data: bytes, source: Source) -> tuple[Decoded, list[str]]:
        """Decode a photograph by OpenCV.

        Parameters
        ----------
        data : bytes
            The whole file.
        source : Source
            Whose it is.

        Returns
        -------
        decoded, messages
            As of `read`.

        Raises
        ------
        ImageReadError
            It cannot be decoded.
        """

        def attempt() -> tuple[Decoded | None, ImageReadError | None]:
            try:
                return self._decode(data, source), None
            except ImageReadError as failed:
                return None, failed

        (decoded, error), quiet = self.beside(attempt)
        messages = [] if quiet else self.messages(data, source)
        if decoded is None:
            said = f" (decoder: {messages[0]})" if messages else ""
            assert error is not None
            raise ImageReadError(source.url, error.reason + said)
        return decoded, messages

    def beside(self, work: Callable[[], Result]) -> tuple[Result, bool]:
        """Do what may print while other threads read.

        Parameters
        ----------
        work : callable
            What is done.

        Returns
        -------
        result
            What it gave.
        quiet : bool
            Whether nobody printed anything meanwhile; True if there is no listener.
        """
        if self._listener is None:
            return work(), True
        with self._at_work:
            before = self._listener.size
            return work(), self._listener.size == before

    def _decode(self, data: bytes, source: Source) -> Decoded:
        how = self._decoding
        return images.decode(
            data, source.url, exif_orientation=how.exif_orientation, max_pixels=how.max_pixels, max_size=how.max_size
        )

    def messages(self, data: bytes, source: Source) -> list[str]:
        """Decode by OpenCV while no other thread decodes: what is printed then is about this picture.

        Parameters
        ----------
        data, source
            As for `decode`.

        Returns
        -------
        messages : list of str
            Empty if there is no listener.
        """
        if self._listener is None:
            return []
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
