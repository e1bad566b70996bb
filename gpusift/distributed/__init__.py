"""Features of any number of images on many machines, by Dask: `pip install "gpusift[dask]"`.

    with Client("tcp://scheduler:8786", direct_to_workers=True) as client:  # of dask.distributed
        extract(["s3://bucket/photographs"], client, "features.h5")

A task is some images: a worker reads, decodes and computes them where it is, with one SIFT that it keeps. The results
go to the calling process, which alone writes; or, if the output is the URL of an object store, the task itself writes a
Parquet file there, and only counts come back. Workers may join and leave: another worker computes the tasks of a lost
one. If a task fails, or ends its worker several times, its images are computed again, one by one and with no other task
of the run at the same time. So only the image that causes the failure is recorded as failed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from gpusift import stream
from gpusift.distributed.tasks import Tasks, WorkerError, compute_task, key_of
from gpusift.errors import reason_of
from gpusift.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_SCANS
from gpusift.images.reader import NVIMGCODEC, OPENCV, Decoding
from gpusift.sift import SIFT
from gpusift.sources import Source
from gpusift.stream.job import Job
from gpusift.stream.worker import POLL_SECONDS, Done, Failed

if TYPE_CHECKING:
    from distributed import Client

    from gpusift.sinks import Sink
    from gpusift.sinks.base import FileWriter
    from gpusift.stream import Event, Summary
    from gpusift.stream.job import Given, Output
    from gpusift.stream.worker import Give, Take, Worker

BATCH = 16  # images of a task
ACCEPTED_AT_ONCE = 16  # files of results: object stores take a second for each
TASKS_PER_THREAD = 2  # sent to the cluster: one is computed while the next is on its way
SUSPECTS = 4 * BATCH  # this many images of failed tasks may wait before they are tried one by one
JOIN_SECONDS = 60  # for the first worker


def extract(
    sources: Given,
    client: Client,
    output: Output,
    parameters: Mapping[str, Any] | None = None,
    *,
    batch_size: int = BATCH,
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
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Write the features of images, computed by the workers of a Dask cluster.

    Parameters
    ----------
    sources : path, or iterable of paths or of Source and SourceFailure
        As for `gpusift.stream.extract`. Workers open the images themselves: a local path must exist on every machine.
    client : distributed.Client
        The cluster. With ``direct_to_workers=True`` results do not pass through the scheduler.
    output : path or URL
        As for `gpusift.stream.extract`; or a URL (`gpusift.sinks.parquet_url`): then each task writes a file itself.
    parameters : mapping, optional
        Keyword arguments of `SIFT`, as for `gpusift.stream.extract`.
    batch_size : int, optional
        Images of a task.
    n_decoders, exif_orientation, max_pixels, max_size, decoder, max_scans, allow_formats, format_settings : optional
        As for `gpusift.stream.extract`, on each worker. With the decoder "nvimgcodec", `parameters` must say whether
        the device is "cuda" or "cpu".
    overwrite, retry_failed, on_event, stop : optional
        As for `gpusift.stream.extract`. After a stop, the tasks that were sent are finished.

    Returns
    -------
    summary : Summary
        What was done.

    Raises
    ------
    RunError
        The sources, the cluster or the output failed as a whole; its `__cause__` says how.
    ImportError, OSError, ValueError
        As `gpusift.stream.extract`; or the decoder needs a device to be named.
    """
    job = Job.plan(
        output,
        parameters,
        exif_orientation=exif_orientation,
        max_pixels=max_pixels,
        max_size=max_size,
        decoder=decoder,
        max_scans=max_scans,
        allow_formats=allow_formats,
        format_settings=format_settings,
    )
    require_device(job.arguments, decoder)
    SIFT(**{**job.arguments, "device": "cpu"})  # the other parameters must be valid

    def workers(sink: Sink) -> list[Worker]:
        options: dict[str, Any] = {"decoding": job.decoding, "batch_size": batch_size, "n_decoders": n_decoders}
        return [worker_on(client, job.arguments, file_writer=sink.file_writer, **options)]

    address = f"Dask at {client.scheduler.address}" if client.scheduler else "Dask"
    rest: dict[str, Any] = {"overwrite": overwrite, "retry_failed": retry_failed, "on_event": on_event, "stop": stop}
    device = str(job.arguments.get("device", "auto"))
    return job.carry_out(stream.run, sources, workers, device=device, shown=address, by_tasks=True, **rest)


def require_device(parameters: Mapping[str, Any], decoder: str) -> None:
    """Raise if each worker would choose a device for itself, and with it the decoder's pixels.

    Parameters
    ----------
    parameters : mapping
        Keyword arguments of `SIFT`.
    decoder : str
        As for `extract`.

    Raises
    ------
    ValueError
        The decoder is "nvimgcodec" and the device "auto".
    """
    if decoder == NVIMGCODEC and parameters.get("device", "auto") == "auto":
        raise ValueError(
            "with decoder 'nvimgcodec' on a cluster, device must be 'cuda' or 'cpu', got 'auto': pixels that a GPU "
            "decodes differ by rounding, so workers must not choose for themselves"
        )


def worker_on(
    client: Client,
    parameters: Mapping[str, Any],
    *,
    decoding: Decoding,
    batch_size: int = BATCH,
    n_decoders: int | None = None,
    file_writer: FileWriter | None = None,
) -> Worker:
    """Return a worker for `stream.run` that is a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    parameters : mapping
        Keyword arguments of `SIFT`.
    decoding : Decoding
        How images are decoded.
    batch_size : int, optional
        Images of a task.
    n_decoders : int, optional
        Threads that fetch and decode in a task.
    file_writer : FileWriter, optional
        Writes the rows of a task where it ran; features are then not sent back, only how many there are.
    """
    arguments = tuple(sorted(parameters.items()))
    task = partial(
        compute_task, parameters=arguments, decoding=decoding, n_decoders=n_decoders, file_writer=file_writer
    )

    def work(take: Take, give: Give, halt: threading.Event) -> None:
        batches, tasks, suspects = _SourceBatches(take, batch_size), Tasks(client, task, halt), deque[Source]()
        accepting = _Accepting(file_writer, give)
        try:
            _wait_for_a_worker(client, halt)
            while True:
                if halt.is_set():
                    suspects.clear()
                elif suspects and (batches.ended or len(suspects) >= SUSPECTS):
                    if not tasks:
                        tasks.send([suspects.popleft()], alone=True)
                else:
                    limit = TASKS_PER_THREAD * sum(client.nthreads().values())
                    while len(tasks) < max(limit, 1) and (batch := batches.next(wait=not tasks)):
                        tasks.send(batch)
                if tasks:
                    batch, results = tasks.next()
                    if results is None:
                        suspects.extend(batch)
                    else:
                        accepting.add(batch, results)
                elif not suspects:
                    accepting.finish()
                    return
        except BaseException:
            halt.set()  # else the sources would not end
            raise
        finally:
            tasks.cancel()
            accepting.close()
            batches.drain()

    return work


def _wait_for_a_worker(client: Client, halt: threading.Event) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    while not client.nthreads() and not halt.wait(POLL_SECONDS):
        if time.monotonic() > deadline:
            raise WorkerError(
                f"a worker must join the cluster within {JOIN_SECONDS} s, but none did; start one: "
                f"dask worker {client.scheduler.address}"
            )


class _Accepting:
    """Gives the results of tasks. If a task wrote a file, the file is accepted first; several are accepted at once."""

    def __init__(self, file_writer: FileWriter | None, give: Give) -> None:
        self._file_writer, self._give = file_writer, give
        self._threads = ThreadPoolExecutor(ACCEPTED_AT_ONCE)
        self._pending: deque[tuple[Future[None], list[Done | Failed]]] = deque()

    def add(self, batch: list[Source], results: list[Done | Failed]) -> None:
        """Give a task's results, now or when its file is accepted."""
        if self._file_writer is not None and any(isinstance(result, Done) for result in results):
            self._pending.append((self._threads.submit(self._file_writer.accept, key_of(batch)), results))
        else:
            self._give_all(results)
        while self._pending and (self._pending[0][0].done() or len(self._pending) > 2 * ACCEPTED_AT_ONCE):
            self._give_next()

    def finish(self) -> None:
        """Give all results that are left."""
        while self._pending:
            self._give_next()

    def close(self) -> None:
        """Wait for the files that are being accepted."""
        self._threads.shutdown()

    def _give_next(self) -> None:
        accepted, results = self._pending.popleft()
        try:
            accepted.result()
        except OSError as error:
            raise WorkerError(f"a file of results cannot be written: {reason_of(error)}") from error
        self._give_all(results)

    def _give_all(self, results: list[Done | Failed]) -> None:
        for result in results:
            self._give(result)


class _SourceBatches:
    """Takes sources in a thread of its own, so that results do not wait for them, and returns them in batches."""

    def __init__(self, take: Take, size: int) -> None:
        self.ended = False
        self._ready: Queue[list[Source]] = Queue(1)
        self._error: Exception | None = None
        threading.Thread(target=self._fill, args=(take, size), name="batches", daemon=True).start()

    def _fill(self, take: Take, size: int) -> None:
        batch: list[Source] = []
        try:
            while (source := take()) is not None:
                batch.append(source)
                if len(batch) == size:
                    self._ready.put(batch)
                    batch = []
            if batch:
                self._ready.put(batch)
        except Exception as error:  # out of memory, for example: without an end, the other thread would wait forever
            self._error = error
        self._ready.put([])

    def next(self, wait: bool) -> list[Source]:
        """Return the next batch; an empty one at the end, or if none is ready and `wait` is not set."""
        if self.ended:
            return []
        try:
            batch = self._ready.get(block=wait)
        except Empty:
            return []
        self.ended = not batch
        if self.ended and self._error is not None:
            raise self._error
        return batch

    def drain(self) -> None:
        """Drop the sources that are left."""
        while not self.ended:
            self.next(wait=True)


@contextmanager
def connect(address: str, *, device: str = "auto") -> Iterator[Client]:
    """Connect to a Dask cluster, or start one on this machine.

    Parameters
    ----------
    address : str
        A scheduler's address, such as "tcp://scheduler:8786"; or "local:N" for N worker processes on this machine: if
        it has GPUs, and `device` is not "cpu", one for each GPU, by dask-cuda.
    device : str, optional
        The device that SIFT will compute on.

    Yields
    ------
    client : distributed.Client
        Results come to it from the workers directly. A cluster that was started ends with the context.

    Raises
    ------
    ImportError
        Dask, or for local GPUs dask-cuda, is not installed.
    OSError
        Nothing answers at the address.
    ValueError
        The address has neither form.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ImportError('a cluster needs Dask, which is not installed: pip install "gpusift[dask]"') from None

    kind, _, number = address.partition(":")
    if kind == "local" and not (number.isdecimal() and int(number)):
        raise ValueError(f"a local cluster must be local:N with N worker processes, got {address!r}")
    if kind != "local" and "://" not in address:
        raise ValueError(f"a cluster must be a scheduler's address (tcp://host:8786) or local:N, got {address!r}")
    started = _local_cluster(int(number), device) if kind == "local" else nullcontext(address)
    with started as cluster, Client(cluster, direct_to_workers=True) as client:
        yield client


def _local_cluster(n_workers: int, device: str) -> Any:
    from gpusift.devices import cuda_info

    gpus = [] if device == "cpu" else cuda_info().get("devices", [])
    settings = {"threads_per_worker": 2, "dashboard_address": ":0"}
    if not gpus:
        from distributed import LocalCluster

        return LocalCluster(n_workers=n_workers, processes=True, **settings)
    if n_workers > len(gpus):
        raise ValueError(f"local:N must be one worker process a GPU, but there are {len(gpus)} and N is {n_workers}")
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        raise ImportError(
            'GPUs of a local cluster need dask-cuda: pip install "gpusift[dask-cuda13]", or dask-cuda12 for CUDA 12'
        ) from None
    return LocalCUDACluster(CUDA_VISIBLE_DEVICES=[gpu["index"] for gpu in gpus[:n_workers]], **settings)
