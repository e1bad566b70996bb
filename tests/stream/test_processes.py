"""A process for each device: the results of one process, and no image lost when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import pytest

from gpusift import SIFT, processors, stream
from gpusift.devices import cuda_info
from gpusift.images.reader import Decoding
from gpusift.sources import Source
from gpusift.stream import RunError, processes
from gpusift.stream.processes import DEATHS, device_names, workers
from tests.support.memory_sink import MemorySink, run_here
from tests.support.same_bytes import synthetic

N_IMAGES = 40
PARAMETERS = {"n_octaves": 2}


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[Source]:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(N_IMAGES):
        cv2.imwrite(str(folder / f"{index:02}.png"), synthetic(40 + index, 60, seed=index))
    return [Source(path.name, str(path)) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def expected(items) -> dict:
    sink = MemorySink()
    run_here(items, sink, SIFT(device="cpu", **PARAMETERS))
    return sink.written


def start(devices=("cpu", "cpu"), parameters=PARAMETERS, **how) -> list:
    return workers(devices, parameters, decoding=Decoding(), **how)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_processes_give_what_one_gives(items, expected):
    sink, started = MemorySink(), start(batch_size=3)
    summary = stream.run(items, sink, started)
    assert sink.written == expected
    assert summary.images == N_IMAGES
    pids = [pid for worker in started for pid in worker.pids]
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert not any(map(is_alive, pids))


@pytest.mark.gpu
def test_processes_on_a_gpu_give_what_the_cpu_gives(items, expected):
    sink = MemorySink()
    stream.run(items, sink, start(["cuda:0", "cuda:0", "cpu"]))
    assert sink.written == expected


def test_failures_come_back(items, tmp_path):
    (tmp_path / "empty.png").touch()
    sink = MemorySink()
    bad = Source("empty.png", str(tmp_path / "empty.png"))
    assert stream.run([*items[:5], bad], sink, start()).failures == 1
    assert "empty" in sink.failed["empty.png"]
    assert len(sink.written) == 5


def test_killed_processes_cost_no_image(items, expected):
    """Each of the two processes is killed once: one that begins anew could die of another kill before it works."""
    sink, started = MemorySink(), start()
    at = {5: 0, 12: 1}  # results -> whom to kill then

    def kill(event) -> None:
        if event["event"] == "image" and (whom := at.pop(len(sink.written), None)) is not None:
            os.kill(started[whom].pids[-1], signal.SIGKILL)

    summary = stream.run(items, sink, started, on_event=kill)
    assert sink.written == expected
    assert (summary.images, summary.failures) == (N_IMAGES, 0)
    assert not at


def test_a_process_that_gets_on_may_die_of_nothing_any_number_of_times(items):
    """It is killed with nothing in hand, after each image, more often than a device that fails at once may."""
    sink, started = MemorySink(), start(["cpu"])
    few = items[: DEATHS + 1]

    def one_by_one():
        for number, item in enumerate(few, 1):
            yield item
            while len(sink.written) < number or len(started[0].pids) < number:
                time.sleep(0.01)
            os.kill(started[0].pids[-1], signal.SIGKILL)
            while len(started[0].pids) == number:
                time.sleep(0.01)

    summary = stream.run(one_by_one(), sink, started)
    assert (summary.images, summary.failures) == (len(few), 0)


def test_an_image_of_which_its_process_dies_fails_and_the_others_do_not(items, expected):
    """The process is killed, for real, whenever it asks a server for one image."""
    started = start(["cpu"])

    class Deadly(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            os.kill(started[0].pids[-1], signal.SIGKILL)

        do_HEAD = do_GET

        def log_message(self, *arguments) -> None: ...

    sink = MemorySink()
    with ThreadingHTTPServer(("127.0.0.1", 0), Deadly) as server:
        threading.Thread(target=server.serve_forever).start()
        deadly = Source("deadly.png", f"http://127.0.0.1:{server.server_port}/deadly.png")
        try:
            summary = stream.run([*items[:7], deadly, *items[7:]], sink, started)
        finally:
            server.shutdown()
    assert sink.failed == {"deadly.png": "the process that computes it dies (SIGKILL)"}
    assert sink.written == expected
    assert summary.images == N_IMAGES
    assert len(started[0].pids) >= 1 + DEATHS


def test_a_stop_ends_the_processes(items):
    sink, started, stop = MemorySink(), start(), threading.Event()

    def endless():
        yield from items
        stop.wait()
        yield from (Source(f"{number}.png", items[0].url) for number in range(1000))

    def at_the_end(event) -> None:
        if len(sink.written) == N_IMAGES:
            stop.set()

    summary = stream.run(endless(), sink, started, on_event=at_the_end, stop=stop)
    assert N_IMAGES <= summary.images < N_IMAGES + 1000
    assert sink.committed == set(sink.written)
    assert not any(is_alive(pid) for worker in started for pid in worker.pids)


def test_a_device_that_cannot_be_had_stops_the_run(items):
    sink = MemorySink()
    with pytest.raises(RunError, match="device cpu: upsampling must be") as caught:
        stream.run(items, sink, start(parameters={"upsampling": 3}))
    assert caught.value.stage == "compute"
    assert (sink.written, sink.failed) == ({}, {})


def test_processes_share_the_processors(monkeypatch):
    for name in ("available", "threads"):
        monkeypatch.setattr(processors, name, lambda: 8)
    assert [worker.job.parameters["num_threads"] for worker in start(["cpu", "cpu"])] == [4, 4]
    given = start(["cpu", "cpu"], {"num_threads": 3})
    assert [worker.job.parameters["num_threads"] for worker in given] == [3, 3]
    assert [worker.job.n_decoders for worker in start(["cuda:0", "cuda:1"])] == [4, 4]
    assert [worker.job.n_decoders for worker in start(["cuda:0"], n_decoders=5)] == [5]


def test_device_names(monkeypatch):
    monkeypatch.setattr(processes, "_gpu_count", lambda: 3)
    assert device_names("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert device_names("0,2") == ["cuda:0", "cuda:2"]
    assert device_names("cpu, cuda:1,cpu") == ["cpu", "cuda:1", "cpu"]
    for text in ("", "gpu", "0,,1", "cuda", "-1"):
        with pytest.raises(ValueError, match="devices must be 'all' or numbers"):
            device_names(text)
    with pytest.raises(ValueError, match="devices must exist, got '3'"):
        device_names("0,3")


def test_all_needs_a_gpu():
    if "error" not in cuda_info():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="devices='all' needs a GPU, but there is none: "):
        device_names("all")
    with pytest.raises(ValueError, match="devices must exist, got '0': "):
        device_names("0")


def test_a_worker_whose_parent_is_gone_ends(tmp_path, items):
    """Killed without a chance to say so: the processes notice."""
    code = f"""
import os, signal, sys
from tests.support.memory_sink import MemorySink, run_here
from gpusift import stream
from gpusift.stream import processes
from gpusift.images.reader import Decoding
from gpusift.sources import Source
if __name__ == "__main__":
    sink = MemorySink()
    workers = processes.workers(["cpu", "cpu"], {{}}, decoding=Decoding())
    def die(event):
        if event["event"] == "image" and all(worker.pids for worker in workers):
            print(*(pid for worker in workers for pid in worker.pids), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    stream.run([Source(f"{{n}}.png", {items[-1].url!r}) for n in range(500)], sink, workers, on_event=die)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    # All three hold the pipe of stdout open: this returns when the last of them has ended.
    parent = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, timeout=60)
    assert parent.returncode == -signal.SIGKILL
    assert len(parent.stdout.split()) == 2


class Collected:
    """A process whose exit code another thread has just collected: it is unknown when first asked for."""

    def __init__(self, *codes):
        self._codes = list(codes)

    @property
    def exitcode(self):
        return self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((None, None, -signal.SIGKILL), "SIGKILL"),
        ((None, 3), "exit code 3"),
        ((0,), "exit code 0"),
        ((None,), "for an unknown reason"),
    ],
)
def test_an_exit_code_that_another_thread_collected(monkeypatch, codes, expected):
    monkeypatch.setattr(processes, "EXIT_CODE_SECONDS", 0.05)
    assert processes._death(Collected(*codes)) == expected
