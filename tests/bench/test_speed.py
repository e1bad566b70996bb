"""The comparison with OpenCV and scikit-image writes whole rows and draws them. No time is asserted."""

import json

import numpy as np
import pytest

from bench.speed import plot, run
from gpusift.stages import STAGES
from tests.support.checkout import run_module

ENGINES = ("gpusift-cuda", "gpusift-cpu", "opencv", "scikit-image")
OPTIONAL = {"keypoint limit", "affine shape", "feature limit"}  # stages without steps by default
ROWS = ["upload", *(stage.name for stage in STAGES if stage.name not in OPTIONAL), "download"]


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
        assert list(row["stages"]) == ROWS
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
    done = run_module("bench.peers.run", "--batches", "1,none", "--out", tmp_path)
    assert done.returncode == 2
    assert "--batches must be numbers such as 1,8,64; got '1,none'" in done.stderr
    done = run_module("bench.speed.run", "--data", tmp_path, "--out", tmp_path)
    assert done.returncode != 0
    assert "canyon_1920x1080.jpg" in done.stderr


def test_engine_that_dies_is_reported(tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((8, 8), np.uint8))
    runner = run.Runner("none", str(tmp_path / "image.npy"), keep=False)
    assert runner.died
    assert runner.skipped == "its process ended with exit code 1"


def test_ratio_is_of_the_other_engine_to_ours():
    ours = {"seconds": {"median": 0.1}, "kept_memory_seconds": {"median": 0.05}}
    theirs = {"seconds": {"median": 0.3}, "kept_memory_seconds": {"median": 0.1}}
    assert plot.ratios(ours, theirs) == "3.0 (2.0)"
    assert plot.ratios(ours, {"seconds": {"median": 0.25}}) == "2.5"
    assert plot.ratios(ours, ours) == plot.ratios(ours, None) == ""
