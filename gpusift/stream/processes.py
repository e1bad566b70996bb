"""Several devices of one machine, a process for each: workers for `gpusift.stream.run`.

The parent sends each process some images in advance and receives its results, over one pipe. A process may die,
by a crash of a decoder or out of memory. It is then started again, and its unfinished images are sent to it one at a
time. Only an image that is the only one in the process at two of its deaths is recorded as failed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from gpusift import processors
from gpusift.devices import cuda_info
from gpusift.errors import reason_of
from gpusift.images.reader import NVIMGCODEC, Decoding
from gpusift.images.stderr import Listener
from gpusift.stream.batching import BATCH_ON_GPU
from gpusift.stream.worker import (
    READERS_FOR_CPU,
    Done,
    Failed,
    Give,
    Take,
    Worker,
    worker_here,
)

if TYPE_CHECKING:
    from gpusift.sources import Source

# Batches that a process has besides the images that its readers read.
IN_HAND_ON_CPU = 2
IN_HAND_ON_GPU = 5  # those that are computed at once, one that is read meanwhile, one that is written
EXIT_CODE_SECONDS = 1.0  # until an exit code that another thread has collected is known
DEATHS = 2  # deaths of a process with one image, or none, after which the image, or the device, has failed
ANSWER_SECONDS = 0.05  # that the parent waits for an answer before it looks for more images

# Signals that a terminal or a service manager sends to all processes; the parent alone acts on them.
QUIET = (signal.SIGINT, signal.SIGTERM)

_END, _HALT, _READY = "end", "halt", "ready"


def device_names(text: str) -> list[str]:
    """Return the devices that a text such as "0,1", "all", "cpu,cpu" or "cuda:0,cpu" stands for.

    Raises
    ------
    ValueError
        The text names no devices, or a GPU that does not exist.
    """
    count = _gpu_count()
    if text.strip() == "all":
        if not count:
            raise ValueError(f"devices='all' needs a GPU, but there is none: {cuda_info()['error']}")
        return [f"cuda:{index}" for index in range(count)]
    names = []
    for part in (part.strip() for part in text.split(",")):
        name = f"cuda:{part}" if part.isdecimal() else part
        if name != "cpu" and not name.removeprefix("cuda:").isdecimal():
            raise ValueError(f"devices must be 'all' or numbers of GPUs and 'cpu', such as '0,1', got {text!r}")
        if name != "cpu" and int(name.removeprefix("cuda:")) >= count:
            why = cuda_info().get("error") or f"there are {count}, numbered from 0"
            raise ValueError(f"devices must exist, got {part!r}: {why}")
        names.append(name)
    return names


def _gpu_count() -> int:
    """Return the number of GPUs."""
    return len(cuda_info().get("devices", ()))


def workers(
    devices: Sequence[str],
    parameters: dict[str, Any],
    *,
    decoding: Decoding,
    batch_size: int | None = None,
    n_decoders: int | None = None,
    listen: bool = False,
) -> list[Worker]:
    """Return a worker for each device; a device may be named several times.

    Parameters
    ----------
    devices : sequence of str
        As for `SIFT`.
    parameters : dict
        Of `SIFT`, without the device. Processors are shared among the processes, unless `num_threads` is given.
    decoding, batch_size, n_decoders
        As for `gpusift.stream.worker.worker_here`, for each device.
    listen : bool
        Whether to collect what decoders print.

    Raises
    ------
    ImportError
        The decoder is not installed.
    ValueError
        The decoder is "nvimgcodec", and there are GPUs and the CPU.
    """
    if decoding.decoder == NVIMGCODEC:
        from gpusift.images.nvimgcodec import pixels_of, require

        require()
        pixels_of(devices)
    n_processors = processors.available()
    if parameters.get("num_threads") is None and "cpu" in devices:
        parameters = {**parameters, "num_threads": max(processors.threads() // devices.count("cpu"), 1)}
    n_readers = n_decoders or (None if set(devices) == {"cpu"} else max(n_processors // len(devices), 1))
    return [
        DeviceWorker(_Job({**parameters, "device": device}, decoding, batch_size, n_readers, listen))
        for device in devices
    ]


@dataclass(frozen=True)
class _Job:
    """What a process computes, and how."""

    parameters: dict[str, Any]
    decoding: Decoding
    batch_size: int | None
    n_decoders: int | None
    listen: bool


@dataclass
class DeviceWorker:
    """A worker that has a process compute on one device; runs in a thread of the parent.

    Attributes
    ----------
    job : _Job
        What the process computes.
    pids : list of int
        The processes so far; the last one may be running.
    """

    job: _Job
    pids: list[int] = field(default_factory=list)

    @property
    def device(self) -> str:
        """The device's name."""
        return str(self.job.parameters["device"])

    def __call__(self, take: Take, give: Give, halt: threading.Event) -> None:
        """Compute images until there are no more; see `gpusift.stream.worker.Worker`.

        Raises
        ------
        RuntimeError
            The device is not available, or fails; or the process dies before it is ready.
        """
        suspects: deque[Source] = deque()  # unfinished images of processes that died
        deaths: dict[str | None, int] = {}
        over = False

        def give_on(result: Done | Failed) -> None:
            deaths.pop(None, None)  # a process that gives a result has no broken device
            give(result)

        while not over and not halt.is_set():
            in_hand: dict[str, Source] = {}
            process, pipe = self._start()
            try:
                self._await_device(pipe)
                self._serve(pipe, in_hand, suspects, take, give_on, halt)
                over = True
            except (EOFError, OSError):  # of the pipe: the process is dead
                process.join()
                how = _death(process)
                if len(in_hand) < 2:
                    name = next(iter(in_hand), None)
                    deaths[name] = deaths.get(name, 0) + 1
                    if deaths[name] == DEATHS:
                        if name is None:
                            raise RuntimeError(f"device {self.device}: its process dies ({how})") from None
                        give(Failed(in_hand.pop(name), f"the process that computes it dies ({how})"))
                suspects.extend(in_hand.values())
            finally:
                pipe.close()  # which ends the process, if it is running
                process.join()

    def _start(self) -> tuple[Any, Connection]:
        """Start a process; return it and the pipe to it."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_main, args=(theirs, self.job), daemon=True)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)  # inherited until the process ignores them
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        assert process.pid is not None
        self.pids.append(process.pid)
        return process, ours

    def _await_device(self, pipe: Connection) -> None:
        answer = pipe.recv()
        if answer != _READY:
            raise RuntimeError(f"device {self.device}: {answer}")

    def _serve(
        self,
        pipe: Connection,
        in_hand: dict[str, Source],
        suspects: deque[Source],
        take: Take,
        give: Give,
        halt: threading.Event,
    ) -> None:
        """Send images and receive results until all are done."""
        n_batches, size = (IN_HAND_ON_CPU, 1) if self.device == "cpu" else (IN_HAND_ON_GPU, BATCH_ON_GPU)
        limit = n_batches * (self.job.batch_size or size)
        limit += self.job.n_decoders or READERS_FOR_CPU
        no_more = halted = False
        alone: str | None = None  # the only image in the process, which is the cause if the process dies now
        while True:
            if suspects and not in_hand and not halt.is_set():
                alone = suspects[0].name
                self._send(pipe, suspects.popleft(), in_hand)
            while not (suspects or alone in in_hand or no_more or halt.is_set() or pipe.poll()):
                if len(in_hand) == limit:
                    break
                try:
                    source = take(wait=False)
                except Empty:
                    break
                no_more = source is None
                if source is not None:
                    self._send(pipe, source, in_hand)
            if halt.is_set() and not halted:
                pipe.send(_HALT)
                halted = True
            elif no_more and not suspects and not in_hand and not halted:
                pipe.send(_END)
                halted = True
            if not pipe.poll(ANSWER_SECONDS):
                continue
            answer = pipe.recv()
            if answer == _END:
                return
            if isinstance(answer, RuntimeError):
                raise answer
            del in_hand[answer.source.name]
            give(answer)

    @staticmethod
    def _send(pipe: Connection, source: Source, in_hand: dict[str, Source]) -> None:
        in_hand[source.name] = source
        pipe.send(source)


def _death(process: Any) -> str:
    """How a process that has ended did so.

    Another thread that starts a process collects the exit codes of all processes that have ended. Between that thread's
    system call and its next line, `multiprocessing` knows no exit code.
    """
    deadline = time.monotonic() + EXIT_CODE_SECONDS
    while (code := process.exitcode) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    if code is None:  # collected by some other part of the program
        return "for an unknown reason"
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _main(pipe: Connection, job: _Job) -> None:
    """Compute what comes through the pipe, in a process of its own, until the parent ends it or is gone."""
    for number in QUIET:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, QUIET)
    from gpusift.sift import SIFT

    try:
        sift = SIFT(**job.parameters)
    except Exception as error:
        pipe.send(reason_of(error))
        return
    tasks: Queue[Source | None] = Queue()  # the parent limits its length
    halt = threading.Event()

    def receive() -> None:
        message = None
        try:
            while message not in (_HALT, _END):
                message = pipe.recv()
                if message == _HALT:
                    halt.set()
                tasks.put(None if message in (_HALT, _END) else message)
        except BaseException:  # the parent is gone, or this thread is out of memory
            os._exit(1)

    def take(wait: bool = True) -> Source | None:
        source = tasks.get(wait)
        if source is None or halt.is_set():
            tasks.put(None)  # for the next call
            return None
        return source

    lock = threading.Lock()

    def give(result: Done | Failed) -> None:
        with lock:
            pipe.send(result)

    with suppress(BrokenPipeError):
        pipe.send(_READY)
        threading.Thread(target=receive, daemon=True).start()
        with Listener() if job.listen else nullcontext() as listener:
            work = worker_here(
                sift,
                decoding=job.decoding,
                batch_size=job.batch_size,
                n_decoders=job.n_decoders,
                listener=listener,
            )
            try:
                work(take, give, halt)
            except Exception as error:
                pipe.send(RuntimeError(f"device {sift.device.name}: {reason_of(error)}"))
                return
        pipe.send(_END)
