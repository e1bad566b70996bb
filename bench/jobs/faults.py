#!/usr/bin/env python
"""Disturb `gpusift extract`, resume it, and compare its output with that of an undisturbed run.

    python -m bench.jobs.faults [--trials 1000] [--seconds 3600] [--seed 0] [--sinks a,b] [--ways a,b] [--faults a,b]
                                [--first NUMBER] [--row-trials 50] [--folder DIR] [--out DIR]
    python -m bench.jobs.faults --every 1 [...]

A trial draws a sink and a way to run, disturbs up to six runs of one command in succession, and then runs the command
undisturbed until it has nothing to do. Then the output must have every image exactly once, with the same bytes as in an
undisturbed output, the same failures, no other files, and the command the same exit code. The disturbances:

- kill: SIGKILL of a process of the run, drawn from all of them, at a random time;
- call: the Nth write, fsync, rename, unlink, ftruncate or open in the output's folder fails with EIO, ENOSPC, EINTR,
  EMFILE, ENFILE or ENOMEM, once or from then on (by a preloaded library, which the C compiler builds);
- limit: too few file descriptors, too little memory, or a limit of a file's size;
- full: the output's file system is full (a small tmpfs; needs the right to mount).

With --every N, trials are not drawn: one after the other, each Nth call of one process to each sink fails, once with
EIO and from then on with ENOSPC, or EMFILE for an open.

No run, disturbed or not, may crash, hang, print a traceback or leave a process. A row is kept of each --row-trials
trials, so that an interrupted campaign keeps what it did; --first continues it.
"""

from __future__ import annotations

import argparse
import errno
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from bench.common import machine, photographs, rows
from bench.jobs import outputs
from bench.jobs.fault_calls import CALLS, ERRORS, ERRORS_OF_OPEN, CallFault, Calls
from bench.jobs.fault_runs import Ended, Runner

SINKS = {"HDF5": "features.h5", "COLMAP": "database.db", "Parquet": "features.parquet", "npz": "npz"}
WAYS: dict[str, tuple[str, ...]] = {
    "one process": ("--device", "cpu"),
    "devices": ("--devices", "cpu,cpu"),
    "dask": ("--dask", "local:2", "--device", "cpu", "--batch-size", "2"),
}
ONE = "one process"
WEIGHTS = {"one process": 0.85, "devices": 0.11, "dask": 0.04}  # of the ways: the others take seconds to start
FAULTS = {"kill": 0.45, "call": 0.45, "limit": 0.06, "full": 0.04}
IMAGES = 14
SHAPE = 40, 60
OPTIONS = ("--upsampling", "1", "--n-octaves", "1", "--num-threads", "1")
MOST_DISTURBED = 6  # runs of a trial
QUIET_RUNS = 4  # at the latest then a run must have nothing to do
SHOWN = 5  # names in a finding
LARGEST_DESCRIPTOR = 48
LARGEST_MEMORY = 2 << 30  # bytes beyond the process's present size


class Campaign:
    """Trials of one seed, in one folder."""

    def __init__(self, folder: Path, seed: int, sinks: list[str], ways: list[str], faults: list[str]) -> None:
        self.folder, self.seed, self.sinks, self.ways = folder, seed, sinks, ways
        self.output_folder = folder / "output"
        self.photographs = folder / "photographs"
        write_photographs(self.photographs)
        self.calls = Calls(folder, self.output_folder)
        self.runner = Runner(folder, self.calls.environment())
        self.faults = [fault for fault in faults if fault != "full" or can_mount(folder)]
        self.counts: Counter[str] = Counter()
        self.references: dict[tuple[str, str], Reference] = {}

    def trial(self, number: int) -> list[str]:
        """Run a drawn trial, and return what was wrong."""
        rng = random.Random(f"{self.seed} {number}")
        sink = rng.choice(self.sinks)
        way = rng.choices(self.ways, [WEIGHTS[way] for way in self.ways])[0]
        kinds = rng.choices(self.faults, [FAULTS[fault] for fault in self.faults], k=rng.randint(1, MOST_DISTURBED))
        return self.disturbed(sink, way, [(kind, None) for kind in kinds], rng)

    def every(self, step: int) -> Iterator[tuple[str, CallFault]]:
        """Yield the faults of each `step`-th call of one process, and their sinks."""
        for sink in self.sinks:
            for call, count in self.reference(sink, ONE).calls.items():
                for number in range(1, count + 1, step):
                    yield sink, CallFault(call, number, errno.EIO)
                    lasting = errno.EMFILE if call == "open" else errno.ENOSPC
                    yield sink, CallFault(call, number, lasting, lasting=True)

    def disturbed(
        self, sink: str, way: str, faults: Sequence[tuple[str, CallFault | None]], rng: random.Random
    ) -> list[str]:
        """Run a trial with these kinds of faults, and return what was wrong."""
        reference = self.reference(sink, way)
        wrong: list[str] = []
        done = []
        with Disk(self.output_folder) as disk:
            output = self.output_folder / SINKS[sink]
            for kind, fault in faults:
                ended, described = self.disturb(kind, fault, output, way, reference, disk, rng)
                wrong += ended.wrong
                done.append(described)
            disk.grow()
            wrong += self.resume(output, way, reference)
        self.counts[f"{sink}, {way}"] += 1
        return [f"{sink}, {way}, after {', '.join(done)}: {'; '.join(wrong)}"] if wrong else []

    def reference(self, sink: str, way: str) -> Reference:
        """Return what an undisturbed run does; it is made once."""
        if (sink, way) not in self.references:
            with Disk(self.output_folder):
                output = self.output_folder / SINKS[sink]
                self.calls.arm(None)
                ended = self.runner.run(self.arguments(output, way))
                if ended.wrong or ended.event.get("event") != "end":
                    sys.exit(f"an undisturbed run to {sink} by {way} must end, got {ended}")
                images, doubled = outputs.contents(output)
                size = sum(path.stat().st_size for path in self.output_folder.rglob("*") if path.is_file())
                made = Reference(images, outputs.files(output), ended, self.calls.counts, size)
            first = next((known for (name, _), known in self.references.items() if name == sink), made)
            if doubled or made.images != first.images:
                sys.exit(f"undisturbed runs to {sink} must have the same content in every way to run")
            self.references[sink, way] = made
        return self.references[sink, way]

    def arguments(self, output: Path, way: str) -> list[str]:
        """Return the arguments of `gpusift extract`."""
        return [str(self.photographs), "-o", str(output), *WAYS[way], *OPTIONS]

    def disturb(
        self, kind: str, fault: CallFault | None, output: Path, way: str, reference: Reference, disk: Disk,
        rng: random.Random,
    ) -> tuple[Ended, str]:  # fmt: skip
        """Run the command once with a fault, which is drawn if it is not given; return how it ended, and the fault."""
        limits: dict[int, int] = {}
        kill_at = None
        described = kind
        self.calls.arm(None)
        if kind == "kill":
            kill_at = rng.uniform(0, 1.1 * reference.ended.seconds)
        elif kind == "call":
            fault = fault or drawn_call(reference, rng)
            described = str(fault)
            self.calls.arm(fault)
        elif kind == "limit":
            limits = drawn_limit(reference, rng)
        else:
            disk.shrink(int(reference.size * rng.uniform(0.05, 1)))
        ended = self.runner.run(self.arguments(output, way), limits, kill_at, rng)
        self.counts["kills"] += ended.killed
        self.counts["faults"] += self.calls.fired > 0 if fault else kind in ("limit", "full")
        if fault and self.calls.fired:
            self.counts[f"{fault.call} {errno.errorcode[fault.error]}"] += 1
        self.calls.arm(None)
        return ended, described

    def resume(self, output: Path, way: str, reference: Reference) -> list[str]:
        """Run the command until it has nothing to do; return what is wrong then."""
        for _ in range(QUIET_RUNS):
            ended = self.runner.run(self.arguments(output, way))
            self.counts["resumed runs"] += 1
            if ended.wrong or ended.event.get("event") != "end":
                return [f"resume: {ended.wrong or ended.stderr[-300:].strip()}"]
            if ended.event["images"] == 0:
                break
        else:
            return [f"resume: not quiet after {QUIET_RUNS} runs"]
        wrong = reference.differences(output)
        if ended.code != reference.ended.code:
            wrong.append(f"exit code {ended.code}, expected {reference.ended.code}")
        return wrong


class Reference:
    """What an undisturbed run does."""

    def __init__(self, images: dict[str, str], files: set[str], ended: Ended, calls: dict[str, int], size: int) -> None:
        self.images, self.files, self.ended, self.calls, self.size = images, files, ended, calls, size

    def differences(self, output: Path) -> list[str]:
        """Return how an output differs."""
        images, doubled = outputs.contents(output)
        lost = sorted(self.images.keys() - images.keys())
        extra = sorted(images.keys() - self.images.keys())
        other = sorted(name for name in self.images.keys() & images.keys() if self.images[name] != images[name])
        left = sorted(outputs.files(output) - self.files)
        kinds = {"lost": lost, "doubled": doubled, "unexpected": extra, "different": other, "files left": left}
        return [f"{kind}: {len(names)}: {names[:SHOWN]}" for kind, names in kinds.items() if names]


class Disk:
    """The folder of an output, on a small file system of its own once it is shrunk; removed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted = False

    def __enter__(self) -> Disk:
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
        shutil.rmtree(self.folder)

    def shrink(self, size: int) -> None:
        """Limit the file system; what the output has is kept, and fits."""
        if not self.mounted:
            with tempfile.TemporaryDirectory(dir=self.folder.parent) as kept:
                shutil.copytree(self.folder, kept, dirs_exist_ok=True)
                mount(self.folder, "size=1g")
                self.mounted = True
                shutil.copytree(kept, self.folder, dirs_exist_ok=True)
        used = shutil.disk_usage(self.folder).used
        mount(self.folder, f"remount,size={used + size}")

    def grow(self) -> None:
        """Lift the limit."""
        if self.mounted:
            mount(self.folder, "remount,size=1g")


def mount(folder: Path, options: str) -> None:
    """Mount a tmpfs, or change it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "faults", str(folder)], check=True, capture_output=True)


def can_mount(folder: Path) -> bool:
    """Return whether this process may mount a file system."""
    place = folder / "mount"
    place.mkdir()
    try:
        mount(place, "size=1m")
    except (OSError, subprocess.CalledProcessError):
        print("full: skipped, as this user may not mount a file system", file=sys.stderr)
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


def drawn_call(reference: Reference, rng: random.Random) -> CallFault:
    """Return a call that fails; early ones more often, as a resumed run has fewer calls than the reference."""
    call = rng.choice([call for call in CALLS if reference.calls[call]])
    error = getattr(errno, rng.choice(ERRORS_OF_OPEN if call == "open" else ERRORS))
    lasting = error == errno.ENOSPC or (error != errno.EINTR and rng.random() < 0.5)
    number = round(reference.calls[call] ** rng.random())
    return CallFault(call, number, error, lasting, partial=lasting and rng.random() < 0.3)


def drawn_limit(reference: Reference, rng: random.Random) -> dict[int, int]:
    """Return a resource limit: of descriptors, of memory beyond the process's present size, or of a file's size."""
    limit = rng.choice((resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE))
    largest = {resource.RLIMIT_NOFILE: LARGEST_DESCRIPTOR, resource.RLIMIT_AS: LARGEST_MEMORY}
    return {limit: rng.randint(8, largest.get(limit, reference.size))}


def write_photographs(folder: Path) -> None:
    """Write small images in two folders, and a file that is none."""
    mosaic = photographs.mosaic(400, 800)
    for index in range(IMAGES):
        path = folder / ("sub" if index % 3 else ".") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        row, column = 24 * index, 50 * index
        cv2.imwrite(str(path), mosaic[row : row + SHAPE[0], column : column + SHAPE[1]])
    (folder / "empty.png").touch()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so many seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="begin with this trial")
    parser.add_argument("--every", type=int, metavar="N", help="let each Nth call of one process fail instead")
    parser.add_argument("--row-trials", type=int, default=50, metavar="N", help="keep a row of each N trials")
    parser.add_argument("--folder", type=Path, help="where photographs and outputs go meanwhile")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    for name, possible in (("sinks", SINKS), ("ways", WAYS), ("faults", FAULTS)):
        parser.add_argument(f"--{name}", default=",".join(possible), help="comma-separated")
    options = parser.parse_args()
    for name, possible in (("sinks", SINKS), ("ways", WAYS), ("faults", FAULTS)):
        setattr(options, name, getattr(options, name).split(","))
        unknown = sorted(set(getattr(options, name)) - set(possible))
        if unknown:
            parser.error(f"--{name} must be among {', '.join(possible)}; got {unknown[0]!r}")
    return options


def trials(running: Campaign, options: argparse.Namespace) -> Iterator[Callable[[], list[str]]]:
    """Yield all trials of a campaign, from its first."""
    rng = random.Random(options.seed)
    if options.every:
        for sink, fault in running.every(options.every):
            yield partial(running.disturbed, sink, ONE, [("call", fault)], rng)
        return
    for number in range(options.first + options.trials):
        yield partial(running.trial, number)


def campaign(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Run the trials, and yield a row of each `options.row_trials`."""
    until = time.monotonic() + options.seconds
    running = Campaign(folder, options.seed, options.sinks, options.ways, options.faults)
    left = islice(enumerate(trials(running, options)), options.first, None)
    while time.monotonic() < until and (batch := list(islice(left, options.row_trials))):
        begun = time.monotonic()
        running.counts.clear()
        findings = []
        done = 0
        for number, trial in batch:
            if time.monotonic() > until:
                break
            wrong = [each.replace(f"{folder}/", "") for each in trial()]
            done += 1
            if wrong:
                findings.append({"number": number, "wrong": wrong})
                rows.say(f"{number}: {'; '.join(wrong)}")
        yield {
            "seed": options.seed,
            "every": options.every,
            "first": batch[0][0],
            "trials": done,
            **dict(sorted(running.counts.items())),
            "findings": findings,
            "seconds": time.monotonic() - begun,
        }


def main() -> None:
    """Run a campaign, keep its rows, and fail if something was wrong."""
    options = arguments()
    path = options.out / "faults.jsonl"
    total: Counter[str] = Counter()
    common = rows.provenance()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for row in campaign(options, Path(name)):
            rows.append(path, {**common, **row})
            total.update({key: row.get(key, 0) for key in ("trials", "kills", "faults", "seconds")})
            total["findings"] += len(row["findings"])
            rows.say(
                f"{total['trials']} trials, {total['kills']} kills, {total['faults']} faults, "
                f"{total['findings']} with findings, {total['seconds']:.0f} s; rows: {path}"
            )
    sys.exit(bool(total["findings"]))


if __name__ == "__main__":
    main()
