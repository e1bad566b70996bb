"""The campaign of faults: system calls that fail on purpose, the comparison of outputs, and a short campaign."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.jobs import outputs
from bench.jobs.fault_calls import CallFault, Calls
from bench.jobs.fault_runs import Ended
from bench.jobs.faults import Reference
from tests.support.checkout import run_module

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")

WRITES = """
import os, sys
for name in sys.argv[1:]:
    file = os.open(name, os.O_CREAT | os.O_WRONLY)
    for _ in range(4):
        try:
            print(os.write(file, b"12345678"), end=" ")
        except OSError as error:
            print(error.errno, end=" ")
    try:
        os.fsync(file)
        os.rename(name, name + ".renamed")
    except OSError as error:
        print(error.errno, end=" ")
"""


def written(calls, *paths):
    command = [sys.executable, "-c", WRITES, *map(str, paths)]
    done = subprocess.run(command, env={**os.environ, **calls.environment()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))


@needs_compiler
@pytest.mark.parametrize(
    ("fault", "results"),
    [
        (None, [8, 8, 8, 8]),
        (CallFault("write", 2, errno.EIO), [8, errno.EIO, 8, 8]),
        (CallFault("write", 2, errno.ENOSPC, lasting=True), [8] + [errno.ENOSPC] * 3),
        (CallFault("write", 3, errno.ENOSPC, lasting=True, partial=True), [8, 8, 4, errno.ENOSPC]),
        (CallFault("write", 2, errno.EINTR), [8, 8, 8, 8]),  # Python repeats it
        (CallFault("fsync", 1, errno.EIO), [8, 8, 8, 8, errno.EIO]),
        (CallFault("rename", 1, errno.EIO), [8, 8, 8, 8, errno.EIO]),
        (CallFault("rename", 2, errno.EIO), [8, 8, 8, 8]),
        (CallFault("open", 2, errno.EMFILE), [8, 8, 8, 8]),
    ],
    ids=str,
)
def test_the_nth_call_fails_and_only_in_the_folder(tmp_path, fault, results):
    (tmp_path / "in").mkdir()
    calls = Calls(tmp_path, tmp_path / "in")
    calls.arm(fault)
    assert written(calls, tmp_path / "in" / "a") == results
    assert calls.counts["write"] == 4 + (fault is not None and fault.error == errno.EINTR)
    assert calls.counts["fsync"] == calls.counts["open"] == 1
    assert (calls.fired > 0) == (fault is not None and fault.number <= calls.counts[fault.call])
    calls.arm(fault)
    assert written(calls, tmp_path / "b") == [8, 8, 8, 8]
    assert calls.fired == calls.counts["write"] == 0


def save(folder: Path, **images: int) -> Path:
    for name, value in images.items():
        np.savez(folder / f"{name}.png.npz", descriptors=np.full(4, value))
    return folder


def test_differences_are_named(tmp_path):
    whole, other = tmp_path / "whole" / "npz", tmp_path / "other" / "npz"
    whole.mkdir(parents=True)
    save(whole, a=1, b=2, c=3)
    (whole / "failures.jsonl").write_text('{"name": "d.png", "reason": "broken"}\n')
    images, doubled = outputs.contents(whole)
    assert list(images) == ["a.png", "b.png", "c.png", "d.png"]
    assert doubled == []
    reference = Reference(images, outputs.files(whole), Ended(0, {}, ""), {}, 0)
    assert reference.differences(whole) == []

    shutil.copytree(whole.parent, other.parent)
    (other / "a.png.npz").unlink()
    save(other, b=7)
    (other / ".c.png.npz.tmp").touch()
    (other / "failures.jsonl").write_text('{"name": "c.png", "reason": "the disk is full"}\n')
    assert reference.differences(other) == [
        "lost: 2: ['a.png', 'd.png']",
        "doubled: 1: ['c.png']",
        "different: 2: ['b.png', 'c.png']",
        "files left: 1: ['npz/.c.png.npz.tmp']",
    ]


def test_an_image_with_two_rows_is_doubled(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the package is missing: pip install pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "features.parquet"
    folder.mkdir()
    for number in (0, 1):
        table = pyarrow.table({"name": ["a.png", f"{number}.png"], "descriptors": [b"12", b"34"]})
        parquet.write_table(table, folder / f"part-{number}.parquet")
    images, doubled = outputs.contents(folder)
    assert sorted(images) == ["0.png", "1.png", "a.png"]
    assert doubled == ["a.png"]


@needs_compiler
@pytest.mark.parametrize(("ways", "trials"), [("one process", 4), ("devices", 1)])
def test_short_campaign(tmp_path, ways, trials):
    pytest.importorskip("pyarrow", reason="the package is missing: pip install pyarrow")
    pytest.importorskip("pycolmap", reason="the package is missing: pip install pycolmap")
    done = run_module("bench.jobs.faults", "--trials", trials, "--seed", 1, "--ways", ways, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads((tmp_path / "faults.jsonl").read_text())
    assert row["trials"] == trials
    assert row["findings"] == []
    assert row["kills"] + row["faults"] > 0


def test_unknown_faults_are_refused(tmp_path):
    done = run_module("bench.jobs.faults", "--faults", "kill,flood", "--out", tmp_path)
    assert done.returncode == 2
    assert "--faults must be among kill, call, limit, full; got 'flood'" in done.stderr


MAKES = """
import os, sys
from pathlib import Path
import errno
from bench.jobs.fault_calls import CallFault, Control
from gpusift.sinks import open_sink
from tests.support.sink_writer import SETTINGS
folder, call, step = sys.argv[1:]
control = Control(Path(os.environ["FAULTS_CONTROL"]))
refused = 0
for number in range(1, 400, int(step)):
    path = f"{folder}/{number}.db"
    control.arm(CallFault(call, number, errno.ENOSPC, lasting=True))
    try:
        open_sink(path, SETTINGS).close()
    except OSError:
        refused += 1
    fired = control.fired
    control.arm(None)
    open_sink(path, SETTINGS).close()
    if not fired:
        break
left = [name for name in os.listdir(folder) if not name.endswith(".db")]
print(refused, *left)
"""


@needs_compiler
@pytest.mark.parametrize(("call", "step", "at_least"), [("write", 4, 12), ("unlink", 1, 4)])
def test_a_database_is_made_whole_or_not_at_all(tmp_path, call, step, at_least):
    """The call fails from any moment on: the next run makes the database, or opens a whole one, and leaves no files."""
    pytest.importorskip("pycolmap", reason="the package is missing: pip install pycolmap")
    (tmp_path / "in").mkdir()
    calls = Calls(tmp_path, tmp_path / "in")
    command = [sys.executable, "-c", MAKES, str(tmp_path / "in"), call, str(step)]
    done = subprocess.run(command, env={**os.environ, **calls.environment()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, *left = done.stdout.split()
    assert int(refused) > at_least
    assert left == []
