"""The bench runs each engine, writes whole rows, and draws them. No time is asserted."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.checkout import run_module

ENGINES = ("gpusift-cuda", "gpusift-cpu", "opencv", "scikit-image")
PEERS = ("gpusift-cuda", "gpusift-cpu", "opencv")
STAGES = ["upload", "scale space", "extrema", "refinement", "orientation", "descriptor", "download"]


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    """Rows of a run of all engines over one crop of a photograph."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("bench")
    Image.fromarray(data.camera()[100:220, 150:290]).save(folder / "crop.png")
    done = run_module("bench.speed.run", "--images", folder / "crop.png", "--out", folder, "--rounds", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.jsonl")
    return path


@pytest.fixture
def bench(monkeypatch):
    """A function that imports a module of bench/."""
    import importlib

    return importlib.import_module


def read(path):
    return {row["engine"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_run_of_all_engines_has_a_row_for_each(rows_file):
    rows = read(rows_file)
    assert tuple(rows) == ENGINES
    for row in rows.values():
        assert not row["standard"]
        assert row["image"] == "crop.png"
        assert row["shape"] == [120, 140]
        assert row["hardware"]["cores"] >= 1
        assert row["hardware"]["instruction_set"]
        assert row["versions"]["numpy"] == np.__version__
        assert {"run", "commit", "dirty", "load_before"} <= set(row)


@pytest.mark.parametrize("engine", [pytest.param(ENGINES[0], marks=pytest.mark.gpu), *ENGINES[1:]])
def test_row_is_whole(rows_file, engine):
    row = read(rows_file)[engine]
    if engine == "gpusift-cuda" and "skipped" in row:
        assert "device='cuda' cannot be had" in row["skipped"]
        assert "seconds" not in row
        pytest.skip(row["skipped"])
    assert "skipped" not in row
    assert row["keypoints"] > 20
    for times in (row["seconds"], row["kept_memory_seconds"]):
        assert times["n"] == 2
        assert 0 < times["min"] <= times["q1"] <= times["median"] <= times["q3"] <= times["max"]
    assert row["seconds"]["warm_up_calls"] == 2
    assert row["first_call_seconds"] > 0
    assert row["memory"]["host_peak_bytes"] > 120 * 140
    if engine.startswith("gpusift"):
        assert list(row["stages"]) == STAGES
        assert all(seconds >= 0 for seconds in row["stages"].values())
    if engine == "gpusift-cuda":
        assert row["device_seconds"]["median"] > 0
        assert row["copy_bytes_per_s"] > 0
        assert row["memory"]["device_peak_bytes"] > 0


def test_tables_and_plot_are_drawn(rows_file, tmp_path):
    done = run_module("bench.speed.plot", rows_file, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "speed.md").read_text()
    for engine in ENGINES:
        assert engine in text
    assert "crop.png, 120 x 140" in text
    assert "| photograph | engine | upload |" in text
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_bad_arguments_are_refused(tmp_path):
    done = run_module("bench.speed.run", "--engines", "opencv,matlab", "--out", tmp_path)
    assert done.returncode == 2
    assert "'matlab'" in done.stderr
    done = run_module("bench.speed.run", "--peers", "--batches", "1,none", "--out", tmp_path)
    assert done.returncode == 2
    assert "--batches must be numbers such as 1,8,64; got '1,none'" in done.stderr
    done = run_module("bench.speed.run", "--data", tmp_path, "--out", tmp_path)
    assert done.returncode != 0
    assert "canyon_1920x1080.jpg" in done.stderr


def test_engine_that_dies_is_reported(bench, tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((8, 8), np.uint8))
    runner = bench("bench.speed.run").Runner("none", str(tmp_path / "image.npy"), keep=False)
    assert runner.died
    assert runner.skipped == "its process ended with exit code 1"


def test_wrong_number_of_keypoints_is_not_timed(bench):
    run = bench("bench.speed.run")

    class Counted:
        def __init__(self, engine, keypoints):
            self.engine, self.keypoints = engine, keypoints

    reference = Counted("scikit-image", 2000)
    run.check_counts([Counted("gpusift-cpu", 2002), Counted("opencv", 1700), reference])
    with pytest.raises(SystemExit, match=r"gpusift-cpu must find 2000 keypoints .* found 2003"):
        run.check_counts([Counted("gpusift-cpu", 2003), reference])


def test_newest_standard_run_of_each_machine_counts(bench):
    plot = bench("bench.speed.plot")

    def row(run, standard, cpu="a", gpu=None):
        hardware = {"cpu": cpu, "cores": 2, "instruction_set": None, "gpu": gpu and {"name": gpu}}
        return {"run": run, "standard": standard, "hardware": hardware}

    rows = [row("3", False), row("1", True), row("2", True), row("2", True), row("1", False, "b", "H")]
    chosen = plot.newest_runs(rows)
    assert [(run[0]["hardware"]["cpu"], run[0]["run"], len(run)) for run in chosen] == [("b", "1", 1), ("a", "2", 2)]


def test_ratio_is_of_the_other_engine_to_ours(bench):
    plot = bench("bench.speed.plot")
    ours = {"seconds": {"median": 0.1}, "kept_memory_seconds": {"median": 0.05}}
    theirs = {"seconds": {"median": 0.3}, "kept_memory_seconds": {"median": 0.1}}
    assert plot.ratios(ours, theirs) == "3.0 (2.0)"
    assert plot.ratios(ours, {"seconds": {"median": 0.25}}) == "2.5"
    assert plot.ratios(ours, ours) == plot.ratios(ours, None) == ""


def test_mosaic_is_of_distinct_photographs(bench):
    mosaic = bench("bench.common.photographs").mosaic(700, 800)
    assert mosaic.shape == (700, 800)
    assert mosaic.dtype == np.uint8
    tiles = {mosaic[r : r + 300, c : c + 375].tobytes() for r in (0, 300) for c in (0, 375)}
    assert len(tiles) == 4


# The peer run


@pytest.fixture(scope="module")
def peers_folder(tmp_path_factory):
    """What a peer run of three engines over one crop of a photograph writes."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("peers")
    Image.fromarray(data.camera()[100:220, 150:290]).save(folder / "crop.png")
    chosen = ("--engines", ",".join(PEERS), "--batches", "1,3", "--rounds", 2)
    done = run_module("bench.speed.run", "--peers", "--images", folder / "crop.png", "--out", folder, *chosen)
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
            assert row["skipped"] == "it has no upsampling of 1"
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
    assert "- opencv: crop.png, upsampling 1, batch 1; crop.png, upsampling 1, batch 3: it has no upsampling" in text
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
def request_of_fake(bench, monkeypatch, tmp_path):
    """A function that makes a request for the fake engine, or one made by another class."""
    np.save(tmp_path / "image.npy", np.zeros((8, 9), np.uint8))

    def make(engine=FakeEngine, **values):
        monkeypatch.setitem(bench("bench.peers.engines").PEERS, "fake", engine)
        return bench("bench.peers.worker").Request("fake", str(tmp_path / "image.npy"), 2, **values)

    return make


def test_all_that_an_engine_can_tell_is_kept(bench, request_of_fake):
    found = bench("bench.peers.worker").measure(request_of_fake(batch=5, rounds=3))
    assert found["settings"] == {"upsampling": 2, "shape": (8, 9)}
    assert found["keypoints"] == 10
    assert len(found["seconds"]) == 3
    assert len(found["device_seconds"]) == bench("bench.peers.worker").DEVICE_CALLS
    assert found["memory"]["device_peak_bytes"] == 12345
    once = bench("bench.peers.worker").measure(request_of_fake(cold=True))
    assert once["keypoints"] == 7
    assert "seconds" not in once


def test_energy_is_of_an_image(bench, request_of_fake, monkeypatch):
    worker = bench("bench.peers.worker")
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


def test_slow_batches_and_failures_are_reasons(bench, request_of_fake):
    worker = bench("bench.peers.worker")
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
        return bench("bench.peers.engines").imported("no_such_module", "no-such-package")

    worker.serve(pipe, request_of_fake(missing))
    found = sent.pop()
    assert found["unavailable"]
    assert found["skipped"].endswith("pip install no-such-package")


def test_hopeless_batches_start_no_process(bench, request_of_fake, monkeypatch):
    peers = bench("bench.peers.run")
    monkeypatch.setattr(peers, "in_process", lambda serving, request: {"seconds": [0.5]})
    options = SimpleNamespace(all=False)
    found = peers.measured(request_of_fake(batch=8, limit=3.0), 0.4, 0.5, options)
    assert found == {"skipped": "a batch would take over 3 s a call; --all runs it"}
    for batch, single in ((8, 0.3), (1, 5.0)):
        found = peers.measured(request_of_fake(batch=batch, limit=3.0), 0.4, single, options)
        assert found["seconds"]["median"] == 0.5


def test_process_that_dies_or_hangs_is_a_reason(bench):
    peers = bench("bench.peers.run")
    assert peers.in_process(os.abort) == {"skipped": "its process ended with exit code 1"}  # as it takes no pipe
    assert peers.in_process(peers.bandwidth, longest=0.0) == {"skipped": "it was ended after 0 s"}


def test_peers_are_not_timed_on_wrong_keypoints(bench):
    peers = bench("bench.peers.run")
    rows = [{"engine": "scikit-image", "keypoints": 2000}, {"engine": "opencv", "keypoints": 1700}]
    peers.check_counts([*rows, {"engine": "gpusift-cpu", "keypoints": 2002}])
    peers.check_counts([*rows, {"engine": "gpusift-cuda", "skipped": "no GPU"}])
    with pytest.raises(SystemExit, match=r"gpusift-cpu must find 2000 keypoints .* found 2003"):
        peers.check_counts([*rows, {"engine": "gpusift-cpu", "keypoints": 2003}])


def test_a_batch_of_gpusift_is_one_call_to_the_host(bench):
    engine = bench("bench.common.engines").GpusiftCPU()
    images = [np.zeros((12, 12), np.uint8)] * 3
    assert engine.batch(images) == 0
    calls = []

    def compute_batch(images, batch_size, *, on_host):
        calls.append((len(images), batch_size, on_host))
        return [[1, 2]] * len(images)

    engine.sift = SimpleNamespace(compute_batch=compute_batch)
    assert engine.batch(images) == 6
    assert calls == [(3, 3, True)]


def test_device_time_is_a_multiple_of_the_floor_of_its_upsampling(bench):
    plot = bench("bench.peers.plot")
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


def test_cases_are_chosen_by_megapixels(bench, monkeypatch):
    monkeypatch.delenv("GPUSIFT_DATA", raising=False)
    run = bench("bench.speed.run")
    for peers, names in ([], ["0.4", "2", "9"]), (["--peers"], ["0.4", "2", "9", "24"]):
        cases = run.cases_of(run.arguments([*peers]))
        assert [case.name.split(" MP")[0] for case in cases] == names
    (large,) = run.cases_of(run.arguments(["--peers", "--cases", "24"]))
    assert large.source == (4000, 6000)
    assert not run.arguments(["--cases", "2"]).standard
    assert run.arguments([]).standard
    with pytest.raises(SystemExit, match="--cases must name megapixels"):
        run.cases_of(run.arguments(["--cases", "5"]))


def test_images_of_a_batch_are_mirrored(bench):
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    first, second, third, fourth, fifth = bench("bench.peers.worker").variants(image, 5)
    assert np.array_equal(first, image)
    assert np.array_equal(second, image[:, ::-1])
    assert np.array_equal(third, image[::-1])
    assert np.array_equal(fourth, image[::-1, ::-1])
    assert np.array_equal(fifth, image)
