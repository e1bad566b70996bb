"""One device's part of a stream of images: threads that read them, and the thread that computes what is read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpusift.reading import Decoding, Listener, Reader
from gpusift.reading import reason_of as reason_of
from gpusift.sources import Source

if TYPE_CHECKING:
    from gpusift.features import Features
    from gpusift.images import Decoded
    from gpusift.sift import SIFT

BATCH_ON_GPU = 16  # images; the CPU takes one at a time
POLL_SECONDS = 0.1  # between two looks at whether to stop
READERS_FOR_CPU = 2  # threads: the CPU has more to do with computing


@dataclass(frozen=True)
class Done:
    """An image's features on the host, in pixels of the file's picture; its (rows, cols); what its decoder printed."""

    source: Source
    features: Features
    shape: tuple[int, int]
    messages: list[str]
    read_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Failed:
    """An image without features, and why."""

    source: Source
    reason: str
    read_seconds: float = 0.0


class Take(Protocol):
    """Gives a worker its sources."""

    def __call__(self, wait: bool = True) -> Source | None:
        """Return the next one or, at the end or after a stop, None; `queue.Empty` if it is not to be waited for."""


Give = Callable[["Done | Failed"], None]  # takes the result of a source; may wait
# Takes sources and gives a result for each, until there is no more; once the event is set, for what it computes then.
Worker = Callable[[Take, Give, threading.Event], None]


def worker_here(
    make_sift: Callable[[], SIFT] | SIFT,
    *,
    decoding: Decoding,
    batch_size: int | None = None,
    n_decoders: int | None = None,
    listener: Listener | None = None,
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
        Hears what decoders print.
    """

    def work(take: Take, give: Give, halt: threading.Event) -> None:
        sift = make_sift() if callable(make_sift) else make_sift
        on_cpu = sift.device.name == "cpu"
        size = batch_size or (1 if on_cpu else BATCH_ON_GPU)
        n_readers = n_decoders or (READERS_FOR_CPU if on_cpu else len(os.sched_getaffinity(0)))
        reader = Reader(decoding, n_readers, listener)
        pictures: Queue[_Picture | Failed | None] = Queue(max(size, 2))
        for _ in range(n_readers):
            threading.Thread(target=_read_all, args=(reader, take, pictures, halt), daemon=True).start()
        try:
            for batch in _batches(pictures, size, n_readers, give, halt):
                for result in _compute(sift, batch):
                    give(result)
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


def _read_all(reader: Reader, take: Take, pictures: Queue[_Picture | Failed | None], halt: threading.Event) -> None:
    """Read what there is to take, with None at the end."""
    while (source := take()) is not None:
        begun = time.perf_counter()
        item: _Picture | Failed
        try:
            decoded, messages = reader.read(source)
        except Exception as error:  # whatever is wrong with one image, the others go on
            item = Failed(source, reason_of(error), time.perf_counter() - begun)
        else:
            item = _Picture(source, decoded, messages, time.perf_counter() - begun)
        if not put(pictures, item, halt):
            return
    put(pictures, None, halt)


def _batches(
    pictures: Queue[_Picture | Failed | None], size: int, n_readers: int, give: Give, halt: threading.Event
) -> Iterator[list[_Picture]]:
    """Take what the readers have ready, up to `size` pictures at once, until all of them have ended."""
    batch: list[_Picture] = []
    while n_readers and not halt.is_set():
        try:
            item = pictures.get(not batch, POLL_SECONDS)
        except Empty:
            if batch:
                yield batch
            batch = []
            continue
        if item is None:
            n_readers -= 1
        elif isinstance(item, Failed):
            give(item)
        else:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    if batch and not halt.is_set():
        yield batch


def put(queue: Queue, item: Any, halt: threading.Event) -> bool:
    """Put something into a queue; False if a stop came first."""
    while not halt.is_set():
        try:
            queue.put(item, timeout=POLL_SECONDS)
            return True
        except Full:
            continue
    return False


def _compute(sift: SIFT, batch: list[_Picture]) -> Iterator[Done | Failed]:
    """Compute a batch; one that fails, by one of its images or for want of memory, in halves."""
    begun = time.perf_counter()
    try:
        several = [features.to_host() for features in sift.compute_batch([p.decoded.image for p in batch])]
    except Exception as error:
        if _is_of_the_device(error):
            raise
        if len(batch) == 1:
            yield Failed(batch[0].source, reason_of(error), batch[0].seconds)
            return
    else:
        seconds = (time.perf_counter() - begun) / len(batch)
        for picture, features in zip(batch, several):
            placed, shape = in_file(features, picture.decoded), picture.decoded.shape
            yield Done(picture.source, placed, shape, picture.messages, picture.seconds, seconds)
        return
    half = len(batch) // 2
    yield from _compute(sift, batch[:half])
    yield from _compute(sift, batch[half:])


def _is_of_the_device(error: Exception) -> bool:
    """Whether the GPU itself fails, and so all that comes next: an error of CUDA's other than memory that runs out."""
    return type(error).__module__.startswith("cupy") and not isinstance(error, MemoryError)


def in_file(features: Features, decoded: Decoded) -> Features:
    """Return features, on the host, of a picture that was made smaller, in pixels of the file's picture."""
    if decoded.image.shape == decoded.shape:
        return features
    ratio = np.divide(decoded.shape, decoded.image.shape)
    kind = features.positions.dtype
    return replace(
        features,
        positions=((features.positions + 0.5) * ratio - 0.5).astype(kind),
        sigmas=(features.sigmas * np.sqrt(ratio.prod())).astype(kind),
    )
