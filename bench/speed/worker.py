"""One engine and one image in a process of its own; the parent asks for each call through a pipe.

Messages to the parent are ``(kind, value)``: first ``("ready", None)`` or ``("unavailable", reason)``, then one answer
for each command. The commands are "call" and "extras"; any other ends the process.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.common.processes import peak_resident, reset_peak, resident

STAGE_CALLS = 3
DEVICE_CALLS = 30


def serve(pipe: Connection, engine_name: str, image_path: str) -> None:
    """Make the engine, then answer commands.

    Memory is counted after the interpreter's start and the imports, before the image is read.
    """
    from bench.common.engines import ENGINES, UnavailableError

    try:
        engine = ENGINES[engine_name]()
    except UnavailableError as error:
        pipe.send(("unavailable", str(error)))
        return
    reset_peak()
    before = resident()
    image = np.load(image_path)
    pipe.send(("ready", None))
    peak = before
    while (command := pipe.recv()) in ("call", "extras"):
        if command == "extras":
            pipe.send(("extras", {"host_peak_bytes": peak - before, **extras(engine, image)}))
            continue
        start, start_cpu = time.perf_counter(), time.process_time()
        keypoints = engine(image)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        peak = peak_resident()
        pipe.send(("called", (seconds, cpu_seconds, keypoints)))


def extras(engine: Any, image: np.ndarray) -> dict[str, Any]:
    """Return the measurements that only some engines offer: stages, device time and memory, bandwidth.

    All calls are warm: a first call on CUDA includes compilation.
    """
    found: dict[str, Any] = {"settings": engine.settings}
    if hasattr(engine, "device_memory"):
        found["device_peak_bytes"] = engine.device_memory()
    if hasattr(engine, "stages"):
        calls = [engine.stages(image) for _ in range(STAGE_CALLS)]
        found["stages"] = {name: float(np.median([call[name] for call in calls])) for name in calls[0]}
    if hasattr(engine, "device_timer"):
        timed = engine.device_timer(image)
        found["device_seconds"] = [timed() for _ in range(DEVICE_CALLS)][2:]
    if hasattr(engine, "copy_bandwidth"):
        found["copy_bytes_per_s"] = engine.copy_bandwidth()
    return found
