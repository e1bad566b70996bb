"""`gpusift extract` stopped in every way, for real: what is done stays, and the same command does the rest, once."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from gpusift import npz, parquet
from gpusift.cli.job import IMAGES_FAILED
from gpusift.sinks import failures
from tests.support.same_bytes import synthetic

N_IMAGES = 60
KILLS = 2
SINKS = ("out", "out.h5", "out.db", "out.parquet")
OPTIONS = ("--upsampling", "1", "--n-octaves", "1", "--log-json", "-")

# Commits come as often as they can; and Ctrl-C is heard also where the tests run in the background of a shell.
CODE = """
import signal, sys
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and "IGNORED" not in sys.argv[-1]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
from gpusift import stream
stream.COMMIT_SECONDS = 0.01
from gpusift.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder with the folder `photos`; made the current one by `command`."""
    folder = tmp_path_factory.mktemp("interrupted")
    for index in range(N_IMAGES):
        path = folder / "photos" / ("sub" if index % 3 else ".") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), synthetic(40 + index % 7, 50, seed=index))
    (folder / "photos" / "empty.png").touch()
    (folder / "extract.py").write_text(CODE)
    return folder


@pytest.fixture(scope="module")
def expected(photos) -> Callable[[str], dict]:
    """What an uninterrupted run writes to a sink."""

    @cache
    def whole(sink: str) -> dict:
        assert end(start(photos, "photos", "-o", f"whole-{sink}"))[0]["images"] == N_IMAGES
        return contents(photos / f"whole-{sink}")

    return whole


def start(photos: Path, *arguments: str, **how) -> subprocess.Popen:
    command = [sys.executable, photos / "extract.py", "extract", *OPTIONS, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=photos, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **how)


def events(process: subprocess.Popen, kind: str, number: int) -> list[dict]:
    """Wait for so many events of a kind; fewer if the process ends."""
    found: list[dict] = []
    while len(found) < number and (line := process.stdout.readline()):
        event = json.loads(line)
        found += [event] * (event["event"] == kind)
    return found


def end(process: subprocess.Popen) -> tuple[dict, str]:
    """Let a process come to its end; return its last event, and what it said."""
    stdout, stderr = process.communicate(timeout=60)
    return json.loads(stdout.splitlines()[-1]), stderr


def contents(sink: Path) -> dict:
    """All that a sink holds: a name -> bytes; and the failures, name -> reason."""
    if sink.suffix == ".h5":
        found = {}
        with h5py.File(sink) as file:
            file.visititems(lambda name, it: found.update({name: it[()].tobytes()} if hasattr(it, "shape") else {}))
        beside = sink.with_name(f"{sink.name}.failures.jsonl")
    elif sink.suffix == ".db":
        found = database(sink)
        beside = sink.with_name(f"{sink.name}.failures.jsonl")
    elif sink.suffix == ".parquet":
        rows = [(name, (features.positions.tobytes(), shape)) for name, shape, features in parquet.read(sink)]
        found = dict(rows)
        assert len(found) == len(rows)
        beside = sink / "_failures.jsonl"
    else:
        found = {}
        for path in sink.rglob("*.npz"):
            features = npz.load(path)
            found[str(path.relative_to(sink))] = features.positions.tobytes() + features.descriptors.tobytes()
        beside = sink / "failures.jsonl"
    assert found
    return {**found, "failures": {record["name"]: record["reason"] for record in failures.read(beside)}}


def database(path: Path) -> dict:
    pycolmap = pytest.importorskip("pycolmap")
    with pycolmap.Database.open(path) as opened:
        images = opened.read_all_images()
        found = {i.name: np.asarray(opened.read_keypoints(i.image_id)).tobytes() for i in images}
    assert len(found) == len(images)
    return found


@pytest.mark.parametrize(
    ("sink", "devices"),
    [(sink, ()) for sink in SINKS] + [("out", ("--devices", "cpu,cpu"))],
    ids=[*SINKS, "two devices"],
)
def test_killed_again_and_again(photos, expected, sink, devices):
    output = f"killed{len(devices)}-{sink}"
    chance = random.Random(sink)
    for _ in range(KILLS):
        process = start(photos, "photos", "-o", output, *devices)
        events(process, "image", chance.randrange(1, 16))
        process.kill()
        process.communicate()
    process = start(photos, "photos", "-o", output, *devices)
    last, stderr = end(process)
    assert process.returncode == IMAGES_FAILED  # of empty.png
    assert last["images"] + last["skipped"] == N_IMAGES, stderr
    assert last["failures"] + last["failed_before"] == 1
    assert contents(photos / output) == expected(sink)


@pytest.fixture
def gate(photos) -> Iterator[Gate]:
    """A server of the photographs that lets only some out until it is opened: so a run is sure to go on."""
    with Gate(photos / "photos") as opened:
        threading.Thread(target=opened.serve_forever).start()
        yield opened
        opened.opened.set()
        opened.shutdown()


class Gate(ThreadingHTTPServer):
    """Serves so many files, and the others when it is `opened`."""

    N_FREE = 30
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Server)
        self.folder, self.free, self.opened = folder, iter(range(self.N_FREE)), threading.Event()
        self.lock = threading.Lock()

    def listed(self) -> Path:
        """A list of the URLs."""
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.png"))
        file = self.folder.with_name("list.txt")
        file.write_text("".join(f"http://127.0.0.1:{self.server_port}/{name}\n" for name in names))
        return file

    def handle_error(self, *arguments) -> None:
        """Readers that are gone are no error."""


class Server(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        data = (self.server.folder / self.path[1:]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            with self.server.lock:
                free = next(self.server.free, None)
            if free is None:
                self.server.opened.wait()
            self.wfile.write(data)

    do_GET = do_HEAD

    def log_message(self, *arguments) -> None: ...


@pytest.mark.parametrize(
    ("number", "sink", "devices"),
    [
        (signal.SIGINT, "out", ()),
        (signal.SIGTERM, "out.db", ()),
        (signal.SIGINT, "out.h5", ("--devices", "cpu,cpu")),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C with two devices"],
)
def test_a_signal_finishes_what_is_in_hand(photos, expected, gate, number, sink, devices):
    """Sent to all processes, as a terminal does; what is not read yet is not waited for."""
    output = f"signal-{sink}"
    command = ["--files-from", str(gate.listed()), "-o", output, *devices]
    process = start(photos, *command, start_new_session=True)
    events(process, "image", 10)
    os.killpg(process.pid, number)
    last, stderr = end(process)
    assert process.returncode == last["exit_code"] == 128 + number
    assert stderr.splitlines()[-1].startswith("interrupted after ")
    assert 10 <= last["images"] <= gate.N_FREE
    assert contents(photos / output)

    gate.opened.set()
    again, _ = end(start(photos, *command))
    assert again["skipped"] == last["images"]
    assert again["images"] + again["skipped"] == N_IMAGES
    assert contents(photos / output) == expected(sink)


def test_ctrl_c_that_the_shell_has_ignored_stays_ignored(photos, expected, gate):
    """As of `nohup`, or of `&` in a script."""
    process = start(photos, "--files-from", str(gate.listed()), "-o", "IGNORED", preexec_fn=ignore_interrupts)
    events(process, "image", 3)
    process.send_signal(signal.SIGINT)
    gate.opened.set()
    last, _ = end(process)
    assert process.returncode == IMAGES_FAILED  # of empty.png
    assert last["images"] == N_IMAGES
    assert contents(photos / "IGNORED") == expected("out")


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_full_disk(photos, expected):
    """A limit on the size of files stands for it; the sink is readable, and the next run goes on."""
    process = start(photos, "photos", "-o", "full.h5", preexec_fn=limit_files)
    last, stderr = end(process)
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("Error: cannot write to full.h5: File too large")
    assert "stopped after " in stderr
    assert "File too large" in last["error"]
    assert h5py.File(photos / "full.h5").close() is None
    again, _ = end(start(photos, "photos", "-o", "full.h5"))
    assert again["images"] + again["skipped"] == N_IMAGES
    assert contents(photos / "full.h5") == expected("out.h5")


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


def test_sources_that_vanish_and_come_back(photos, expected):
    """The folder is renamed while it is read."""
    process = start(photos, "photos", "-o", "vanished")
    events(process, "image", 5)
    (photos / "photos").rename(photos / "elsewhere")
    try:
        last, _ = end(process)
    finally:
        (photos / "elsewhere").rename(photos / "photos")
    assert process.returncode in (1, IMAGES_FAILED)  # the listing failed, or images that it had
    assert last["images"] >= 5
    retried, _ = end(start(photos, "photos", "-o", "vanished", "--retry-failed"))
    assert retried["images"] + retried["skipped"] == N_IMAGES
    assert {**contents(photos / "vanished"), "failures": None} == {**expected("out"), "failures": None}


def test_one_run_at_a_time(photos, gate):
    process = start(photos, "--files-from", str(gate.listed()), "-o", "busy")
    events(process, "image", 1)
    other = start(photos, "photos", "-o", "busy")
    _, stderr = other.communicate(timeout=60)
    assert other.returncode == 1
    assert "one process at a time" in stderr
    gate.opened.set()
    assert end(process)[0]["images"] == N_IMAGES
