"""Reading photographs in several threads, and attributing what their decoders print."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gpusift import images
from gpusift.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_SCANS, Decoded, ImageReadError
from gpusift.images.jpeg import PlainJpeg, plain_jpeg
from gpusift.images.limits import check
from gpusift.images.stderr import Listener
from gpusift.sources import fetch

if TYPE_CHECKING:
    from gpusift.sources import Source

OPENCV, NVIMGCODEC = "opencv", "nvimgcodec"
DECODERS = (OPENCV, NVIMGCODEC)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoding:
    """Options of decoding; see `gpusift.images.decode`.

    Attributes
    ----------
    exif_orientation : bool
        Turn and mirror images as their EXIF data say.
    max_pixels : int
        Refuse an image whose header declares more pixels.
    max_size : int or None
        Reduce an image until its longer side has at most this many pixels.
    decoder : str
        "opencv", or "nvimgcodec": nvImageCodec decodes plain JPEG files (`gpusift.images.jpeg.plain_jpeg`) on the
        device that computes, and OpenCV decodes all other files.
    max_scans : int
        Refuse a large JPEG of more scans.
    allow_formats : tuple of str
        Formats to decode although their headers do not bound the work.

    Raises
    ------
    ValueError
        The decoder is unknown.
    """

    exif_orientation: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_size: int | None = None
    decoder: str = OPENCV
    max_scans: int = DEFAULT_MAX_SCANS
    allow_formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder must be {' or '.join(map(repr, DECODERS))}, got {self.decoder!r}")


class Reader:
    """Reads photographs in up to `n_threads` threads at once.

    Decoders print to the process's stderr and do not name the image. What is printed while one image is decoded alone
    belongs to that image. If several images were decoded at the time, each of them is decoded again, alone, to learn
    whose message it was: output can be separated neither by thread, as descriptor 2 belongs to the process, nor by
    OpenCV's log, to which Python programs cannot subscribe. No image is decoded again while nothing is printed.

    Parameters
    ----------
    decoding : Decoding
        Options of decoding.
    n_threads : int
        Threads that call `read`, `decode` and `listen_to`.
    listener : Listener, optional
        Collects what the decoders print.
    """

    def __init__(self, decoding: Decoding, n_threads: int, listener: Listener | None = None) -> None:
        self._decoding = decoding
        self._listener = listener
        self._n_threads = n_threads
        self._slots = threading.Semaphore(n_threads)
        self._turn = threading.Lock()
        self._lock = threading.Lock()  # guards the two counts
        self._n_working = 0
        self._n_begun = 0

    @property
    def max_size(self) -> int | None:
        """Limit of an image's longer side, pixels."""
        return self._decoding.max_size

    @property
    def _bounds(self) -> dict[str, Any]:
        """Keyword arguments of `check` and `decode`."""
        options = self._decoding
        return {
            "max_pixels": options.max_pixels,
            "max_scans": options.max_scans,
            "allow_formats": options.allow_formats,
        }

    def read(self, source: Source) -> tuple[Decoded | PlainJpeg, list[str]]:
        """Fetch a photograph, and decode it unless nvImageCodec is to decode it.

        Parameters
        ----------
        source : Source
            The photograph.

        Returns
        -------
        picture : Decoded or PlainJpeg
            The image, or the file, which has been checked.
        messages : list of str
            What the decoder printed, if there is a listener.

        Raises
        ------
        OSError, ImageReadError
            The file cannot be fetched, or cannot be decoded.
        """
        data = fetch(source)
        if self._decoding.decoder == NVIMGCODEC:
            header = check(data, source.url, **self._bounds)
            jpeg = plain_jpeg(data, scans=header.scans, exif_orientation=self._decoding.exif_orientation)
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
            The photograph.

        Returns
        -------
        decoded, messages
            As of `read`.

        Raises
        ------
        ImageReadError
            The file cannot be decoded.
        """

        def attempt() -> Decoded | ImageReadError:
            try:
                return self._decode(data, source)
            except ImageReadError as error:
                return error

        result, messages = self.listen_to(attempt)
        if messages is None:
            messages = self.messages(data, source)
        if isinstance(result, ImageReadError):
            complaint = f" (decoder: {messages[0]})" if messages else ""
            raise ImageReadError(source.url, result.reason + complaint)
        return result, messages

    def listen_to(self, work: Callable[[], Result]) -> tuple[Result, list[str] | None]:
        """Run a function that may print, beside those of other threads.

        Parameters
        ----------
        work : callable
            The function.

        Returns
        -------
        result
            The function's result.
        messages : list of str or None
            What it printed; empty without a listener. None if something was printed, but by this function or by
            that of another thread.
        """
        listener = self._listener
        if listener is None:
            return work(), []
        with self._slots:
            with self._lock:
                if not self._n_working:
                    listener.clear()
                self._n_begun += 1
                number, before, alone = self._n_begun, listener.size, not self._n_working
                self._n_working += 1
            try:
                result = work()
            finally:
                with self._lock:
                    self._n_working -= 1
                    alone = alone and self._n_begun == number
                    messages = listener.lines() if alone else None if listener.size != before else []
            return result, messages

    def _decode(self, data: bytes, source: Source) -> Decoded:
        options = self._decoding
        return images.decode(
            data,
            source.url,
            exif_orientation=options.exif_orientation,
            max_size=options.max_size,
            **self._bounds,
        )

    def messages(self, data: bytes, source: Source) -> list[str]:
        """Decode by OpenCV while no other thread decodes, to learn what is printed about this image.

        Parameters
        ----------
        data, source
            As for `decode`.

        Returns
        -------
        messages : list of str
            Empty without a listener.
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
                self._slots.acquire()
        try:
            yield
        finally:
            for _ in range(self._n_threads):
                self._slots.release()
