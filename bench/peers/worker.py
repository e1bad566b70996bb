"""One measurement of the peer run, in a process of its own: one engine, photograph, upsampling and batch.

`serve` sends one dict: the measurements, or ``skipped``, the reason why there are none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.common.processes import peak_resident, reset_peak, resident

DEVICE_CALLS = 30
DEVICE_WARM_UP = 2


@dataclass(frozen=True)
class Request:
    """A measurement to make.

    Attributes
    ----------
    engine : str
        A key of `bench.peers.engines.PEERS`.
    image_path : str
        An .npy file: grey, uint8.
    upsampling : int
        1 or 2.
    batch : int
        Images of a call.
    rounds, budget
        Limits of the timed calls: their number, and their seconds together.
    limit : float
        A batch whose call would take more seconds is not measured.
    cold : bool
        Measure the first call of a fresh process only.
    """

    engine: str
    image_path: str
    upsampling: int
    batch: int = 1
    rounds: int = 11
    budget: float = 8.0
    limit: float = 60.0
    cold: bool = False


def serve(pipe: Connection, request: Request) -> None:
    """Measure and send the result. Exceptions of an engine are sent as reasons."""
    from bench.common.engines import UnavailableError

    try:
        found = measure(request)
    except UnavailableError as error:
        found = {"skipped": str(error), "unavailable": True}
    except Exception as error:  # raised by other programs; may be out of memory
        found = {"skipped": f"{type(error).__name__}: {error}".split("\n")[0]}
    pipe.send(found)


def measure(request: Request) -> dict[str, Any]:
    """Return the measurement."""
    from bench.peers.engines import PEERS

    image = np.load(request.image_path)
    with nvml() as device:
        used_before = device.used()
        start = time.perf_counter()
        engine: Any = PEERS[request.engine](request.upsampling, image.shape)
        found: dict[str, Any] = {"settings": engine.settings, "making_seconds": time.perf_counter() - start}
        reset_peak()
        before = resident() - image.nbytes
        found["first_call_seconds"], found["keypoints"] = timed(lambda: engine(image))
        if request.cold:
            return found
        images = variants(image, request.batch)
        single, _ = timed(lambda: engine(image)) if found["first_call_seconds"] < request.limit else (np.inf, 0)
        if request.batch > 1 and single * request.batch > request.limit:
            return too_slow(request)

        def call() -> int:
            return engine.batch(images) if hasattr(engine, "batch") else sum(map(engine, images))

        if single < request.limit:
            call()
        joules = device.joules()
        found["seconds"], total = repeated(call, request)
        found["keypoints"] = total / request.batch
        if joules is not None:
            found["joules"] = ((device.joules() or joules) - joules) / len(found["seconds"]) / request.batch
        found["memory"] = {"host_peak_bytes": peak_resident() - before}
        if hasattr(engine, "synchronize"):
            found["device_seconds"] = device_seconds(engine, images, request)
        if hasattr(engine, "device_memory"):
            found["memory"]["device_peak_bytes"] = engine.device_memory()
        if used_before is not None:
            found["memory"]["device_used_bytes"] = (device.used() or used_before) - used_before
        return found


def too_slow(request: Request) -> dict[str, Any]:
    """Return the result for a batch that is skipped because one image takes too long."""
    return {"skipped": f"a batch would take over {request.limit:.0f} s a call; --all runs it"}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def repeated(call: Callable[[], int], request: Request) -> tuple[list[float], int]:
    """Return the seconds of each timed call, at least one, and the last result."""
    seconds: list[float] = []
    result = 0
    while not seconds or (len(seconds) < request.rounds and sum(seconds) < request.budget):
        took, result = timed(call)
        seconds.append(took)
    return seconds, result


def device_seconds(engine: Any, images: list[np.ndarray], request: Request) -> list[float]:
    """Return the seconds of calls between two synchronizations, with images and features on the device."""
    run = engine.on_device(images)

    def call() -> None:
        run()
        engine.synchronize()

    for _ in range(DEVICE_WARM_UP):
        call()
    seconds: list[float] = []
    while not seconds or (len(seconds) < DEVICE_CALLS and sum(seconds) < request.budget):
        seconds.append(timed(call)[0])
    return seconds


def variants(image: np.ndarray, number: int) -> list[np.ndarray]:
    """Return `number` images: the image, mirrored each way in turn."""
    mirrored = [np.ascontiguousarray(image[::rows, ::cols]) for rows in (1, -1) for cols in (1, -1)]
    return [mirrored[i % len(mirrored)] for i in range(number)]


class Nvml:
    """The first GPU's counters by NVIDIA's management library; None for a counter that the GPU lacks."""

    def __init__(self, library: Any = None) -> None:
        self.library = library
        self.handle = library.nvmlDeviceGetHandleByIndex(0) if library else None

    def used(self) -> int | None:
        """Return the bytes of the device in use by all processes."""
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.used)

    def joules(self) -> float | None:
        """Return the energy that the device has used since its driver was loaded."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _ask(self, function: str) -> Any:
        if self.library is None:
            return None
        try:
            return getattr(self.library, function)(self.handle)
        except self.library.NVMLError:  # not every GPU has every counter
            return None


@contextlib.contextmanager
def nvml() -> Iterator[Nvml]:
    """Open the management library; without nvidia-ml-py, driver or GPU, yield an `Nvml` that returns None."""
    with contextlib.ExitStack() as stack:
        try:
            import pynvml

            pynvml.nvmlInit()
            stack.callback(pynvml.nvmlShutdown)
            device = Nvml(pynvml)
        except Exception:  # not installed, or NVMLError
            device = Nvml()
        yield device
