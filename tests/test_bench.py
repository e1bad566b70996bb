"""The bench runs each engine, writes whole rows, and draws them. No time is asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("gpusift-cuda", "gpusift-cpu", "opencv", "scikit-image")
STAGES = ["upload", "scale space", "extrema", "refinement", "orientation", "descriptor", "download"]


def run_script(name, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "bench" / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    """Rows of a run of all engines over one crop of a photograph."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("bench")
    Image.fromarray(data.camera()[100:220, 150:290]).save(folder / "crop.png")
    done = run_script("run.py", "--images", folder / "crop.png", "--out", folder, "--rounds", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.jsonl")
    return path


@pytest.fixture
def bench(monkeypatch):
    """A function that imports a module of bench/."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
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
    done = run_script("plot.py", rows_file, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "speed.md").read_text()
    for engine in ENGINES:
        assert engine in text
    assert "crop.png, 120 x 140" in text
    assert "| photograph | engine | upload |" in text
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_bad_arguments_are_refused(tmp_path):
    done = run_script("run.py", "--engines", "opencv,matlab", "--out", tmp_path)
    assert done.returncode == 2
    assert "'matlab'" in done.stderr
    done = run_script("run.py", "--data", tmp_path, "--out", tmp_path)
    assert done.returncode != 0
    assert "canyon_1920x1080.jpg" in done.stderr


def test_engine_that_dies_is_reported(bench, tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((8, 8), np.uint8))
    runner = bench("run").Runner("none", str(tmp_path / "image.npy"), keep=False)
    assert runner.died
    assert runner.skipped == "its process ended with exit code 1"


def test_wrong_number_of_keypoints_is_not_timed(bench):
    run = bench("run")

    class Counted:
        def __init__(self, engine, keypoints):
            self.engine, self.keypoints = engine, keypoints

    reference = Counted("scikit-image", 2000)
    run.check_counts([Counted("gpusift-cpu", 2002), Counted("opencv", 1700), reference])
    with pytest.raises(SystemExit, match=r"gpusift-cpu must find 2000 keypoints .* found 2003"):
        run.check_counts([Counted("gpusift-cpu", 2003), reference])


def test_newest_standard_run_of_each_machine_counts(bench):
    plot = bench("plot")

    def row(run, standard, cpu="a", gpu=None):
        hardware = {"cpu": cpu, "cores": 2, "instruction_set": None, "gpu": gpu and {"name": gpu}}
        return {"run": run, "standard": standard, "hardware": hardware}

    rows = [row("3", False), row("1", True), row("2", True), row("2", True), row("1", False, "b", "H")]
    chosen = plot.newest_runs(rows)
    assert [(run[0]["hardware"]["cpu"], run[0]["run"], len(run)) for run in chosen] == [("b", "1", 1), ("a", "2", 2)]


def test_ratio_is_of_the_other_engine_to_ours(bench):
    plot = bench("plot")
    ours = {"seconds": {"median": 0.1}, "kept_memory_seconds": {"median": 0.05}}
    theirs = {"seconds": {"median": 0.3}, "kept_memory_seconds": {"median": 0.1}}
    assert plot.ratios(ours, theirs) == "3.0 (2.0)"
    assert plot.ratios(ours, {"seconds": {"median": 0.25}}) == "2.5"
    assert plot.ratios(ours, ours) == plot.ratios(ours, None) == ""


def test_mosaic_is_of_distinct_photographs(bench):
    mosaic = bench("photographs").mosaic(700, 800)
    assert mosaic.shape == (700, 800)
    assert mosaic.dtype == np.uint8
    tiles = {mosaic[r : r + 300, c : c + 375].tobytes() for r in (0, 300) for c in (0, 375)}
    assert len(tiles) == 4
