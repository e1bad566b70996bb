"""The comparison of all SIFT programs writes a row for each measurement and draws them. No time is asserted."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bench.peers import engines, plot, worker
from bench.peers import run as peers
from tests.support.checkout import run_module

PEERS = ("gpusift-cuda", "gpusift-cpu", "opencv")


@pytest.fixture(scope="module")
def peers_folder(tmp_path_factory):
    """What a peer run of three engines over one crop of a photograph writes."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("peers")
    Image.fromarray(data.camera()[100:220, 150:290]).save(folder / "crop.png")
    chosen = ("--engines", ",".join(PEERS), "--batches", "1,3", "--rounds", 2)
    done = run_module("bench.peers.run", "--images", folder / "crop.png", "--out", folder, *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def peer_rows(folder):
    (path,) = folder.glob("peers-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_peer_run_measures_each_batch_and_upsampling(peers_folder):
    rows = {(r["engine"], r["upsampling"], r["batch"]): r for r in peer_rows(peers_folder) if "batch" in r}
    engines = PEERS[1:] if ("gpusift-cuda", 2, 1) not in rows else PEERS
    assert set(rows) == {(engine, u, batch) for engine in engines for u in (1, 2) for batch in (1, 3)}
    for (engine, upsampling, _), row in rows.items():
        assert row["peers"]
        assert row["load"] >= 0
        if engine == "opencv" and upsampling == 1:
            assert row["skipped"] == "it does not support an upsampling of 1"
            continue
        assert row["seconds"]["n"] == 2
        assert 0 < row["seconds"]["min"] <= row["seconds"]["median"]
        assert row["memory"]["host_peak_bytes"] > 120 * 140
        assert row["keypoints"] > 20
        assert "device_seconds" not in row or engine == "gpusift-cuda"
    assert rows["gpusift-cpu", 2, 1]["keypoints"] > rows["gpusift-cpu", 1, 1]["keypoints"]


def test_peer_run_begins_with_cold_starts(peers_folder):
    cold = {row["engine"]: row for row in peer_rows(peers_folder) if "batch" not in row}
    assert tuple(cold) == PEERS
    for engine, row in cold.items():
        if engine == "gpusift-cuda" and "skipped" in row:
            assert "device='cuda' cannot be had" in row["skipped"]
            assert row["unavailable"]
            continue
        for caches in ("empty", "filled"):
            start = row["cold_start"][caches]
            assert 0 < start["first_call_seconds"] < start["process_seconds"]


def test_peer_tables_and_plot_are_drawn(peers_folder, tmp_path):
    done = run_module("bench.peers.plot", *peers_folder.glob("peers-*.jsonl"), "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "peers.md").read_text()
    assert text == (peers_folder / "peers.md").read_text()
    assert "| crop.png, 120 x 140 | 2 | 3 | opencv |" in text
    assert (
        "- opencv: crop.png, upsampling 1, batch 1; crop.png, upsampling 1, batch 3: it does not support an upsampling"
        in text
    )
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


class FakeEngine:
    """An engine whose device can be asked for everything."""

    upsamplings = (2,)

    def __init__(self, upsampling, shape):
        self.settings = {"upsampling": upsampling, "shape": shape}
        self.there = self.waits = 0

    def __call__(self, image):
        return 7

    def batch(self, images):
        return 10 * len(images)

    def on_device(self, images):
        self.there = len(images)
        return lambda: None

    def synchronize(self):
        assert self.there
        self.waits += 1

    def device_memory(self):
        return 12345


@pytest.fixture
def request_of_fake(monkeypatch, tmp_path):
    """A function that makes a request for the fake engine, or one made by another class."""
    np.save(tmp_path / "image.npy", np.zeros((8, 9), np.uint8))

    def make(engine=FakeEngine, **values):
        monkeypatch.setitem(engines.PEERS, "fake", engine)
        return worker.Request("fake", str(tmp_path / "image.npy"), 2, **values)

    return make


def test_all_that_an_engine_can_tell_is_kept(request_of_fake):
    found = worker.measure(request_of_fake(batch=5, rounds=3))
    assert found["settings"] == {"upsampling": 2, "shape": (8, 9)}
    assert found["keypoints"] == 10
    assert len(found["seconds"]) == 3
    assert len(found["device_seconds"]) == worker.DEVICE_CALLS
    assert found["memory"]["device_peak_bytes"] == 12345
    once = worker.measure(request_of_fake(cold=True))
    assert once["keypoints"] == 7
    assert "seconds" not in once


def test_energy_is_of_an_image(request_of_fake, monkeypatch):
    counter = iter([1000.0, 7000.0])  # millijoules before and after the timed calls
    library = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=100),
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = worker.measure(request_of_fake(batch=4, rounds=3))
    assert found["joules"] == pytest.approx(6.0 / 3 / 4)
    assert found["memory"]["device_used_bytes"] == 0

    def untold(handle):
        raise RuntimeError("not supported")

    library.nvmlDeviceGetTotalEnergyConsumption = library.nvmlDeviceGetMemoryInfo = untold
    found = worker.measure(request_of_fake(rounds=1))
    assert "joules" not in found
    assert "device_used_bytes" not in found["memory"]


def test_slow_batches_and_failures_are_reasons(request_of_fake):
    sent = []
    pipe = SimpleNamespace(send=sent.append)
    worker.serve(pipe, request_of_fake(batch=64, limit=0.0))
    assert sent.pop() == {"skipped": "a batch would take over 0 s a call; --all runs it"}

    class Full(FakeEngine):
        def __call__(self, image):
            raise MemoryError("no room for 9 GB\nand more")

    worker.serve(pipe, request_of_fake(Full))
    assert sent.pop() == {"skipped": "MemoryError: no room for 9 GB"}

    def missing(upsampling, shape):
        return engines.imported("no_such_module", "no-such-package")

    worker.serve(pipe, request_of_fake(missing))
    found = sent.pop()
    assert found["unavailable"]
    assert found["skipped"].endswith("pip install no-such-package")


def test_hopeless_batches_start_no_process(request_of_fake, monkeypatch):
    monkeypatch.setattr(peers, "in_process", lambda serving, request: {"seconds": [0.5]})
    options = SimpleNamespace(all=False)
    found = peers.measured(request_of_fake(batch=8, limit=3.0), 0.4, 0.5, options)
    assert found == {"skipped": "a batch would take over 3 s a call; --all runs it"}
    for batch, single in ((8, 0.3), (1, 5.0)):
        found = peers.measured(request_of_fake(batch=batch, limit=3.0), 0.4, single, options)
        assert found["seconds"]["median"] == 0.5


def test_process_that_dies_or_hangs_is_a_reason():
    assert peers.in_process(os.abort) == {"skipped": "its process ended with exit code 1"}  # as it takes no pipe
    assert peers.in_process(peers.bandwidth, longest=0.0) == {"skipped": "it took longer than 0 s"}


def test_device_time_is_a_multiple_of_the_floor_of_its_upsampling():
    row = {"case": "a", "engine": "cvcuda", "batch": 4, "upsampling": 2, "shape": [10, 20], "copy_bytes_per_s": 1e6}
    floor = 17 * 16 * 10 * 20 * 4 / 3 / 1e6
    row |= {"device_seconds": {"median": 4 * 3 * floor}, "seconds": {"median": 8.0}}
    assert plot.times_floor(row) == "3.0"
    assert plot.times_floor({**row, "upsampling": 1}) == "12.0"
    assert plot.times_floor({**row, "copy_bytes_per_s": 2e6}) == "6.0"
    assert plot.of_an_image(row) == 2.0
    on_gpu, on_cpu = ({**row, "engine": engine} for engine in ("gpusift-cuda", "gpusift-cpu"))
    assert plot.ours([on_gpu, on_cpu, row]) == {("a", 2, 4): on_gpu}
    assert plot.ours([on_cpu, row]) == {("a", 2, 4): on_cpu}


def test_images_of_a_batch_are_mirrored():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    first, second, third, fourth, fifth = worker.variants(image, 5)
    assert np.array_equal(first, image)
    assert np.array_equal(second, image[:, ::-1])
    assert np.array_equal(third, image[::-1])
    assert np.array_equal(fourth, image[::-1, ::-1])
    assert np.array_equal(fifth, image)
