#!/usr/bin/env python
"""Measure gpusift, OpenCV and scikit-image on photographs; keep one JSON row per measurement.

    python -m bench.speed.run [--data DIR] [--cases 0.4,2] [--engines a,b] [--out DIR] [--quick] [--all]
    python -m bench.speed.run --peers [the same] [--upsamplings 1,2] [--batches 1,8,64]

Each engine runs in its own process, one at a time, call by call in turn. --peers measures every program for SIFT that
is installed, batches too, and draws (`peers.py`). See bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import machine, photographs
from bench.speed.worker import serve

ENGINE_NAMES = ("gpusift-cuda", "gpusift-cpu", "opencv", "scikit-image")
REFERENCE = "scikit-image"
WARM_UP = 2  # calls before the timed ones, the first included
KEEP = {  # has glibc's allocator keep what is freed; see bench/README.md
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}
KEPT_LIMIT = 3  # budgets that a first call may take, for a second measurement to be made
SETTLE_S = 0.1  # pause before a call, in which another engine's threads stop spinning
COUNT_TOLERANCE = 1e-3  # of float32 keypoints without a counterpart: gpusift's conformance bound
DENSE_REASON = "a dense image takes scikit-image many minutes; --all runs it"


class Runner:
    """The parent's end of one engine's process, and what it has gathered.

    `skipped` is None while the engine runs, else the reason why it does not; `died` says that
    the reason is a process that ended.
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
        """Return memory, stages and what else the engine's process can tell."""
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


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a process that is started inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def measure(case: photographs.Case, engines: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all engines on one photograph.

    Twice, in fresh processes: with the memory allocator as it comes, which is what one gets,
    and with one that keeps what is freed, which leaves out the system's page faults.

    Returns
    -------
    list of dict
        A row per engine, without what is the same for the whole run. An engine that could not
        run has a row with ``skipped``, the reason, and no times.
    """
    image = case.load()
    say(f"{case.name}: {case.image}, {image.shape[0]} x {image.shape[1]}")
    dense = [engine for engine in engines if case.dense and engine == REFERENCE and not options.all]
    engines = [engine for engine in engines if engine not in dense]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "image.npy")
        np.save(path, image)
        plain = [Runner(engine, path, keep=False) for engine in engines]
        time_in_turn(plain, options.rounds, options.budget)
        rows = [row(case, image, runner) for runner in plain]
        again = [r for r in plain if not r.skipped and r.first < KEPT_LIMIT * options.budget]
        kept = {runner.engine: Runner(runner.engine, path, keep=True) for runner in again}
        time_in_turn(list(kept.values()), options.rounds, options.budget)
        for made in rows:
            runner = kept.get(made["engine"])
            if runner and not runner.skipped:
                made["kept_memory_seconds"] = spread(runner.seconds)
        for runner in [*plain, *kept.values()]:
            runner.stop()
    rows += [{**about(case, image), "engine": engine, "skipped": DENSE_REASON, "died": False} for engine in dense]
    for made in rows:
        say("  " + summary(made))
    return rows


def time_in_turn(runners: list[Runner], rounds: int, budget: float) -> None:
    """Time the engines call by call in turn, each until `rounds` calls or `budget` seconds.

    The order within a round is shuffled, the same way in every run: an engine that frees much memory slows whichever
    comes next, and that should not always be the same one. Every engine is timed at least once after a first call; a
    first call over the budget is the only warm-up.
    """

    def running() -> list[Runner]:
        return [runner for runner in runners if runner.skipped is None]

    for runner in running():
        runner.first = runner.call()
        runner.warm_up = 1
    check_counts(running())
    for runner in running():
        while runner.skipped is None and runner.warm_up < WARM_UP and runner.first < budget:
            runner.call()
            runner.warm_up += 1
    order = random.Random(0)
    for _ in range(rounds):
        for runner in order.sample(running(), len(running())):
            if sum(runner.seconds) < budget:
                runner.call(timed=True)


def check_counts(runners: list[Runner]) -> None:
    """Compare gpusift's number of keypoints with the reference's, before anything is timed.

    Raises
    ------
    SystemExit
        If they differ by more than float32 may.
    """
    counts = {runner.engine: runner.keypoints for runner in runners}
    expected = counts.get(REFERENCE)
    for engine, count in counts.items():
        if expected is None or not engine.startswith("gpusift"):
            continue
        if abs(count - expected) > COUNT_TOLERANCE * expected:
            sys.exit(
                f"{engine} must find {expected} keypoints as {REFERENCE} does, within "
                f"{COUNT_TOLERANCE:.1%}; it found {count}. Not timed: run the tests first."
            )


def row(case: photographs.Case, image: np.ndarray, runner: Runner) -> dict[str, Any]:
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
        "seconds": {**spread(runner.seconds), "warm_up_calls": runner.warm_up},
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
        found["device_seconds"] = spread(found["device_seconds"])
    return made | found


def about(case: photographs.Case, image: np.ndarray) -> dict[str, Any]:
    """Return what a row says of its photograph."""
    return {"case": case.name, "image": case.image, "shape": list(image.shape)}


def spread(seconds: list[float]) -> dict[str, Any]:
    """Return the median, quartiles, extremes and number of `seconds`."""
    low, q1, median, q3, high = np.percentile(seconds, [0, 25, 50, 75, 100])
    return {
        "median": float(median),
        "q1": float(q1),
        "q3": float(q3),
        "min": float(low),
        "max": float(high),
        "n": len(seconds),
    }


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


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from bench.peers.engines import PEERS

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GPUSIFT_DATA"), metavar="DIR")
    parser.add_argument("--images", type=Path, nargs="+", help="measure these files instead")
    parser.add_argument("--cases", help="only photographs of these megapixels, comma-separated: 0.4,2,9 or 24")
    parser.add_argument("--peers", action="store_true", help="all programs that are installed, and batches")
    parser.add_argument("--engines", help="comma-separated; by default all of the run")
    parser.add_argument("--upsamplings", default="1,2", help="of --peers")
    parser.add_argument("--batches", default="1,8,64", help="images of a call, of --peers")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--rounds", type=int, default=11, help="timed calls of an engine")
    parser.add_argument("--budget", type=float, help="seconds of timed calls: 8, or 3 with --peers")
    parser.add_argument("--quick", action="store_true", help="up to 2 MP, few calls")
    parser.add_argument("--all", action="store_true", help="also what takes many minutes")
    options = parser.parse_args(argv)
    names = tuple(PEERS) if options.peers else ENGINE_NAMES
    options.engines = options.engines.split(",") if options.engines else list(names)
    options.standard = set(options.engines) == set(names) and not (options.images or options.cases or options.quick)
    options.budget = options.budget or (3.0 if options.peers else 8.0)
    unknown = sorted(set(options.engines) - set(names))
    if unknown:
        parser.error(f"--engines must be among {', '.join(names)}; got {unknown[0]!r}")
    for name, allowed in (("upsamplings", {1, 2}), ("batches", range(1, 4097))):
        try:
            numbers = [int(number) for number in getattr(options, name).split(",")]
        except ValueError:
            numbers = []
        if not numbers or not set(numbers) <= set(allowed):
            parser.error(f"--{name} must be numbers such as {parser.get_default(name)}; got {getattr(options, name)!r}")
        setattr(options, name, numbers)
    if options.data and not Path(options.data).is_dir():
        parser.error(f"--data must be a folder; got {options.data}")
    return options


def cases_of(options: argparse.Namespace) -> list[photographs.Case]:
    """Return the photographs to measure; SystemExit if there are none of the megapixels asked for."""
    if options.images:
        return [photographs.Case(path.name, path) for path in options.images]
    data = options.data and Path(options.data)
    cases = photographs.for_peers(data) if options.peers else photographs.standard(data)
    if not options.cases:
        return cases
    chosen = [case for case in cases if case.name.split(" MP")[0] in options.cases.split(",")]
    if not chosen:
        sys.exit(f"--cases must name megapixels among {', '.join(case.name for case in cases)}; got {options.cases!r}")
    return chosen


def main() -> None:
    """Measure all cases and append their rows to the file of today and of this machine."""
    options = arguments()
    cases = cases_of(options)
    if options.quick:
        cases, options.rounds, options.budget = cases[:2], 3, 4.0
    hardware = machine.hardware()
    now = datetime.datetime.now(datetime.timezone.utc)
    common = {
        "run": now.isoformat(timespec="seconds"),
        "standard": options.standard,
        **machine.commit(),
        "hardware": hardware,
        "load_before": round(os.getloadavg()[0], 2),
        "versions": machine.versions(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    if options.peers:
        from bench.peers import run as peers

        peers.run(cases, options.out / f"peers-{now.date()}-{machine.kind(hardware)}.jsonl", common, options)
        return
    path = options.out / f"{now.date()}-{machine.kind(hardware)}.jsonl"
    died = []
    for case in cases:
        rows = measure(case, options.engines, options)
        with path.open("a") as file:
            file.writelines(json.dumps({**common, **made}) + "\n" for made in rows)
        died += [f"{case.name}: {summary(made)}" for made in rows if made.get("died")]
    say(f"rows: {path}")
    if died:
        sys.exit("\n".join(["Not measured:", *died]))


if __name__ == "__main__":
    main()
