#!/usr/bin/env python
"""Test and measure on a GPU, the most valuable step first; rows are kept if the run is cut short.

    python -m bench.gpu [--seconds 900] [--data DIR] [--out DIR] [--list] [--only NAME]

Each step is a command of its own. When it ends, a row with its exit code and seconds is appended to `gpu.jsonl`, and
its output is in `<step>.log` while it runs. Measurements append their own rows to the same folder as they are made. A
step that fails or takes too long does not keep the next one from running; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bench.common import machine, photographs, rows

LEAST_SECONDS = 5  # a step is not begun if less is left
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


class Step(NamedTuple):
    """A command: its name, its arguments for Python, and the seconds after which it is ended."""

    name: str
    arguments: tuple[str, ...]
    limit: float


def steps(out: Path, data: Path | None) -> list[Step]:
    """Return all steps, the most valuable first."""
    rows_to, images = ("--out", os.fspath(out)), ("--data", os.fspath(data)) if data else ()
    return [
        Step("check", ("-m", "gpusift", "info", "--check"), 120),
        Step("hashes", (*PYTEST, "-m", "gpu", "tests/test_same_bytes.py"), 180),
        Step("first", ("-m", "bench.kernels.first", *rows_to), 180),
        Step("order", (*PYTEST, "-m", "gpu", "tests/devices", "tests/pipeline"), 600),
        Step("stages", (*PYTEST, "-m", "gpu", "tests/stages", "tests/test_conformance.py"), 900),
        Step("speed", ("-m", "bench.speed.run", "--quick", *images, *rows_to), 600),
        Step("shapes", ("-m", "bench.kernels.shapes"), 300),
        Step("roofline", ("-m", "bench.kernels.roofline", "--batch", "16"), 300),
        Step("timeline", ("-m", "bench.jobs.timeline", "--device", "cuda", *rows_to), 300),
        Step("tests", (*PYTEST, "-m", "gpu"), 3600),
        Step("bench", ("-m", "bench.speed.run", *images, *rows_to), 3600),
        Step("peers", ("-m", "bench.peers.run", *images, *rows_to), 7200),
    ]


def run(several: Sequence[Step], out: Path, seconds: float, common: dict[str, Any]) -> bool:
    """Run steps until the time is over; return whether all of them were run and succeeded.

    Parameters
    ----------
    several : sequence of Step
        In their order.
    out : Path
        Folder of the rows and logs.
    seconds : float
        For all steps together.
    common : dict
        Keys of every row.
    """
    out.mkdir(parents=True, exist_ok=True)
    end, is_sound = time.monotonic() + seconds, True
    for step in several:
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            row: dict[str, Any] = {"skipped": f"{max(left, 0):.0f} of {seconds:.0f} seconds are left"}
        else:
            rows.say(f"{step.name}: python {' '.join(step.arguments)}")
            row = _run(step, out / f"{step.name}.log", min(step.limit, left))
        is_sound &= row.get("exit_code") == 0
        rows.append(out / "gpu.jsonl", {**common, "step": step.name, "command": list(step.arguments), **row})
        rows.say(f"{step.name}: {row.get('skipped') or _shown(row)}")
    return is_sound


def _run(step: Step, log: Path, limit: float) -> dict[str, Any]:
    """Run a step in a session of its own, which is ended after so many seconds; what it prints goes to the log."""
    begun = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *step.arguments], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        exit_code: int | None = None
        try:
            exit_code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if exit_code is None:  # also when this process is interrupted
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    return {"exit_code": exit_code, "seconds": round(time.monotonic() - begun, 1), "last_line": "".join(last)}


def _shown(row: dict[str, Any]) -> str:
    ended = "took too long" if row["exit_code"] is None else f"exit code {row['exit_code']}"
    return f"{ended}, {row['seconds']} s: {row['last_line']}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps; exit code 1 if one failed or was not run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=24 * 3600, help="time for all steps")
    photographs.add_data_option(parser)
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "gpu", help="folder of the rows and logs")
    parser.add_argument("--only", action="append", help="run this step; may be given several times")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    options = parser.parse_args(argv)
    several = steps(options.out, options.data)
    unknown = set(options.only or ()) - {step.name for step in several}
    if unknown:
        parser.error(f"--only must be among {', '.join(step.name for step in several)}; got {min(unknown)!r}")
    several = [step for step in several if not options.only or step.name in options.only]
    if options.list:
        for step in several:
            print(f"{step.name:10} at most {step.limit:5.0f} s: python {' '.join(step.arguments)}")
        return
    if not run(several, options.out, options.seconds, rows.provenance()):
        sys.exit(1)


if __name__ == "__main__":
    main()
