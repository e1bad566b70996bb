#!/usr/bin/env python
"""Measure `gpusift extract` from JPEG files on disk to its sinks; keep one JSON row per measurement.

    python -m bench.jobs.batch [--images N] [--device cpu|cuda] [--decoders NAMES] [--memory N] [--out DIR] [--quick]

The command runs in a process of its own. A row has the images a second from its start to its end, and the seconds of
reading (fetching and decoding), computing and writing, summed over threads and processes. There are four tasks:

- sinks: the same photographs to each sink, with each decoder of --decoders; the other tasks use OpenCV;
- processes: to `.npz` files, by 1 to N processes of this machine, and by 1 to N workers of a local Dask cluster;
- resume: the same command again on a finished result, and a run that is killed half way and then resumed;
- memory: many small images; the resident memory of the command is sampled while it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.common import machine, photographs, rows
from bench.common.processes import resident
from bench.common.rows import say
from gpusift.images.reader import DECODERS, OPENCV

SINKS = {"HDF5": "features.h5", "COLMAP": "database.db", "Parquet": "features.parquet", "npz": "npz"}
SHAPE = 1080, 1920
QUICK_SHAPE = 270, 480
QUALITY = 90
SMALL = 64  # rows and columns of the many small images
DIFFERENT = 256  # distinct small images; the others are hard links to them
SAMPLE_S = 0.25
COMMAND = [sys.executable, "-c", "from gpusift.cli import main; main()", "extract"]


def write_photographs(folder: Path, number: int, shape: tuple[int, int]) -> None:
    """Write JPEG files of a shape: a mosaic of photographs, shifted differently in each."""
    folder.mkdir()
    mosaic = photographs.mosaic(*shape)
    for index in range(number):
        shifted = np.roll(mosaic, (37 * index, 91 * index), axis=(0, 1))
        cv2.imwrite(str(folder / f"{index:05}.jpg"), shifted, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def write_small(folder: Path, number: int) -> None:
    """Write JPEG files of SMALL x SMALL, crops of a photograph, in folders of 1,000."""
    first = folder / "first"
    first.mkdir(parents=True)
    mosaic = photographs.mosaic(*SHAPE)
    rng = np.random.default_rng(0)
    for index in range(DIFFERENT):
        row, column = (int(rng.integers(0, size - SMALL)) for size in SHAPE)
        cv2.imwrite(str(first / f"{index}.jpg"), mosaic[row : row + SMALL, column : column + SMALL])
    for index in range(DIFFERENT, number):
        subfolder = folder / f"{index // 1000:03}"
        subfolder.mkdir(exist_ok=True)
        os.link(first / f"{index % DIFFERENT}.jpg", subfolder / f"{index:06}.jpg")


def start(images: Path, output: Path, options: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the command, which writes its events to a file."""
    command = [*COMMAND, str(images), "-o", str(output), "--quiet", "--log-json", str(log), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def events(log: Path) -> list[dict[str, Any]]:
    """Return the events of a run; a line truncated by a kill is left out."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [json.loads(line) for line in lines]


def extract(images: Path, output: Path, options: Sequence[str] = ()) -> dict[str, Any]:
    """Run the command to its end and return its measurements."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.jsonl"
        begun = time.perf_counter()
        process = start(images, output, options, log)
        _, stderr = process.communicate()
        seconds = time.perf_counter() - begun
        if process.returncode:
            sys.exit(f"gpusift extract failed with {process.returncode}: {stderr.decode()}")
        return measured(events(log)[-1], seconds)


def measured(end: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the keys of a row for a run: from its last event and its duration."""
    spent = {part: end["seconds"][part] for part in ("read", "compute", "write")}
    whole = sum(spent.values()) or 1.0
    return {
        "images": end["images"],
        "skipped": end["skipped"],
        "failures": end["failures"],
        "keypoints": end["keypoints"],
        "seconds": seconds,
        "images_per_s": end["images"] / seconds,
        "seconds_of_the_run": end["seconds"]["total"],
        "seconds_spent": spent,
        "share": {part: value / whole for part, value in spent.items()},
    }


def size_of(path: Path) -> int:
    """Return the bytes of a file or folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def sinks(images: Path, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure each sink."""
    for decoder in options.decoders:
        (folder / decoder).mkdir()
        for sink, name in SINKS.items():
            output = folder / decoder / name
            row = extract(images, output, ["--device", options.device, "--decoder", decoder])
            case = sink if decoder == OPENCV else f"{sink}, {decoder}"
            yield {"task": "sinks", "case": case, "decoder": decoder, **row, "output_bytes": size_of(output)}


def processes(images: Path, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure several processes on this machine, by --devices and by --dask."""
    device = "0" if options.device.startswith("cuda") else "cpu"
    cores = len(os.sched_getaffinity(0))
    for number in range(1, options.processes + 1):
        row = extract(images, folder / f"devices{number}", ["--devices", ",".join([device] * number)])
        yield {"task": "processes", "case": f"--devices, {number}", "processes": number, **row}
    for number in range(1, options.processes + 1 if device == "cpu" else 2):
        arguments = ["--dask", f"local:{number}", "--device", options.device, "--batch-size", str(options.task)]
        if device == "cpu":
            arguments += ["--num-threads", str(max(cores // number, 1))]
        row = extract(images, folder / f"dask{number}", arguments)
        yield {"task": "processes", "case": f"--dask local:{number}", "processes": number, **row}


def resume(images: Path, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure a run on a finished result, and one that resumes after a kill half way."""
    for sink in ("HDF5", "npz"):
        output = folder / OPENCV / SINKS[sink]  # of `sinks`
        yield {"task": "resume", "case": f"{sink}, all done", **extract(images, output, ["--device", options.device])}
    log, output = folder / "killed.jsonl", folder / "killed.h5"
    half = len(list(images.iterdir())) // 2
    begun = time.perf_counter()
    process = start(images, output, ["--device", options.device], log)
    while process.poll() is None and sum(event["event"] == "image" for event in events(log)) < half:
        time.sleep(SAMPLE_S)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    seconds = time.perf_counter() - begun
    reported = sum(event["event"] == "image" for event in events(log))
    row = extract(images, output, ["--device", options.device])
    lost = reported - row["skipped"]
    yield {"task": "resume", "case": "HDF5, killed half way", **row, "seconds_before": seconds, "computed_twice": lost}


def memory(images: Path, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Sample the resident memory of runs over many small images."""
    for sink in options.memory_sinks:
        log, output = folder / f"{sink}.jsonl", folder / f"many-{SINKS[sink]}"
        begun, reported = time.perf_counter(), 0
        samples: list[tuple[int, int]] = []  # images, bytes
        log.touch()
        with log.open("rb") as growing:
            process = start(images, output, ["--device", options.device, "--n-octaves", "2"], log)
            while process.poll() is None:
                time.sleep(SAMPLE_S)
                reported += growing.read().count(b'"event": "image"')
                samples.append((reported, resident(process.pid)))
        seconds = time.perf_counter() - begun
        _, stderr = process.communicate()
        if process.returncode:
            sys.exit(f"gpusift extract failed with {process.returncode}: {stderr.decode()}")
        row = measured(json.loads(log.read_bytes().rsplit(b"\n", 2)[-2]), seconds)
        yield {"task": "memory", "case": sink, **row, "output_bytes": size_of(output), **growth(samples)}


def growth(samples: list[tuple[int, int]]) -> dict[str, Any]:
    """Return the memory at each tenth of a run, and its growth over the last nine tenths, bytes an image."""
    kept = [sample for sample in samples if all(sample)]
    if not kept:
        return {"resident_bytes": [], "growth_bytes_per_image": None}
    images, size = np.array(kept).T
    tenths = [int(size[np.searchsorted(images, images[-1] * tenth / 10)]) for tenth in range(1, 11)]
    late = images >= images[-1] / 10
    slope = np.polyfit(images[late], size[late], 1)[0] if late.sum() > 2 else None
    return {"resident_bytes": tenths, "growth_bytes_per_image": None if slope is None else float(slope)}


def summary(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    share = ", ".join(f"{part} {value:.0%}" for part, value in row["share"].items())
    line = f"{row['task']:9} {row['case']:22} {row['images']:6d} images in {row['seconds']:6.1f} s, {share}"
    if row.get("resident_bytes"):
        first, last = (row["resident_bytes"][i] / 2**20 for i in (0, -1))
        line += f"; resident {first:.0f} MiB at a tenth, {last:.0f} MiB at the end"
    return line


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    tasks = ("sinks", "processes", "resume", "memory")
    parser.add_argument("--images", type=int, default=64, help="photographs of 1080 x 1920 pixels")
    parser.add_argument("--memory", type=int, default=100_000, help="small images of the task memory")
    parser.add_argument("--memory-sinks", default="HDF5,Parquet", help="comma-separated")
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="maximum number of processes"
    )
    parser.add_argument("--task", type=int, default=4, help="images of a Dask task")
    parser.add_argument("--tasks", default=",".join(tasks), help="comma-separated; resume comes after sinks")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--decoders", default=OPENCV, help=f"of the task sinks, comma-separated: {','.join(DECODERS)}")
    parser.add_argument("--folder", type=Path, help="temporary folder for images and outputs, on a fast disk")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--quick", action="store_true", help="few and small images, for a first look")
    options = parser.parse_args()
    for name in ("tasks", "memory_sinks", "decoders"):
        setattr(options, name, getattr(options, name).split(","))
    lists = (
        ("tasks", options.tasks, tasks),
        ("memory-sinks", options.memory_sinks, SINKS),
        ("decoders", options.decoders, DECODERS),
    )
    for name, chosen, possible in lists:
        unknown = sorted(set(chosen) - set(possible))
        if unknown:
            parser.error(f"--{name} must be among {', '.join(possible)}; got {unknown[0]!r}")
    options.shape = QUICK_SHAPE if options.quick else SHAPE
    if options.quick:
        options.images, options.memory = min(options.images, 4), min(options.memory, 1000)
    return options


def main() -> None:
    """Measure, and append the rows to batch.jsonl."""
    options = arguments()
    common = rows.provenance(standard=not options.quick) | {"device": options.device, "decoder": OPENCV}
    path = options.out / "batch.jsonl"
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_photographs(folder / "photographs", options.images, options.shape)
        if "memory" in options.tasks:
            write_small(folder / "small", options.memory)
        for task in filter(lambda task: task.__name__ in options.tasks, (sinks, processes, resume, memory)):
            images, shape = ("small", [SMALL, SMALL]) if task is memory else ("photographs", list(options.shape))
            for row in task(folder / images, folder, options):
                say(summary(row))
                rows.append(path, {**common, "shape": shape, **row})
    say(f"rows: {path}")


if __name__ == "__main__":
    main()
