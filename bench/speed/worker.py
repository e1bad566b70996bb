"""One engine on one image in a process of its own, driven call by call through a pipe.

Messages to the parent are ``(kind, value)``: first ``("ready", None)`` or ``("unavailable",
reason)``, then one answer a command. Commands: "call", "extras"; anything else ends the process.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

STAGE_CALLS = 3
DEVICE_CALLS = 30


def serve(pipe: Connection, engine_name: str, image_path: str) -> None:
    """Make the engine, then answer commands.

    Memory is counted from here: interpreter and imports done, the image not yet read.
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
    """Return what only some engines can tell: stages, device time and memory, bandwidth.

    Stages of a CUDA engine's first call hold compilation; all calls here are warm.
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


def reset_peak() -> None:
    """Set the process's peak resident size back to its present one, where Linux lets us.

    Where it does not, the peak holds that of the imports too: too large, never too small.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    """Return the resident bytes of this process; 0 where there is no /proc."""
    return _status("VmRSS") or 0


def peak_resident() -> int:
    """Return the largest resident bytes of this process since `reset_peak`."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")]
    return values[0] if values else None
