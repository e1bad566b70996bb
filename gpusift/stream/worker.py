"""One device's part of a stream of images: threads that read them, and the thread that computes what is read.

    take -> readers (fetch, check, decode by OpenCV) -> [nvImageCodec's thread] -> computing -> give

With `decoder="nvimgcodec"`, readers do not decode plain JPEG files. One more thread decodes those that wait, together,
on the device, while the batch before is computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpusift import processors
from gpusift.errors import SMALL_PIXELS, MachineError, escaped, raise_if_of_machine, reason_of
from gpusift.images.jpeg import PlainJpeg
from gpusift.images.reader import NVIMGCODEC, Decoding, Reader
from gpusift.images.stderr import Listener
from gpusift.pipeline.outcomes import Unfit
from gpusift.sources import Source
from gpusift.stream.batching import BATCH_ON_GPU, Batching, Computed

if TYPE_CHECKING:
    from gpusift.features import Features
    from gpusift.images import Decoded
    from gpusift.images.nvimgcodec import JpegDecoder
    from gpusift.sift import SIFT

POLL_SECONDS = 0.1  # between two checks for a stop
BUSY_SECONDS = 0.001  # to wait for a picture while the device computes
READERS_FOR_CPU = 2  # threads: the CPU has more to do with computing

DECLINED = "nvImageCodec declines this file, so OpenCV decoded it"


@dataclass(frozen=True)
class Done:
    """The result of an image.

    Attributes
    ----------
    source : Source
        The image.
    features : Features
        On the host, in pixels of the file's picture.
    shape : (int, int)
        Rows and columns of the file's picture.
    messages : list of str
        What the decoder printed.
    read_seconds, compute_seconds : float
        Time spent on it.
    """

    source: Source
    features: Features
    shape: tuple[int, int]
    messages: list[str]
    read_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Failed:
    """An image that could not be computed, and why."""

    source: Source
    reason: str
    read_seconds: float = 0.0


class Take(Protocol):
    """Gives a worker its sources."""

    def __call__(self, wait: bool = True) -> Source | None:
        """Return the next source, or None at the end or after a stop; without `wait`, it may raise `queue.Empty`."""


Give = Callable[["Done | Failed"], None]  # takes the result of a source; may wait
# Takes sources and gives a result for each, until there are no more. Once the event is set, it finishes only the images
# that it is computing.
Worker = Callable[[Take, Give, threading.Event], None]


def worker_here(
    make_sift: Callable[[], SIFT] | SIFT,
    *,
    decoding: Decoding,
    batch_size: int | None = None,
    n_decoders: int | None = None,
    listener: Listener | None = None,
    jpeg_decoder: JpegDecoder | None = None,
) -> Worker:
    """Return a worker that computes in the thread which calls it.

    Parameters
    ----------
    make_sift : SIFT or callable
        What computes.
    decoding : Decoding
        How images are decoded.
    batch_size : int, optional
        Images computed at once, by default 16 on a GPU and 1 on the CPU.
    n_decoders : int, optional
        Threads that read, by default one for each processor on a GPU and 2 on the CPU.
    listener : Listener, optional
        Collects what decoders print.
    jpeg_decoder : JpegDecoder, optional
        For the decoder "nvimgcodec", on the same device; by default the thread that computes makes one.
    """

    def work(take: Take, give: Give, halt: threading.Event) -> None:
        sift = make_sift() if callable(make_sift) else make_sift
        on_cpu = sift.device.uses_host_cores
        size = batch_size or (1 if on_cpu else BATCH_ON_GPU)
        n_readers = n_decoders or (READERS_FOR_CPU if on_cpu else processors.available())
        nvimgcodec = jpeg_decoder
        if decoding.decoder == NVIMGCODEC and nvimgcodec is None:
            from gpusift.images.nvimgcodec import JpegDecoder

            nvimgcodec = JpegDecoder(sift.device, n_readers)
        reader = Reader(decoding, n_readers + (nvimgcodec is not None), listener)
        pictures: Items = Queue(max(size, 2))
        read, n_ends = pictures, n_readers
        if nvimgcodec is not None:
            read, n_ends = Queue(max(size, n_readers)), 1
            arguments = (nvimgcodec, reader, read, n_readers, pictures, halt)
            threading.Thread(target=_decode_all, args=arguments, daemon=True).start()
        for _ in range(n_readers):
            threading.Thread(target=_read_all, args=(reader, take, read, halt), daemon=True).start()
        try:
            _compute_all(sift, batch_size, pictures, n_ends, give, halt)
        except BaseException:
            halt.set()
            raise

    return work


@dataclass(frozen=True)
class _Picture:
    source: Source
    decoded: Decoded
    messages: list[str]
    seconds: float


@dataclass(frozen=True)
class _Encoded:
    source: Source
    jpeg: PlainJpeg
    seconds: float


# What one thread passes to the next: None when a thread ends, an exception when the run cannot continue.
Items = Queue["_Picture | _Encoded | Failed | Exception | None"]


def _read_all(reader: Reader, take: Take, pictures: Items, halt: threading.Event) -> None:
    """Read images until there are no more, with None at the end; or the error that ends this thread."""
    end = None
    try:
        while (source := take()) is not None:
            item = _read(reader, source)
            if not enqueue(pictures, item, halt) or isinstance(item, Exception):
                return
    except Exception as error:  # out of memory, for example: without its end, the computing thread would wait forever
        end = error
    enqueue(pictures, end, halt)


def _read(reader: Reader, source: Source) -> _Picture | _Encoded | Failed | MachineError:
    """Read an image; an error of the image does not stop the others."""
    begun = time.perf_counter()
    try:
        picture, messages = reader.read(source)
    except Exception as error:
        return _failed(source, error, time.perf_counter() - begun)
    seconds = time.perf_counter() - begun
    if isinstance(picture, PlainJpeg):
        return _Encoded(source, picture, seconds)
    return _Picture(source, picture, messages, seconds)


def _failed(source: Source, error: Exception, seconds: float) -> Failed | MachineError:
    """Return an image's failure; or that of the machine, which ends the run."""
    try:
        raise_if_of_machine(error, source.url)
    except MachineError as raised:
        return raised
    return Failed(source, reason_of(error), seconds)


def _decode_all(
    decoder: JpegDecoder, reader: Reader, read: Items, n_readers: int, pictures: Items, halt: threading.Event
) -> None:
    """Decode JPEG files by nvImageCodec, as many together as wait; pass on all other items."""
    try:
        for batch in _batches(read, read.maxsize, n_readers, lambda failed: enqueue(pictures, failed, halt), halt):
            for item in _decode(decoder, reader, batch):
                if not enqueue(pictures, item, halt):
                    return
    except Exception as error:  # of the device
        enqueue(pictures, error, halt)
        return
    enqueue(pictures, None, halt)


def _decode(decoder: JpegDecoder, reader: Reader, batch: list[Any]) -> Iterator[_Picture | Failed]:
    """Yield the pictures of a batch, of which some may be encoded; OpenCV decodes what nvImageCodec declines."""
    yield from (item for item in batch if isinstance(item, _Picture))
    encoded = [item for item in batch if isinstance(item, _Encoded)]
    begun = time.perf_counter()
    try:
        several, printed = reader.listen_to(lambda: decoder.decode([item.jpeg for item in encoded], reader.max_size))
    except Exception as error:  # out of memory, for example
        if _is_of_the_device(error):
            raise
        several, printed = [None] * len(encoded), []
    each = (time.perf_counter() - begun) / max(len(encoded), 1)
    for item, decoded in zip(encoded, several, strict=True):
        begun = time.perf_counter()
        data, source = item.jpeg.data, item.source
        try:
            if decoded is None:
                decoded, messages = reader.decode(data, source)
                messages = [*messages, DECLINED]
            else:
                messages = [] if printed == [] else reader.messages(data, source)
        except Exception as error:
            raise_if_of_machine(error, source.url)
            yield Failed(source, reason_of(error), item.seconds + each + time.perf_counter() - begun)
        else:
            yield _Picture(source, decoded, messages, item.seconds + each + time.perf_counter() - begun)


def _batches(
    items: Items, size: int, n_readers: int, give: Callable[[Failed], object], halt: threading.Event
) -> Iterator[list[Any]]:
    """Yield batches of the pictures that wait, up to `size`, until all threads that read them have ended."""
    batch: list[Any] = []
    while n_readers and not halt.is_set():
        try:
            item = items.get(not batch, POLL_SECONDS)
        except Empty:
            if batch:
                yield batch
            batch = []
            continue
        if item is None:
            n_readers -= 1
        elif isinstance(item, Exception):
            raise item
        elif isinstance(item, Failed):
            give(item)
        else:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    if batch and not halt.is_set():
        yield batch


def enqueue(queue: Queue, item: Any, halt: threading.Event) -> bool:
    """Put an item into a queue; return False if a stop came first."""
    while not halt.is_set():
        try:
            queue.put(item, timeout=POLL_SECONDS)
            return True
        except Full:
            continue
    return False


def _compute_all(
    sift: SIFT, batch_size: int | None, pictures: Items, n_readers: int, give: Give, halt: threading.Event
) -> None:
    """Compute pictures until all threads that read them have ended; after a stop, finish only the batches in flight.

    While the device computes, pictures are taken as they come, so that the next batch is there when the device is free.
    """
    with Batching[_Picture](sift, batch_size) as batching:
        while (n_readers or batching.window) and not halt.is_set():
            n_readers -= _take(pictures, batching, give)
            for computed in batching.advance(is_last=n_readers == 0):
                give(_result(computed))
        while not batching.is_idle:
            for computed in batching.finish():
                give(_result(computed))


def _take(pictures: Items, batching: Batching[_Picture], give: Give) -> int:
    """Take the pictures that are there, up to a batch; return how many readers have ended."""
    n_ended, patience = 0, POLL_SECONDS if batching.has_nothing_to_do else BUSY_SECONDS
    for _ in range(pictures.maxsize):
        try:
            item = pictures.get(timeout=patience) if patience else pictures.get_nowait()
        except Empty:
            break
        patience = 0
        if item is None:
            n_ended += 1
        elif isinstance(item, Exception):
            raise item
        elif isinstance(item, Failed):
            give(item)
        elif isinstance(item, _Picture):
            batching.add(item.decoded.image, item)
    return n_ended


def _result(computed: Computed[_Picture]) -> Done | Failed:
    """Return an image's result; one that is unfit, or too large for the memory, does not disturb the others."""
    picture, outcome = computed.item, computed.outcome
    if isinstance(outcome, Unfit):
        if outcome.error is MemoryError and picture.decoded.image.size <= SMALL_PIXELS:
            raise MachineError(f"{outcome.reason} (met at {escaped(picture.source.url)})")
        return Failed(picture.source, outcome.reason, picture.seconds)
    features, shape = in_file(outcome, picture.decoded), picture.decoded.shape
    return Done(picture.source, features, shape, picture.messages, picture.seconds, computed.seconds)


def _is_of_the_device(error: Exception) -> bool:
    """Whether the GPU itself failed, and with it all later work: an error of CUDA other than memory that runs out."""
    return type(error).__module__.startswith("cupy") and not isinstance(error, MemoryError)


def in_file(features: Features, decoded: Decoded) -> Features:
    """Convert features on the host from pixels of a picture that was made smaller to pixels of the file's picture."""
    if decoded.image.shape == decoded.shape:
        return features
    ratio = np.divide(decoded.shape, decoded.image.shape)
    kind = features.positions.dtype
    return replace(
        features,
        positions=((features.positions + 0.5) * ratio - 0.5).astype(kind),
        sigmas=(features.sigmas * np.sqrt(ratio.prod())).astype(kind),
    )
