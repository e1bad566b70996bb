"""Runs of `gpusift extract` to be disturbed: each forked from a process with all imports, in its own session."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from bench.common.processes import environment

IMPORTS = ("bench.jobs.fault_runs", "gpusift.cli.extract", "cv2", "h5py", "pyarrow.parquet", "distributed")
COMMIT_SECONDS = 0.01  # commits as often as possible: each is a place to fail
LONGEST = 180.0  # seconds: a run that takes longer hangs
GRACE = 20.0  # seconds in which the processes of a run must end after it
POLL_SECONDS = 0.01
MOST_SHOWN = 6000  # characters of the messages of a run in which something is wrong


@dataclass
class Ended:
    """A run that has ended.

    Attributes
    ----------
    code : int
        The exit code; -N for signal N.
    event : dict
        Its last event: of a completed run the summary.
    stderr : str
        Its messages.
    killed : bool
        One of its processes was killed here.
    wrong : list of str
        What no run may do: hang, leave processes, print a traceback, or end by a signal that was not sent here.
    """

    code: int
    event: dict[str, Any]
    stderr: str
    killed: bool = False
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def work(arguments: Sequence[str], log: Path, limits: Mapping[int, int]) -> None:
    """Run the command in this process, in a session of its own, its output in files."""
    os.setsid()
    for stream, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(log.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, stream)
        os.close(file)
    from gpusift import stream as gpusift_stream
    from gpusift.cli import main

    gpusift_stream.COMMIT_SECONDS = COMMIT_SECONDS
    faulthandler.enable()  # SIGABRT to a run that hangs prints where it is
    os.environ["PYTHONFAULTHANDLER"] = "1"
    os.environ["DASK_LOGGING__DISTRIBUTED"] = "critical"  # workers log a traceback if the scheduler ends before them
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in limits.items():
        extra = _address_space() if limit == resource.RLIMIT_AS else 0
        resource.setrlimit(limit, (value + extra, value + extra))
    sys.argv = ["gpusift"]
    main(["extract", *arguments, "--log-json", str(log)])


class Runner:
    """Starts runs, by a process that has imported all modules and preloads a library."""

    def __init__(self, folder: Path, preloaded: Mapping[str, str]) -> None:
        self.folder = folder
        self.started = 0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(IMPORTS))
        self.preloaded = dict(preloaded)

    def run(
        self, arguments: Sequence[str], limits: Mapping[int, int] | None = None, kill_at: float | None = None,
        rng: Random | None = None,
    ) -> Ended:  # fmt: skip
        """Run the command to its end.

        Parameters
        ----------
        arguments : sequence of str
            Of `gpusift extract`.
        limits : mapping, optional
            Resource limits, by `resource.RLIMIT_*`; that of the address space is added to its present size.
        kill_at : float, optional
            Seconds after which a process of the run, drawn by `rng`, is killed.
        rng : Random, optional
        """
        self.started += 1
        log = self.folder / f"{self.started}.jsonl"
        process = self.context.Process(target=work, args=(arguments, log, limits or {}))
        with environment(self.preloaded):
            process.start()
        begun = time.monotonic()
        killed = kill_at is not None and self._kill(process, begun + kill_at, rng or Random(0))
        process.join(max(LONGEST - (time.monotonic() - begun), 0))
        ended = Ended(0, {}, "", killed, time.monotonic() - begun)
        if process.is_alive():
            ended.wrong.append(f"hang: it runs for over {LONGEST:g} s")
            for pid in members(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGABRT)
            process.join(GRACE)
            process.kill()
            process.join()
        ended.code = process.exitcode
        self._end_session(process.pid, ended)
        self._read(log, ended)
        return ended

    def _kill(self, process: Any, when: float, rng: Random) -> bool:
        while time.monotonic() < when:
            if not process.is_alive():
                return False
            time.sleep(POLL_SECONDS)
        victims = members(process.pid) or [process.pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(victims), signal.SIGKILL)
            return True
        return False

    def _end_session(self, session: int, ended: Ended) -> None:
        until = time.monotonic() + GRACE
        while (left := members(session)) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        if left:
            ended.wrong.append(f"{len(left)} processes left")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _read(self, log: Path, ended: Ended) -> None:
        for suffix in (".stdout", ".stderr"):
            path = log.with_suffix(suffix)
            if path.exists():
                ended.stderr += path.read_text(errors="backslashreplace")
                path.unlink()
        if log.exists():
            lines = log.read_text().split("\n")[:-1]
            ended.event = json.loads(lines[-1]) if lines else {}
            log.unlink()
        if ended.code < 0 and not ended.killed and not ended.wrong:
            ended.wrong.append(f"crash: {signal.Signals(-ended.code).name}")
        if "Traceback (most recent call last)" in ended.stderr and not ended.killed:
            ended.wrong.append(f"traceback: {ended.stderr.strip().splitlines()[-1]}")
        if ended.wrong:
            print(ended.stderr[-MOST_SHOWN:], file=sys.stderr, flush=True)


def members(session: int) -> list[int]:
    """Return the processes of a session, without those that have ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its_session) == session and state != "Z":
                    found.append(int(entry.name))
    return sorted(found)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
