#!/usr/bin/env python
"""Measure gpusift, OpenCV and scikit-image on photographs; keep one JSON row per measurement.

    python -m bench.speed.run [--data DIR] [--cases 0.4,2] [--engines a,b] [--out DIR] [--quick] [--all]

Each engine runs in a process of its own. Only one runs at a time; they take turns, call by call. See bench/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from typing import Any

import numpy as np

from bench.common import comparison, photographs, rows
from bench.common.comparison import REFERENCE, about, check_counts
from bench.common.processes import environment
from bench.speed.worker import serve

ENGINE_NAMES = ("gpusift-cuda", "gpusift-cpu", "opencv", "scikit-image")
WARM_UP = 2  # calls before the timed ones, the first included
KEEP = {  # makes glibc's allocator keep freed memory; see bench/README.md
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}
SETTLE_S = 0.1  # pause before a call, in which another engine's threads stop spinning
KEPT_LIMIT = 3  # budgets that a first call may take, for a second measurement to be made
DENSE_REASON = "a dense image takes scikit-image many minutes; --all runs it"


class Runner:
    """The parent's end of one engine's process, and the measurements so far.

    Attributes
    ----------
    skipped : str or None
        Why the engine does not run; None while it does.
    died : bool
        The process has ended on its own.
    """

    def __init__(self, engine: str, image_path: str, keep: bool) -> None:
        self.engine = engine
        self.skipped: str | None = None
        self.died = False
        self.first = 0.0
        self.warm_up = 0
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.keypoints = 0
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, engine, image_path), daemon=True)
        with environment(KEEP if keep else {}):
            self.process.start()
        theirs.close()
        kind, value = self._answer()
        if kind == "unavailable":
            self.skipped = value

    def call(self, timed: bool = False) -> float:
        """Run the engine once and return the seconds, kept if `timed`; 0 if its process died."""
        time.sleep(SETTLE_S)
        self.pipe.send("call")
        kind, value = self._answer()
        if kind != "called":
            return 0.0
        seconds, cpu_seconds, self.keypoints = value
        if timed:
            self.seconds.append(seconds)
            self.cpu_seconds.append(cpu_seconds)
        return float(seconds)

    def extras(self) -> dict[str, Any]:
        """Return memory, stages and the further measurements that the engine offers."""
        self.pipe.send("extras")
        kind, value = self._answer()
        return value if kind == "extras" else {}

    def stop(self) -> None:
        """End the process."""
        if self.skipped is None:
            self.pipe.send("stop")
            self.process.join()

    def _answer(self) -> tuple[str, Any]:
        try:
            kind, value = self.pipe.recv()
            return kind, value
        except EOFError:
            self.process.join()
            self.died = True
            self.skipped = f"its process ended with exit code {self.process.exitcode}"
            return "died", None


def measure(case: photographs.Case, engines: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all engines on one photograph.

    Each is measured twice, in fresh processes: with the default memory allocator, and with one that keeps freed memory
    and so leaves out the system's page faults.

    Returns
    -------
    list of dict
        A row for each engine, without the keys that the whole run has in common. An engine that could not run has a
        row with ``skipped``, the reason, and no times.
    """
    image = case.load()
    rows.say(f"{case.name}: {case.image}, {image.shape[0]} x {image.shape[1]}")
    dense = [engine for engine in engines if case.dense and engine == REFERENCE and not options.all]
    engines = [engine for engine in engines if engine not in dense]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "image.npy")
        np.save(path, image)
        plain = [Runner(engine, path, keep=False) for engine in engines]
        time_in_turn(plain, options.rounds, options.budget)
        measured = [row_of(case, image, runner) for runner in plain]
        again = [r for r in plain if not r.skipped and r.first < KEPT_LIMIT * options.budget]
        kept = {runner.engine: Runner(runner.engine, path, keep=True) for runner in again}
        time_in_turn(list(kept.values()), options.rounds, options.budget)
        for made in measured:
            runner = kept.get(made["engine"])
            if runner and not runner.skipped:
                made["kept_memory_seconds"] = rows.spread(runner.seconds)
        for runner in [*plain, *kept.values()]:
            runner.stop()
    measured += [{**about(case, image), "engine": engine, "skipped": DENSE_REASON, "died": False} for engine in dense]
    for made in measured:
        rows.say("  " + summary(made))
    return measured


def time_in_turn(runners: list[Runner], rounds: int, budget: float) -> None:
    """Time the engines call by call in turn, each until `rounds` calls or `budget` seconds.

    The order within a round is shuffled, the same way in every run: an engine that frees much memory slows the next
    one, which must not always be the same. Every engine is timed at least once after its first call. A first call that
    takes longer than the budget is the only warm-up.
    """

    def running() -> list[Runner]:
        return [runner for runner in runners if runner.skipped is None]

    for runner in running():
        runner.first = runner.call()
        runner.warm_up = 1
    check_counts({runner.engine: runner.keypoints for runner in running()})
    for runner in running():
        while runner.skipped is None and runner.warm_up < WARM_UP and runner.first < budget:
            runner.call()
            runner.warm_up += 1
    order = random.Random(0)
    for _ in range(rounds):
        for runner in order.sample(running(), len(running())):
            if sum(runner.seconds) < budget:
                runner.call(timed=True)


def row_of(case: photographs.Case, image: np.ndarray, runner: Runner) -> dict[str, Any]:
    """Return the row of one engine on one photograph."""
    found = {} if runner.skipped else runner.extras()
    if runner.skipped:
        return {
            **about(case, image),
            "engine": runner.engine,
            "skipped": runner.skipped,
            "died": runner.died,
        }
    peak = found.pop("host_peak_bytes")
    made = {
        **about(case, image),
        "engine": runner.engine,
        "settings": found.pop("settings"),
        "keypoints": runner.keypoints,
        "first_call_seconds": runner.first,
        "seconds": {**rows.spread(runner.seconds), "warm_up_calls": runner.warm_up},
        "cpu_seconds": float(np.median(runner.cpu_seconds)),
        "memory": {"host_peak_bytes": peak, "host_bytes_per_pixel": peak / image.size},
    }
    if "device_peak_bytes" in found:
        peak = found.pop("device_peak_bytes")
        made["memory"] |= {
            "device_peak_bytes": peak,
            "device_bytes_per_pixel": peak / image.size,
        }
    if "device_seconds" in found:
        found["device_seconds"] = rows.spread(found["device_seconds"])
    return made | found


def summary(made: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    if "skipped" in made:
        return f"{made['engine']:13} skipped: {made['skipped']}"
    times, memory = made["seconds"], made["memory"]
    return (
        f"{made['engine']:13} {times['median'] * 1e3:9.1f} ms "
        f"({times['q1'] * 1e3:.1f} to {times['q3'] * 1e3:.1f}, n={times['n']}, "
        f"first {made['first_call_seconds'] * 1e3:.0f})  {made['keypoints']:7d} keypoints  "
        f"{memory['host_bytes_per_pixel']:6.0f} bytes/pixel"
    )


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return comparison.parse(comparison.parser(__doc__.split("\n")[0], budget=8.0), ENGINE_NAMES, argv)


def cases_of(options: argparse.Namespace) -> list[photographs.Case]:
    """Return the photographs to measure."""
    return comparison.chosen(photographs.standard(options.data), options)


def main() -> None:
    """Measure all cases and append their rows to the file of today and of this machine."""
    options = arguments()
    cases = cases_of(options)
    common = rows.provenance(standard=options.standard)
    path = rows.path_of(options.out, common)
    died = []
    for case in cases:
        measured = measure(case, options.engines, options)
        rows.append(path, *({**common, **row} for row in measured))
        died += [f"{case.name}: {summary(row)}" for row in measured if row.get("died")]
    rows.say(f"rows: {path}")
    if died:
        sys.exit("\n".join(["Not measured:", *died]))


if __name__ == "__main__":
    main()
