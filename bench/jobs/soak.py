#!/usr/bin/env python
"""Disturb the workers of a Dask cluster while gpusift extracts, and compare the output with an undisturbed one.

    python -m bench.jobs.soak [--signals 200] [--seconds 3600] [--seed 0] [--images 300] [--workers 3] [--out DIR]

A round starts a cluster of worker processes. At random times, random workers get SIGKILL, SIGSTOP or SIGCONT; the
scheduler takes a worker that is silent for some seconds for lost, and runs its tasks elsewhere. The first run of a
round ends early, by an error of its caller, and leaves its tasks to the cluster. The second run resumes it, while tasks
of the first may still be running. The rounds take turns: one writer (to HDF5, COLMAP, Parquet or npz) or a file of each
task ("parts"), and a caller that is fast or slow to take results.

When the second run has ended, all stopped workers continue, so that late tasks may end too. Then the output must have
every image exactly once, with the same bytes as in an undisturbed output, and no file that was not accepted. An image
that is recorded as failed, because so many workers died with it, is tried again and counted. One row is kept for each
round.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from bench.common import machine, photographs, rows
from bench.jobs import outputs

WRITERS = {"HDF5": "features.h5", "COLMAP": "database.db", "Parquet": "features.parquet", "npz": "npz"}
PARTS, PARTS_FOLDER = "parts", "parts.parquet"
CALLERS = {"fast": 0.0, "slow": 0.01}  # seconds that the caller takes for each event
SHAPE = 60, 80
PARAMETERS = {"device": "cpu", "upsampling": 1, "n_octaves": 1, "num_threads": 1}
BATCH_SIZE = 4
SIGNALS = {signal.SIGKILL: 0.25, signal.SIGSTOP: 0.45, signal.SIGCONT: 0.3}
MEAN_SECONDS = 0.4  # between two signals
LATE_SECONDS = 3.0  # in which late tasks may end
SHOWN = 5  # names in a finding

# Of Dask: stopped workers are taken for lost within a run.
SETTINGS = {
    "distributed.scheduler.worker-ttl": "6s",
    "distributed.comm.timeouts.connect": "5s",
    "distributed.comm.timeouts.tcp": "12s",
}


class AbandonedRunError(Exception):
    """Ends the first run of a round."""


class Workers(threading.Thread):
    """Worker processes of a cluster: each that ends is started again. Meanwhile they get signals, until `end`."""

    def __init__(self, address: str, number: int, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._address, self._rng = address, rng
        self._ended = threading.Event()
        self._stopped: set[int] = set()
        self.sent: Counter[str] = Counter()
        self.processes = [self._start_worker() for _ in range(number)]

    def run(self) -> None:
        """Send signals and start workers; see `threading.Thread`."""
        while not self._ended.wait(self._rng.expovariate(1 / MEAN_SECONDS)):
            self._start_ended()
            kind = self._rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
            pids = sorted(self._stopped) if kind == signal.SIGCONT else [each.pid for each in self.processes]
            if pids:
                self._send(self._rng.choice(pids), kind)

    def settle(self) -> None:
        """Send no more signals, and continue all workers."""
        self._ended.set()
        self.join()
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._start_ended()

    def end(self) -> None:
        """Kill all workers."""
        for process in self.processes:
            process.kill()
            process.wait()

    def _start_worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self._address, "--no-nanny", "--nthreads", "1"]
        return subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _start_ended(self) -> None:
        for index, process in enumerate(self.processes):
            if process.poll() is not None:
                self._stopped.discard(process.pid)
                self.processes[index] = self._start_worker()

    def _send(self, pid: int, kind: signal.Signals) -> None:
        os.kill(pid, kind)  # a process that has ended keeps its number until `poll`
        self.sent[kind.name] += 1
        (self._stopped.add if kind == signal.SIGSTOP else self._stopped.discard)(pid)


class Soak:
    """Rounds of one seed, in one folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.photographs = folder / "photographs"
        write_photographs(self.photographs, options.images)
        self.expected: dict[str, dict[str, str]] = {}

    def round(self, number: int) -> dict[str, Any]:
        """Run a round, and return its row."""
        rng = random.Random(f"{self.options.seed} {number}")
        caller = list(CALLERS)[number // 2 % 2]
        writer = PARTS if number % 2 else list(WRITERS)[number // 2 % len(WRITERS)]
        output = self.folder / "output" / (PARTS_FOLDER if writer == PARTS else WRITERS[writer])
        expected = self.undisturbed(writer)
        begun = time.monotonic()
        with cluster_of(self.options.workers, rng) as (workers, client):
            workers.start()
            try:
                abandoned = self.abandoned(client, output, CALLERS[caller], rng)
                summary = self.extract(client, output, CALLERS[caller])
            finally:
                workers.settle()
            time.sleep(LATE_SECONDS)
            failed = len(list(outputs.failures(output)))
            if failed:
                self.extract(client, output, 0.0, retry_failed=True)
        wrong = differences(output, expected)
        shutil.rmtree(output.parent)
        return {
            "round": number,
            "writer": writer,
            "caller": caller,
            "images": self.options.images,
            "images_of_abandoned_run": abandoned,
            "images_of_last_run": summary.images,
            **workers.sent,
            "recorded_failures": failed,
            "findings": wrong,
            "seconds": time.monotonic() - begun,
        }

    def abandoned(self, client: Any, output: Path, pause: float, rng: random.Random) -> int:
        """Begin a run that its caller ends by an error, and return how many images it had."""
        from gpusift.stream import RunError

        most = rng.randrange(self.options.images // 2)

        def on_image(number: int) -> None:
            if number > most:
                raise AbandonedRunError

        try:
            self.extract(client, output, pause, on_image)
        except RunError as error:
            if not isinstance(error.__cause__, AbandonedRunError):
                raise
            return error.summary.images
        raise AssertionError("the run must end by the error of its caller")

    def undisturbed(self, writer: str) -> dict[str, str]:
        """Return the hashes of an undisturbed run's images; it is made once."""
        kind = "Parquet" if writer == PARTS else writer
        if kind not in self.expected:
            from gpusift.stream import extract

            output = self.folder / "undisturbed" / WRITERS[kind]
            extract(self.photographs, output, PARAMETERS)
            self.expected[kind], doubled = outputs.contents(output)
            if doubled or len(self.expected[kind]) != self.options.images:
                sys.exit(f"an undisturbed run must have all images once, got {len(self.expected[kind])}")
        return self.expected[kind]

    def extract(
        self, client: Any, output: Path, pause: float, on_image: Any = lambda number: None, retry_failed: bool = False
    ) -> Any:
        """Run `gpusift.distributed.extract`; `on_image` gets the number of each image."""
        from gpusift.distributed import extract

        images = 0

        def on_event(event: Mapping[str, Any]) -> None:
            nonlocal images
            time.sleep(pause)
            if event["event"] == "image":
                images += 1
                on_image(images)

        target = output.as_uri() if output.name == PARTS_FOLDER else output
        return extract(
            self.photographs, client, target, PARAMETERS,
            batch_size=BATCH_SIZE, on_event=on_event, retry_failed=retry_failed,
        )  # fmt: skip


@contextmanager
def cluster_of(n_workers: int, rng: random.Random) -> Iterator[tuple[Workers, Any]]:
    """Yield the workers of a cluster on this machine, and its client."""
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set(SETTINGS),
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster, direct_to_workers=True) as client,
    ):
        workers = Workers(cluster.scheduler_address, n_workers, rng)
        try:
            yield workers, client
        finally:
            workers.end()


def differences(output: Path, expected: Mapping[str, str]) -> list[str]:
    """Return how an output differs from an undisturbed one."""
    images, doubled = outputs.contents(output)
    lost = sorted(expected.keys() - images.keys())
    extra = sorted(images.keys() - expected.keys())
    other = sorted(name for name in expected.keys() & images.keys() if expected[name] != images[name])
    left = sorted(path.name for path in output.parent.rglob("*") if is_left(path))
    kinds = {"lost": lost, "doubled": doubled, "unexpected": extra, "different": other, "files left": left}
    return [f"{kind}: {len(names)}: {names[:SHOWN]}" for kind, names in kinds.items() if names]


def is_left(path: Path) -> bool:
    """Whether a file is one that only a run that goes on has."""
    return path.suffix in (".tmp", ".lock") or path.name.startswith(("_pending-", "_journal-", ".gpusift"))


def write_photographs(folder: Path, number: int) -> None:
    """Write small images."""
    folder.mkdir(parents=True)
    mosaic = photographs.mosaic(800, 1200)
    rng = random.Random(0)
    for index in range(number):
        row, column = rng.randrange(800 - SHAPE[0]), rng.randrange(1200 - SHAPE[1])
        cv2.imwrite(str(folder / f"{index:04}.png"), mosaic[row : row + SHAPE[0], column : column + SHAPE[1]])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--signals", type=int, default=200, help="begin no round after so many signals")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so many seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where photographs and outputs go meanwhile")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    return parser.parse_args()


def main() -> None:
    """Run rounds, keep their rows, and fail if something was wrong."""
    options = arguments()
    path = options.out / "soak.jsonl"
    common = rows.provenance()
    sent = findings = number = 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        soak = Soak(Path(name), options)
        while sent < options.signals and time.monotonic() - begun < options.seconds:
            row = soak.round(number)
            rows.append(path, {**common, "seed": options.seed, **row})
            sent += sum(row.get(kind.name, 0) for kind in SIGNALS)
            findings += bool(row["findings"])
            number += 1
            rows.say(f"{number} rounds, {sent} signals, {findings} with findings: {row['findings']}; rows: {path}")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
