#!/usr/bin/env python
"""Measure every SIFT program that is installed, by photograph, upsampling and batch; keep the rows and draw them.

    python -m bench.peers.run [--data DIR] [--cases 0.4,2] [--engines a,b] [--upsamplings 1,2] [--batches 1,8,64]
                              [--out DIR] [--quick] [--all] [--no-cold-starts]

Each measurement is made in a fresh process, one at a time. Rows go to results/peers-<date>-<machine>.jsonl, tables and
plot beside them (`bench.peers.plot`). See bench/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import comparison, photographs, rows
from bench.common.comparison import REFERENCE, about, check_counts
from bench.common.processes import environment
from bench.peers import plot
from bench.peers.engines import PEERS
from bench.peers.worker import Request, serve, too_slow

LONGEST = 900.0  # seconds: the time limit of a process
CACHES = ("CUPY_CACHE_DIR", "CUDA_CACHE_PATH", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")  # of compiled kernels
DENSE_MEGAPIXELS = 9  # scikit-image takes many minutes from this size on
SLOW_REASON = "scikit-image takes minutes an image; --all runs it"


def in_process(serving: Callable[..., None], *arguments: Any, longest: float = LONGEST) -> dict[str, Any]:
    """Run ``serving(pipe, *arguments)`` in a fresh process; return the dict that it sends, and ``process_seconds``."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serving, args=(theirs, *arguments), daemon=True)
    start = time.perf_counter()
    process.start()
    theirs.close()
    try:
        if not pipe.poll(longest):
            process.kill()
            return {"skipped": f"it took longer than {longest:.0f} s"}
        found: dict[str, Any] = pipe.recv()
        found["process_seconds"] = time.perf_counter() - start
        return found
    except EOFError:
        process.join()
        return {"skipped": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.join(timeout=10)
        process.kill()


def bandwidth(pipe: Connection) -> None:
    """Send the copy bandwidth of the GPU, or the reason why it cannot be measured."""
    from bench.common import gpus

    try:
        pipe.send({"copy_bytes_per_s": gpus.copy_bandwidth()})
    except Exception as error:  # a missing CuPy or GPU may raise anything
        pipe.send({"skipped": f"{type(error).__name__}: {error}".split("\n")[0]})


def cold_starts(engine: str, path: str) -> dict[str, Any]:
    """Return the keys of a row for a fresh process's first features, with empty and with filled caches of kernels."""
    request = Request(engine, path, upsampling=largest_upsampling(engine), cold=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for caches in ("empty", "filled"):
            with environment(dict.fromkeys(CACHES, folder)):
                answer = in_process(serve, request)
            if "skipped" in answer:
                return answer
            found[caches] = {key: value for key, value in answer.items() if key.endswith("seconds")}
    return {"upsampling": request.upsampling, "keypoints": answer["keypoints"], "cold_start": found}


def largest_upsampling(engine: str) -> int:
    """Return the largest upsampling that an engine supports."""
    return max(PEERS[engine].upsamplings)


def requests(engine: str, path: str, options: argparse.Namespace) -> Iterator[Request]:
    """Yield the requests for an engine and a photograph."""
    limit = np.inf if options.all else 3 * options.budget
    first = Request(engine, path, 1, rounds=options.rounds, budget=options.budget, limit=limit)
    for upsampling in options.upsamplings:
        for batch in options.batches:
            yield replace(first, upsampling=upsampling, batch=batch)


def measured(request: Request, megapixels: float, single: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return the measurements of a row, or its ``skipped``; `single` is the seconds of one image, or 0 if unknown."""
    if request.upsampling not in PEERS[request.engine].upsamplings:
        return {"skipped": f"it does not support an upsampling of {request.upsampling}"}
    if request.engine == REFERENCE and megapixels >= DENSE_MEGAPIXELS - 0.5 and not options.all:
        return {"skipped": SLOW_REASON}
    if request.batch > 1 and single * request.batch > request.limit:
        return too_slow(request)
    found = in_process(serve, request)
    for name in ("seconds", "device_seconds"):
        if name in found:
            found[name] = rows.spread(found[name])
    return found


def rows_of(engine: str, path: str, megapixels: float, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure an engine on one photograph; yield the rows, without the keys of the photograph."""
    single = dict.fromkeys(options.upsamplings, 0.0)
    for request in requests(engine, path, options):
        what = {"engine": engine, "upsampling": request.upsampling, "batch": request.batch}
        load = round(os.getloadavg()[0], 2)
        found = measured(request, megapixels, single[request.upsampling], options)
        if "seconds" in found and request.batch == 1:
            single[request.upsampling] = found["seconds"]["median"]
        yield {**what, "load": load, **found}


def run(cases: list[photographs.Case], path: Path, common: dict[str, Any], options: argparse.Namespace) -> None:
    """Measure all cases, append the rows to the file at `path`, and draw the rows of all such files beside it."""
    common = {**common, "peers": True}
    with tempfile.TemporaryDirectory() as folder:

        def keep(row: dict[str, Any]) -> dict[str, Any]:
            rows.append(path, {**common, **row})
            rows.say("  " + summary(row))
            return row

        saved = {case: save(case, folder) for case in cases}
        available = list(options.engines)
        if not options.no_cold_starts:
            smallest = cases[0]
            rows.say(f"cold starts: {smallest.name}")
            cold = []
            for engine in options.engines:
                image, at = saved[smallest]
                cold.append(keep({**about(smallest, image), "engine": engine, **cold_starts(engine, at)}))
            check_counts({row["engine"]: row["keypoints"] for row in cold if "skipped" not in row})
            common |= copy_bandwidth(cold)
            available = [row["engine"] for row in cold if not row.get("unavailable")]
        for case, (image, at) in saved.items():
            rows.say(f"{case.name}: {case.image}, {image.shape[0]} x {image.shape[1]}")
            for engine in available:
                for row in rows_of(engine, at, image.size / 1e6, options):
                    keep({**about(case, image), **row})
    rows.say(f"rows: {path}")
    plot.write(sorted(options.out.glob("peers-*.jsonl")), options.out)


def copy_bandwidth(cold: list[dict[str, Any]]) -> dict[str, float]:
    """Return ``copy_bytes_per_s`` of the GPU for the rows; an empty dict if no engine ran on a GPU."""
    if not any(runs_on_gpu(row) for row in cold):
        return {}
    found = in_process(bandwidth)
    if "skipped" in found:
        rows.say(f"copy bandwidth: {found['skipped']}; the tables have no ratios to the floor")
        return {}
    return {"copy_bytes_per_s": found["copy_bytes_per_s"]}


def runs_on_gpu(row: dict[str, Any]) -> bool:
    """Return whether the engine of a cold start ran, and on a GPU through CUDA."""
    return "skipped" not in row and (row["engine"].endswith("-cuda") or row["engine"] in ("cvcuda", "pysift"))


def save(case: photographs.Case, folder: str) -> tuple[np.ndarray, str]:
    """Return the image of a case, and the path of a file that holds it."""
    image = case.load()
    path = os.path.join(folder, f"{case.image}-{image.size}.npy")
    np.save(path, image)
    return image, path


def summary(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    head = f"{row['engine']:15}"
    if "batch" in row:
        head += f" x{row['upsampling']} batch {row['batch']:2d}"
    if "skipped" in row:
        return f"{head} skipped: {row['skipped']}"
    if "cold_start" in row:
        empty, filled = (row["cold_start"][caches] for caches in ("empty", "filled"))
        return f"{head} {empty['process_seconds']:6.2f} s, with caches filled {filled['process_seconds']:6.2f} s"
    times = row["seconds"]
    device = (
        f"  device {row['device_seconds']['median'] / row['batch'] * 1e3:.2f} ms" if "device_seconds" in row else ""
    )
    return (
        f"{head} {times['median'] / row['batch'] * 1e3:9.2f} ms an image (n={times['n']})  "
        f"{row['keypoints']:9.0f} keypoints{device}"
    )


def numbers(parser: argparse.ArgumentParser, name: str, value: str, allowed: Container[int]) -> list[int]:
    """Return the numbers of a comma-separated option."""
    parts = value.split(",")
    if not all(part.isdecimal() and int(part) in allowed for part in parts):
        parser.error(f"--{name} must be numbers such as {parser.get_default(name)}; got {value!r}")
    return [int(part) for part in parts]


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = comparison.parser(__doc__.split("\n")[0], budget=3.0)
    parser.add_argument("--upsamplings", default="1,2", help="comma-separated: 1, 2")
    parser.add_argument("--batches", default="1,8,64", help="images of a call, comma-separated")
    parser.add_argument("--no-cold-starts", action="store_true", help="for a short run: measure warm calls only")
    options = comparison.parse(parser, list(PEERS), argv)
    options.upsamplings = numbers(parser, "upsamplings", options.upsamplings, {1, 2})
    options.batches = numbers(parser, "batches", options.batches, range(1, 4097))
    return options


def cases_of(options: argparse.Namespace) -> list[photographs.Case]:
    """Return the photographs to measure."""
    return comparison.chosen(photographs.for_peers(options.data), options)


def main() -> None:
    """Measure all cases, append their rows to the file of today and of this machine, and draw."""
    options = arguments()
    cases = cases_of(options)
    common = rows.provenance(standard=options.standard)
    run(cases, rows.path_of(options.out, common, "peers-"), common, options)


if __name__ == "__main__":
    main()
