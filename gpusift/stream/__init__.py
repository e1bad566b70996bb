"""Features of any number of images: reading, computing and writing go on at the same time.

    sources -> feeder -> readers -> workers, one a device -> the calling thread, which writes -> sink

Between these are queues of fixed length, so that memory does not grow with the number of images. Results come in any
order, one for each image. After a stop nobody waits for another one but for the workers, which finish what they are
computing; what is being read then is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from gpusift.errors import reason_of
from gpusift.images import DEFAULT_MAX_PIXELS
from gpusift.images.reader import NVIMGCODEC, OPENCV, Decoding
from gpusift.images.stderr import Listener
from gpusift.parameters import Parameters
from gpusift.sources import Source, SourceFailure
from gpusift.stream.worker import POLL_SECONDS, Done, Failed, Worker, enqueue, worker_here

if TYPE_CHECKING:
    from gpusift.sift import SIFT
    from gpusift.sinks import Failures, Sink

COMMIT_SECONDS = 1.0  # at most so long until a result that was written is safe
QUEUE_LENGTH = 8  # for each worker

COUNTS = ("images", "keypoints", "failures", "failed_before", "skipped")

Event = dict[str, Any]


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    images, keypoints : int
        That it wrote.
    failures : int
        Images that failed.
    failed_before : int
        Images that failed in an earlier run, and were not tried again.
    skipped : int
        Images whose results were there already.
    seconds : dict
        Spent in "read", "compute" and "write", each summed over its threads and devices; "total": that passed.
    """

    images: int = 0
    keypoints: int = 0
    failures: int = 0
    failed_before: int = 0
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "compute", "write", "total"), 0.0))

    @property
    def seen(self) -> int:
        """Images that were dealt with, in this run or before."""
        return self.images + self.failures + self.failed_before + self.skipped

    def as_event(self) -> Event:
        """Return the event that tells how far a run is."""
        seconds = {part: round(value, 3) for part, value in self.seconds.items()}
        return {"event": "progress", **{name: getattr(self, name) for name in COUNTS}, "seconds": seconds}


def settings_of(
    parameters: Mapping[str, Any],
    *,
    exif_orientation: bool = True,
    max_size: int | None = None,
    decoder: str = OPENCV,
) -> dict[str, Any]:
    """Return what decides the results of a run, for its sink.

    Parameters
    ----------
    parameters : mapping
        Keyword arguments of `SIFT`; those that are not given have their defaults. The device and the number of threads
        do not count; but with the decoder "nvimgcodec", whether the device is a GPU or the CPU does.
    exif_orientation, max_size, decoder : optional
        As for `extract`.
    """
    chosen = {each.name: parameters.get(each.name, each.default) for each in fields(Parameters)}
    blur = parameters.get("blur", "auto")
    chosen |= {"dtype": str(parameters.get("dtype", "float32")), "blur": "kernel" if blur == "auto" else blur}
    if decoder == NVIMGCODEC:
        from gpusift.images.nvimgcodec import pixels_of

        decoder = pixels_of([str(parameters.get("device", "auto"))])
    return {**chosen, "exif_orientation": exif_orientation, "max_size": max_size, "decoder": decoder}


class RunError(RuntimeError):
    """A run that had to end early; what it had done is committed, if the sink still could.

    Attributes
    ----------
    stage : str
        Where the error, which is the `__cause__`, came from: "sources", "compute" or "write".
    summary : Summary
        What was done.
    """

    def __init__(self, stage: str, summary: Summary, error: BaseException) -> None:
        super().__init__(f"{stage}: {error}")
        self.stage, self.summary = stage, summary


def extract(
    sources: Iterable[Source | SourceFailure],
    sink: Sink,
    failures: Failures,
    make_sift: Callable[[], SIFT] | SIFT,
    *,
    batch_size: int | None = None,
    n_decoders: int | None = None,
    exif_orientation: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_size: int | None = None,
    decoder: str = OPENCV,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
    listener: Listener | None = None,
) -> Summary:
    """Write the features of images to a sink, computed on one device.

    Parameters
    ----------
    sources : iterable of Source or SourceFailure
        The images, with different names; a thread of its own takes them. Those that the sink or the failures have are
        skipped.
    sink : Sink
        Written to by the calling thread; committed at least every second and at the end, not closed.
    failures : Failures
        Gets the images that fail.
    make_sift : SIFT or callable
        What computes; a callable is called by the thread that computes.
    batch_size : int, optional
        Images computed at once, by default 16 on a GPU and 1 on the CPU; halved where memory does not suffice.
    n_decoders : int, optional
        Threads that fetch and decode; by default one for each processor on a GPU, and 2 on the CPU.
    exif_orientation, max_pixels, max_size : optional
        See `gpusift.images.decode`. Features of an image that is made smaller are in pixels of the file's picture.
    decoder : str, optional
        "nvimgcodec" decodes plain JPEG files by NVIDIA's nvImageCodec (`pip install "gpusift[nvimgcodec]"`) where SIFT
        computes: on a GPU, without a copy through the host. Give it to `settings_of`, too.
    on_event, stop : optional
        As for `run`.
    listener : Listener, optional
        Hears what decoders print, which then comes in events and reasons.

    Returns
    -------
    summary : Summary
        What was done.

    Raises
    ------
    RunError
        The sources, the device or the sink failed as a whole.
    ImportError
        The decoder is not installed.
    ValueError
        There is no such decoder.
    """
    decoding = Decoding(exif_orientation, max_pixels, max_size, decoder)
    if decoder == NVIMGCODEC:
        from gpusift.images.nvimgcodec import require

        require()
    worker = worker_here(
        make_sift,
        decoding=decoding,
        batch_size=batch_size,
        n_decoders=n_decoders,
        listener=listener,
    )
    return run(sources, sink, failures, [worker], on_event=on_event, stop=stop)


def run(
    sources: Iterable[Source | SourceFailure],
    sink: Sink,
    failures: Failures,
    workers: Sequence[Worker],
    *,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Write the features of images to a sink, computed by workers.

    Parameters
    ----------
    sources, sink, failures
        As for `extract`.
    workers : sequence of Worker
        Each is called in a thread of its own.
    on_event : callable, optional
        Called by the calling thread with {"event": "image", "name", "keypoints", "rows", "cols"}, {"event": "failed",
        "name", "url", "reason"}, {"event": "warning", "name", "url", "message"} (a decoder's) and, every second,
        {"event": "progress"} with what `Summary` has.
    stop : threading.Event, optional
        When set, what is in hand is finished and written, and the run returns. So it does on KeyboardInterrupt, and
        raises it then.

    Raises
    ------
    RunError
        As `extract`.
    """
    stop, halt = stop or threading.Event(), threading.Event()
    tasks: Queue[Source | None] = Queue(QUEUE_LENGTH * len(workers))
    results: Queue[Done | Failed | _End] = Queue(QUEUE_LENGTH * len(workers))
    writer = _Writer(sink, failures, on_event or (lambda event: None))

    def take(wait: bool = True) -> Source | None:
        while not halt.is_set():
            try:
                source = tasks.get(wait, POLL_SECONDS)
            except Empty:
                if not wait:
                    raise
                continue
            if source is None:
                tasks.put(None)  # for the next who asks
            return source
        return None

    def feed() -> None:
        try:
            for source in sources:
                if isinstance(source, SourceFailure):
                    enqueue(results, Failed(Source(source.name, source.name), source.reason), halt)
                elif source.name in sink.committed:
                    writer.summary.skipped += 1
                elif source.name in failures:
                    writer.summary.failed_before += 1
                elif not enqueue(tasks, source, halt):
                    return
        except Exception as error:
            enqueue(results, _End("sources", error), halt)
        enqueue(tasks, None, halt)

    def serve(worker: Worker) -> None:
        error = None
        try:
            worker(take, results.put, halt)
        except BaseException as raised:  # whatever it is, the calling thread must hear of it
            error = raised
        results.put(_End("compute", error))

    # Not waited for: the feeder may be waiting for a line of stdin, and all others have ended when their _End is here.
    targets: list[Callable[[], None]] = [feed, *(lambda worker=worker: serve(worker) for worker in workers)]
    for target in targets:
        threading.Thread(target=target, daemon=True).start()

    at_work, end = len(workers), None
    while at_work:
        try:
            item = _get(results)
            if isinstance(item, _End):
                at_work -= item.stage == "compute"
                end = end or (item if item.error else None)
            elif item is not None and writer.error is None:
                writer.write(item)
            if writer.error is None:
                writer.commit(last=not at_work)
        except KeyboardInterrupt as interrupt:
            end = _End("compute", interrupt)
        except Exception as error:
            writer.error = error
            end = end or _End("write", error)
        if end or stop.is_set():
            halt.set()
    if end and isinstance(end.error, KeyboardInterrupt):
        raise end.error
    if end and end.error:
        raise RunError(end.stage, writer.summary, end.error) from end.error
    return writer.summary


@dataclass(frozen=True)
class _End:
    """That of a worker or, with the error of a part, that of the run."""

    stage: str
    error: BaseException | None


class _Writer:
    """The calling thread's part: results to the sink, and counts."""

    def __init__(self, sink: Sink, failures: Failures, tell: Callable[[Event], None]) -> None:
        self._sink, self._failures, self._tell = sink, failures, tell
        self.summary = Summary()
        self.error: Exception | None = None
        self._begun = self._committed = time.perf_counter()
        self._unsafe = False

    def write(self, item: Done | Failed) -> None:
        """Write, count and tell the result of an image."""
        summary, source = self.summary, item.source
        summary.seconds["read"] += item.read_seconds
        if isinstance(item, Done):
            summary.seconds["compute"] += item.compute_seconds
            begun = time.perf_counter()
            try:
                self._sink.write(source.name, item.features, item.shape)
            except ValueError as error:  # the sink cannot hold this image
                item = Failed(source, reason_of(error))
            else:
                self._unsafe = True
                self._tell_image(item)
            summary.seconds["write"] += time.perf_counter() - begun
        if isinstance(item, Failed):
            summary.failures += 1
            if source.name not in self._failures:
                self._failures.add(source.name, source.url, item.reason)
            self._tell({"event": "failed", "name": source.name, "url": source.url, "reason": item.reason})

    def _tell_image(self, item: Done) -> None:
        name, (rows, cols), keypoints = item.source.name, item.shape, len(item.features)
        self.summary.images += 1
        self.summary.keypoints += keypoints
        for message in item.messages:
            self._tell({"event": "warning", "name": name, "url": item.source.url, "message": message})
        self._tell({"event": "image", "name": name, "keypoints": keypoints, "rows": rows, "cols": cols})

    def commit(self, last: bool) -> None:
        """Make safe what was written, and tell how far the run is, if it is time for that."""
        begun = time.perf_counter()
        if begun - self._committed < COMMIT_SECONDS and not last:
            return
        if self._unsafe:
            self._sink.commit()
            self._unsafe = False
        self._committed = time.perf_counter()
        self.summary.seconds["write"] += self._committed - begun
        self.summary.seconds["total"] = self._committed - self._begun
        self._tell(self.summary.as_event())


def _get(queue: Queue) -> Any:
    """Take from a queue; None if nothing comes for a moment."""
    try:
        return queue.get(timeout=POLL_SECONDS)
    except Empty:
        return None
