#!/usr/bin/env python
"""Fuzz gpusift with broken image files, odd arrays and parameters: crashes, hangs, memory and errors are findings.

    python -m bench.jobs.fuzz [--inputs 10000] [--seed 0] [--only N] [--keep DIR] [--out DIR] [--device cpu]

Four of five inputs are image files, as many of JPEG, PNG, TIFF, WebP, BMP as of all others. Half of them have wrecked
bytes, half an odd structure: many layers, chunks, scans, tiles or frames, and directories that loop. They are decoded,
reduced, and given to SIFT. The fifth input is an array of any shape and type with parameters of any value. Each must
give plausible features or a documented error, within limits of processor time and memory. A child process runs them;
the parent kills it at a limit, and starts it again when it has died. One row is kept for each run. With GPUSIFT_DATA,
the real files of its folder `hard` are wrecked too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import machine, rows
from bench.jobs.fuzz_inputs import WRITERS, odd_array, odd_file, odd_parameters, real_files, sound_files

KINDS = (*WRITERS, "array")
WEIGHTS = (*[0.8 / len(WRITERS)] * len(WRITERS), 0.2)

# The child's limits. A file that declares more pixels is refused; all others must fit into the memory.
MAX_PIXELS = 1_000_000
MAX_GROWTH = 300 << 20  # bytes of resident memory, for one input
MAX_ADDRESSES = 8 << 30  # bytes: an allocation beyond this fails, which protects the machine
REDUCED = 64  # pixels of the longer side of the image that SIFT gets
WAITING = 12  # times the limit of processor time that a silent child may take by the clock
POLL_SECONDS = 0.2


def run_one(number: int, seed: int, device: str, files: dict[str, list[bytes]]) -> tuple[str, str]:
    """Run an input.

    Returns
    -------
    kind, outcome : str
        Outcomes are "refused" by the decoder or by SIFT, and "features"; a finding begins with "error".
    """
    from gpusift import SIFT
    from gpusift.images import ImageReadError, decode

    rng = np.random.default_rng((seed, number))
    kind = str(rng.choice(KINDS, p=WEIGHTS))
    try:
        if kind == "array":
            image, parameters = odd_array(rng), odd_parameters(rng)
            try:
                sift = SIFT(device=device, num_threads=1, **parameters)
            except (ValueError, TypeError):
                return kind, "refused"
        else:
            data = odd_file(kind, files[kind], rng)
            try:
                image = decode(data, "broken", max_pixels=MAX_PIXELS, max_size=REDUCED).image
            except ImageReadError:
                return kind, "refused"
            if max(image.shape) > REDUCED or image.ndim != 2:
                return kind, f"error: decoded to {image.shape}"
            sift = SIFT(device=device, num_threads=1)
        try:
            features = sift.compute(image).to_host()
        except (ValueError, TypeError):
            return kind, "refused"
    except Exception as error:
        return kind, f"error: {type(error).__name__}: {error}"
    return kind, wrong(features, np.shape(image)) or "features"


def wrong(features: Any, shape: tuple[int, ...]) -> str | None:
    """Return an error for features that no image can have."""
    n = len(features)
    if n and not (np.isfinite(features.positions).all() and np.isfinite(features.sigmas).all()):
        return "error: positions or sigmas are not finite"
    if n and ((features.positions < -1).any() or (features.positions > np.array(shape[:2])).any()):
        return "error: positions outside of the image"
    if features.descriptors.shape[0] != n or features.descriptors.dtype != np.uint8:
        return "error: not one descriptor of bytes for each keypoint"
    return None


def child(connection: Connection, seed: int, device: str, messages: str) -> None:
    """Run the inputs whose numbers come; answer with kind and outcome, or the growth of memory if it is too large."""
    with open(messages, "wb", buffering=0) as file:  # decoders write to file descriptor 2
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = sound_files(real_files())
    run_one(0, seed, device, files)  # imports, kernels
    connection.send(None)
    while (number := connection.recv()) is not None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kind, outcome = run_one(number, seed, device, files)
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        connection.send((kind, f"memory: {growth >> 20} MiB" if growth > MAX_GROWTH else outcome))


class Child:
    """The process that runs the inputs."""

    def __init__(self, options: argparse.Namespace, target: Callable[..., None] = child) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, options.seed, options.device, os.devnull)
        self.process = context.Process(target=target, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def run(self, number: int, timeout: float) -> tuple[str, str]:
        """Return kind and outcome; after "hang" and "crash" the process has ended."""
        self.connection.send(number)
        begun, begun_cpu = time.monotonic(), self.processor_seconds()
        try:
            while not self.connection.poll(POLL_SECONDS):
                waiting = time.monotonic() - begun > WAITING * timeout
                if waiting or self.processor_seconds() - begun_cpu > timeout:
                    self.process.kill()
                    self.process.join()
                    return "?", f"hang: no end after {timeout:g} s" + (" of waiting" if waiting else "")
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return "?", f"crash: exit code {self.process.exitcode}"

    def processor_seconds(self) -> float:
        """Return the processor time of the process so far; 0 if it has ended."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End the process."""
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join()


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """Run all inputs and return the row."""
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    numbers = [options.only] if options.only is not None else range(options.inputs)
    worker = Child(options)
    for number in numbers:
        kind, outcome = worker.run(number, options.timeout)
        if not worker.process.is_alive():
            kind = str(np.random.default_rng((options.seed, number)).choice(KINDS, p=WEIGHTS))
            worker = Child(options)
        counts[f"{kind} {outcome.split(':')[0]}"] += 1
        if ":" in outcome:
            findings.append({"number": number, "kind": kind, "outcome": outcome})
            print(f"{number} {kind} {outcome}", file=sys.stderr, flush=True)
            if options.keep and kind in WRITERS:
                keep(options, number, kind)
    worker.end()
    return {
        "inputs": len(numbers),
        "seed": options.seed,
        "device": options.device,
        "real_files": real_files() is not None,
        "outcomes": {kind: {o: counts[f"{kind} {o}"] for o in OUTCOMES} for kind in KINDS},
        "findings": findings,
        "seconds": round(time.perf_counter() - start, 1),
    }


OUTCOMES = ("features", "refused", "error", "memory", "crash", "hang")


def keep(options: argparse.Namespace, number: int, kind: str) -> None:
    """Write the file of a finding."""
    rng = np.random.default_rng((options.seed, number))
    rng.choice(KINDS, p=WEIGHTS)
    options.keep.mkdir(parents=True, exist_ok=True)
    path = options.keep / f"{options.seed}-{number}.{kind}"
    path.write_bytes(odd_file(kind, sound_files(real_files())[kind], rng))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="run one input, by its number")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds of processor time for an input")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the files of findings here")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    return parser.parse_args()


def main() -> None:
    """Fuzz, keep the row, and fail if there are findings."""
    options = arguments()
    common = rows.provenance()
    row = fuzz(options)
    path = options.out / "fuzz.jsonl"
    rows.append(path, {**common, **row})
    for kind, outcomes in row["outcomes"].items():
        print(f"{kind}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items() if count))
    print(f"{row['inputs']} inputs, {len(row['findings'])} findings, {row['seconds']} s; row: {path}")
    sys.exit(bool(row["findings"]))


if __name__ == "__main__":
    main()
