"""Features of any number of images: reading, computing and writing overlap.

    sources -> feeder -> readers -> workers, one a device -> the calling thread, which writes -> sink

Between these are queues of fixed length, so that memory does not grow with the number of images. Results come in any
order, one for each image. After a stop, workers finish what they are computing; images that are being read are dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from queue import Empty, Queue
from typing import Any

from gpusift.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_SCANS
from gpusift.images.reader import NVIMGCODEC, OPENCV, Decoding
from gpusift.images.stderr import Listener
from gpusift.sift import SIFT
from gpusift.sinks import Sink
from gpusift.sources import Source, SourceFailure
from gpusift.stream import processes
from gpusift.stream.job import Given, Job, Output, settings_of
from gpusift.stream.summary import Event, RunError, Summary
from gpusift.stream.worker import POLL_SECONDS, Done, Failed, Worker, enqueue, worker_here
from gpusift.stream.writer import Writer

__all__ = ["Event", "RunError", "Summary", "extract", "run", "settings_of"]

COMMIT_SECONDS = 1.0  # longest time until a written result is durable
QUEUE_LENGTH = 8  # for each worker


def extract(
    sources: Given,
    output: Output,
    sift: SIFT | Mapping[str, Any] | None = None,
    *,
    devices: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    n_decoders: int | None = None,
    exif_orientation: bool | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_size: int | None = None,
    decoder: str = OPENCV,
    max_scans: int = DEFAULT_MAX_SCANS,
    allow_formats: Collection[str] = (),
    format_settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    capture_stderr: bool = False,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Write the features of images to a file, folder or database, and resume what an earlier call began.

    Parameters
    ----------
    sources : path, or iterable of paths or of Source and SourceFailure
        The images: files, folders, globs and URLs, which `gpusift.sources.expand` expands; or what it gives. Those that
        the output has, or that failed before, are skipped.
    output : path
        Where the features go; see `gpusift.sinks` for the formats.
    sift : SIFT or mapping, optional
        What computes; or keyword arguments of `SIFT`. Parameters that are not given in a mapping have the defaults that
        the output's format has for them, or those of `SIFT`.
    devices : str or sequence of str, optional
        Compute on several devices, with a process each: "all", "0,1", "cpu,cpu", or a list of names. `sift` must be a
        mapping then. The calling program must be importable, as for `multiprocessing` with "spawn".
    batch_size : int, optional
        Images computed at once, by default 16 on a GPU and 1 on the CPU; halved where memory does not suffice.
    n_decoders : int, optional
        Threads that fetch and decode, for each device; by default one for each processor on a GPU, and 2 on the CPU.
    exif_orientation : bool, optional
        Turn images as EXIF says; by default as the output's readers do: not in a COLMAP database.
    max_pixels, max_size : int, optional
        See `gpusift.images.decode`. Features of an image that is made smaller are in pixels of the file's picture.
        `max_size` is 3200 by default for a COLMAP database, as in COLMAP.
    decoder : str, optional
        "nvimgcodec" decodes plain JPEG files by NVIDIA's nvImageCodec (`pip install "gpusift[nvimgcodec]"`) where SIFT
        computes: on a GPU, without a copy through the host.
    max_scans, allow_formats : optional
        See `gpusift.images.decode`.
    format_settings : mapping, optional
        Settings of the output's format: for COLMAP `camera_model`, `camera_params`, `single_camera`, `camera_per` and
        `mask_path`, see `gpusift.colmap.write_database`.
    overwrite : bool, optional
        Replace the output's results, instead of resuming.
    retry_failed : bool, optional
        Try images again that failed before.
    capture_stderr : bool, optional
        Take what decoders print on the process's stderr into events and reasons; for programs that own their process.
    on_event : callable, optional
        Called by the calling thread with {"event": "start", "version", "output", "device", "settings"}, {"event":
        "image", "name", "keypoints", "rows", "cols"}, {"event": "failed", "name", "url", "reason"}, {"event":
        "warning", "name", "url", "message"} (a decoder's) and, every second, {"event": "progress"} with the attributes
        of `Summary`.
    stop : threading.Event, optional
        When set, the images that are being computed are finished and written, and the call returns. So it does on
        KeyboardInterrupt, which it then raises.

    Returns
    -------
    summary : Summary
        What was done. Results are committed at least every second.

    Raises
    ------
    RunError
        The sources, the device or the output failed as a whole, after the output was opened.
    ImportError, OSError, ValueError
        As `gpusift.sinks.open_sink`, `gpusift.SIFT` and `gpusift.sources.expand`, before anything is written.

    Examples
    --------
    >>> from gpusift.stream import extract
    >>> extract("photographs", "features.h5", {"max_keypoints": 4000}).images  # doctest: +SKIP
    120
    """
    job = Job.plan(
        output,
        sift,
        exif_orientation=exif_orientation,
        max_pixels=max_pixels,
        max_size=max_size,
        decoder=decoder,
        max_scans=max_scans,
        allow_formats=allow_formats,
        format_settings=format_settings,
    )
    reading: dict[str, Any] = {"decoding": job.decoding, "batch_size": batch_size, "n_decoders": n_decoders}
    with ExitStack() as stack:
        if devices is None:
            engine = sift if isinstance(sift, SIFT) else SIFT(**job.arguments)
            names = [engine.device.name]
            _require_decoder(job.decoding, names)
            listener = stack.enter_context(Listener()) if capture_stderr else None
            workers = [worker_here(engine, listener=listener, **reading)]
        else:
            if isinstance(sift, SIFT):
                raise TypeError("sift must be keyword arguments of SIFT with devices, got a SIFT, which has a device")
            SIFT(**{**job.arguments, "device": "cpu"})  # the other parameters must be valid
            names = processes.device_names(devices) if isinstance(devices, str) else list(devices)
            _require_decoder(job.decoding, names)
            workers = processes.workers(names, job.arguments, listen=capture_stderr, **reading)
        rest: dict[str, Any] = {
            "overwrite": overwrite,
            "retry_failed": retry_failed,
            "on_event": on_event,
            "stop": stop,
        }
        return job.carry_out(run, sources, lambda sink: workers, device=names[0], shown=", ".join(names), **rest)


def run(
    sources: Iterable[Source | SourceFailure],
    sink: Sink,
    workers: Sequence[Worker],
    *,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Write the features of images to an open sink, computed by workers: the engine of `extract`.

    Parameters
    ----------
    sources : iterable of Source or SourceFailure
        The images, with different names; a thread of its own takes them. Those that the sink has, or its failures, are
        skipped.
    sink : Sink
        Written to by the calling thread; committed at least every second and at the end, not closed.
    workers : sequence of Worker
        Each is called in a thread of its own.
    on_event, stop : optional
        As for `extract`.

    Raises
    ------
    RunError
        As `extract`.
    """
    stop, halt = stop or threading.Event(), threading.Event()
    if stop.is_set():
        halt.set()
    tasks: Queue[Source | None] = Queue(QUEUE_LENGTH * len(workers))
    results: Queue[Done | Failed | _End] = Queue(QUEUE_LENGTH * len(workers))
    writer = Writer(sink, on_event or (lambda event: None))

    # Not waited for: the feeder may be waiting for a line of stdin, and all others have ended when their _End is here.
    _start(partial(_feed, sources, sink, writer.summary, tasks, results, halt))
    for worker in workers:
        _start(partial(_serve, worker, tasks, results, halt))

    try:
        end = _write_all(results, writer, len(workers), stop, halt)
    finally:
        halt.set()
    if end and isinstance(end.error, KeyboardInterrupt):
        raise end.error
    if end and end.error:
        raise RunError(end.stage, writer.summary, end.error) from end.error
    return writer.summary


@dataclass(frozen=True)
class _End:
    """The end of a worker; or, with the error of a stage, that of the run."""

    stage: str
    error: BaseException | None


def _write_all(
    results: Queue[Done | Failed | _End], writer: Writer, n_running: int, stop: threading.Event, halt: threading.Event
) -> _End | None:
    """Write results until all workers have ended; return what ended the run early."""
    end, is_writable = None, True
    while n_running:
        try:
            item = _get(results)
            if isinstance(item, _End):
                n_running -= item.stage == "compute"
                end = end or (item if item.error else None)
            elif item is not None and is_writable:
                writer.write(item)
            if is_writable:
                writer.commit(every=COMMIT_SECONDS if n_running else 0)
        except KeyboardInterrupt as interrupt:
            end = _End("compute", interrupt)
        except Exception as error:
            is_writable = False
            end = end or _End("write", error)
        if end or stop.is_set():
            halt.set()
    return end


def _start(target: Callable[[], None]) -> None:
    threading.Thread(target=target, daemon=True).start()


def _feed(
    sources: Iterable[Source | SourceFailure],
    sink: Sink,
    summary: Summary,
    tasks: Queue[Source | None],
    results: Queue[Done | Failed | _End],
    halt: threading.Event,
) -> None:
    """Queue the sources that are to be computed, with None at the end."""
    try:
        for source in sources:
            if isinstance(source, SourceFailure):
                enqueue(results, Failed(Source(source.name, source.name), source.reason), halt)
            elif source.name in sink:
                summary.skipped += 1
            elif source.name in sink.failures:
                summary.failed_before += 1
            elif not enqueue(tasks, source, halt):
                return
    except Exception as error:
        enqueue(results, _End("sources", error), halt)
    enqueue(tasks, None, halt)


def _serve(
    worker: Worker, tasks: Queue[Source | None], results: Queue[Done | Failed | _End], halt: threading.Event
) -> None:
    """Have a worker compute until there are no more sources, or a stop comes."""

    def take(wait: bool = True) -> Source | None:
        while not halt.is_set():
            try:
                source = tasks.get(wait, POLL_SECONDS)
            except Empty:
                if not wait:
                    raise
                continue
            if source is None:
                tasks.put(None)  # for the next call
            return source
        return None

    error = None
    try:
        worker(take, results.put, halt)
    except BaseException as raised:  # the calling thread raises errors of any kind
        error = raised
    results.put(_End("compute", error))


def _get(queue: Queue) -> Any:
    """Take an item from a queue; None if none comes for a moment."""
    try:
        return queue.get(timeout=POLL_SECONDS)
    except Empty:
        return None


def _require_decoder(decoding: Decoding, devices: Sequence[str]) -> None:
    """Raise unless the decoder is installed, and gives the same pixels on all devices."""
    if decoding.decoder == NVIMGCODEC:
        from gpusift.images.nvimgcodec import pixels_of, require

        require()
        pixels_of(devices)
