"""The tasks that `gpusift.distributed` sends to a Dask cluster: what a worker computes, and how a task ends."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift import processors
from gpusift.errors import reason_of
from gpusift.features import ARRAYS, Features
from gpusift.images.reader import NVIMGCODEC
from gpusift.stream.worker import Done, Failed, worker_here

if TYPE_CHECKING:
    from distributed import Client

    from gpusift.images.nvimgcodec import JpegDecoder
    from gpusift.images.reader import Decoding
    from gpusift.sift import SIFT
    from gpusift.sinks.base import FileWriter
    from gpusift.sources import Source

WORKERLESS_SECONDS = 60.0  # between two looks at whether the cluster has workers
READY_SECONDS = 0.02  # between two looks at whether a task is done

_log = logging.getLogger("gpusift")


class WorkerError(RuntimeError):
    """An error of the cluster or of a worker, not of an image: other tasks would fail too."""


def compute_task(
    batch: list[Source],
    *,
    parameters: tuple[tuple[str, Any], ...],
    decoding: Decoding,
    n_decoders: int | None = None,
    file_writer: FileWriter | None = None,
) -> list[Done | Failed]:
    """Read, decode and compute some images: one task, on a worker.

    Parameters
    ----------
    batch : list of Source
        The images.
    parameters : tuple of (str, value)
        Keyword arguments of `SIFT`.
    decoding : Decoding
        How images are decoded.
    n_decoders : int, optional
        Threads that fetch and decode.
    file_writer : FileWriter, optional
        Writes the rows; the features returned are then empty, but of the right number.

    Returns
    -------
    list of Done or Failed
        One for each image, in any order.

    Raises
    ------
    WorkerError
        This worker cannot make the `SIFT`, or the decoder, or write the file.
    """
    try:
        sift = _sift(parameters)
        jpeg_decoder = _jpeg_decoder(parameters, n_decoders) if decoding.decoder == NVIMGCODEC else None
    except Exception as error:
        raise WorkerError(f"a worker cannot compute: {error}") from error
    results: list[Done | Failed] = []
    sources = iter(batch)

    def take(wait: bool = True) -> Source | None:
        return next(sources, None)

    try:
        work = worker_here(sift, decoding=decoding, n_decoders=n_decoders, jpeg_decoder=jpeg_decoder)
        work(take, results.append, threading.Event())
    except Exception as error:  # of the device: errors of images are results
        _end_worker(error)
        raise WorkerError(f"a worker's device failed: {error}") from error
    if file_writer is None:
        return results
    rows = {r.source.name: (r.source.name, r.features, r.shape) for r in results if isinstance(r, Done)}
    try:
        if rows:
            file_writer([rows[source.name] for source in batch if source.name in rows], key_of(batch))
    except OSError as error:
        raise WorkerError(f"a worker cannot write a file: {reason_of(error)}") from error
    return [replace(r, features=_of_number(len(r.features))) if isinstance(r, Done) else r for r in results]


def key_of(batch: list[Source]) -> str:
    """Return the key of a task's file: the same if the task runs again."""
    return sha256("\0".join(source.name for source in batch).encode(errors="surrogatepass")).hexdigest()[:32]


@cache
def _sift(parameters: tuple[tuple[str, Any], ...]) -> SIFT:
    from gpusift.sift import SIFT

    return SIFT(**dict(parameters))


@cache
def _jpeg_decoder(parameters: tuple[tuple[str, Any], ...], n_decoders: int | None) -> JpegDecoder:
    from gpusift.images.nvimgcodec import JpegDecoder

    return JpegDecoder(_sift(parameters).device, n_decoders or processors.available())


def _of_number(n: int) -> Features:
    """Return this many features without values."""
    nothing: dict[str, Any] = {name: np.empty((n, 0), np.float32) for name in ARRAYS}
    return Features(**nothing)


def _end_worker(error: Exception) -> None:
    """End this worker process if Dask starts it again: after an error of its GPU a process cannot use it any more."""
    from distributed import get_worker

    if get_worker().nanny:
        logging.getLogger("distributed.worker").error("gpusift ends this worker: its device failed: %s", error)
        os._exit(1)


class Tasks:
    """Tasks that were sent to a cluster and whose results are not here yet.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    task : callable
        What a worker does with a batch; see `compute_task`.
    halt : threading.Event
        Once set, tasks are not waited for if the cluster has no worker.
    """

    def __init__(
        self, client: Client, task: Callable[[list[Source]], list[Done | Failed]], halt: threading.Event
    ) -> None:
        from distributed import as_completed

        self._client, self._task, self._halt = client, task, halt
        self._completed = as_completed(with_results=True, raise_errors=False, loop=client.loop)
        self._sent: dict[str, tuple[Any, list[Source], bool]] = {}  # future, batch, alone
        self._keys = (f"gpusift-{uuid.uuid4().hex}-{number}" for number in count())

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, batch: list[Source], *, alone: bool = False) -> None:
        """Send a task; `alone` says that no other is sent until its result is here."""
        future = self._client.submit(self._task, batch, key=next(self._keys))
        self._sent[future.key] = future, batch, alone
        self._completed.add(future)

    def next(self) -> tuple[list[Source], list[Done | Failed] | None]:
        """Wait for a task's end.

        The event that reports the task's end decides its outcome: a moment later, the scheduler may have lost
        the worker that held the result, and run the task again.

        Returns
        -------
        batch : list of Source
            The images of the task.
        results : list of Done or Failed, or None
            One for each image; None if the task failed, unless it was one image, sent alone: one of the images may be
            at fault, or another task on the same worker.

        Raises
        ------
        WorkerError
            The worker, the scheduler or the output failed, and no image is at fault.
        """
        warn_at = time.monotonic() + WORKERLESS_SECONDS
        while not self._completed.has_ready():
            time.sleep(READY_SECONDS)
            if self._halt.is_set() and not self._client.nthreads():
                self.cancel()
                return [], []
            if time.monotonic() > warn_at:
                warn_at += WORKERLESS_SECONDS
                if not self._client.nthreads():
                    _log.warning("the cluster has no worker left; the run waits until one joins")
        future, result = next(self._completed)
        _, batch, alone = self._sent.pop(future.key)
        if isinstance(result, list):
            return batch, result
        error = result[1] if isinstance(result, tuple) else result
        if isinstance(error, WorkerError):
            raise error
        if isinstance(error, CancelledError):
            raise WorkerError(f"the Dask scheduler was lost, or dropped a task: {error}") from error
        if alone and len(batch) == 1:
            return batch, [Failed(batch[0], _reason(error))]
        _log.warning("a task of %d images failed; they are tried one by one: %s", len(batch), reason_of(error))
        return batch, None

    def cancel(self) -> None:
        """Cancel all tasks."""
        self._client.cancel([future for future, _, _ in self._sent.values()])
        self._sent.clear()


def _reason(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            f"must not end the process that computes it, but {error.allowed_failures + 1} workers died with it "
            "(out of memory, or a crash of a decoder)"
        )
    return reason_of(error)
