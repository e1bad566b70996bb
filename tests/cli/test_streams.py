"""Output streams that are full or closed, and outputs whose suffix is no format's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from gpusift.sinks import format_of
from tests.support.command import run
from tests.support.pictures import blobs

COMMAND = [sys.executable, "-m", "gpusift"]


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), blobs(0)[index:])
    monkeypatch.chdir(tmp_path)
    return folder


COMMANDS = [
    ("extract", "photos", "-o", "f.h5"),
    ("match", "photos/0.png", "photos/1.png", "-o", "m.png"),
    ("show", "photos/0.png", "-o", "s.png"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_that_is_closed(photos, command, stream):
    done = subprocess.run([*COMMAND, *command, "--device", "cpu"], preexec_fn=lambda: os.close(stream))
    assert done.returncode == 0
    assert Path(command[-1]).exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_stdout_on_a_full_disk(photos, command):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *command, "--device", "cpu"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "cannot print on stdout: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert Path(command[-1]).exists()


def test_a_list_from_a_closed_stdin_is_empty(photos):
    command = [*COMMAND, "extract", "-", "-o", "f.h5", "--device", "cpu"]
    done = subprocess.run(command, preexec_fn=lambda: os.close(0), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: no image found in -\n")


def test_stderr_on_a_full_disk(photos):
    (photos / "broken.png").write_bytes(b"none")
    command = [*COMMAND, "extract", "photos", "-o", "f.h5", "--device", "cpu", "--log-json", "log"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=full)
    assert done.returncode == 3
    end = json.loads(Path("log").read_text().splitlines()[-1])
    assert (end["event"], end["images"], end["failures"]) == ("end", 2, 1)


@pytest.mark.parametrize("log", ["/dev/full", "-"])
def test_a_log_on_a_full_disk_ends_the_run(photos, log):
    command = [*COMMAND, "extract", "photos", "-o", "f.h5", "--device", "cpu", "--log-json", log]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, f"Error: cannot write {log}: No space left on device\n")


@pytest.mark.parametrize("free", [200 << 20, 600 << 20])
def test_too_small_an_address_space_is_refused(photos, free):
    """Below some size OpenCV crashes when it is imported."""
    code = (
        "import resource, sys; pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv.pop(1)),) * 2)\n"
        "from gpusift.cli import main; main()"
    )
    command = [sys.executable, "-c", code, str(free), "extract", "photos", "-o", "f.h5", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: the limit of the address space must leave 1024 MiB .* \(ulimit -v\)\n", done.stderr)
    assert not Path("f.h5").exists()


@pytest.mark.parametrize("output", ["f.csv", "f.npz", "f.pq", "f.JSON", "a/b.parq", "f.sqlite"])
def test_an_unknown_suffix_is_refused_with_what_is_possible(photos, output):
    result = run("extract", photos, "-o", output, "--device", "cpu")
    assert result.exit_code == 1
    assert "output must end in one of .h5, .hdf5, .db, .parquet, or be a folder without a suffix" in result.stderr
    assert f"npz:{output} is a folder of that name" in result.stderr
    assert not Path(output).exists()


@pytest.mark.parametrize(
    ("output", "name"),
    [
        *(("F.H5", "hdf5"), ("F.HDF5", "hdf5"), ("F.Db", "colmap"), ("F.PARQUET", "parquet"), ("f.csv/", "npz")),
        *(("npz:f.csv", "npz"), ("hdf5:f", "hdf5"), ("f.2026", "npz"), ("2026.05.01", "npz"), ("folder.d", "npz")),
    ],
)
def test_formats_of_outputs(tmp_path, monkeypatch, output, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.d").mkdir()
    assert format_of(output)[0].name == name
