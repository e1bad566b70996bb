"""bench/jobs/batch.py runs the command for each task and writes a row for each run. No time is asserted."""

import json

import pytest

from tests.support.checkout import run_module

pytest.importorskip("distributed")
pytest.importorskip("pyarrow")


def test_quick_run_has_a_row_for_each_task_and_case(tmp_path):
    done = run_module(
        "bench.jobs.batch", "--quick", "--images", 2, "--processes", 1, "--memory", 300, "--out", tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]
    assert [(row["task"], row["case"]) for row in rows] == [
        *(("sinks", sink) for sink in ("HDF5", "COLMAP", "Parquet", "npz")),
        ("processes", "--devices, 1"),
        ("processes", "--dask local:1"),
        *(("resume", case) for case in ("HDF5, all done", "npz, all done", "HDF5, killed half way")),
        *(("memory", sink) for sink in ("HDF5", "Parquet")),
    ]
    for row in rows:
        assert not row["standard"]
        assert row["decoder"] == "opencv"
        assert {"run", "commit", "dirty", "hardware", "load_before", "versions", "device", "shape"} <= set(row)
        assert row["failures"] == 0
        assert row["images"] + row["skipped"] == (300 if row["task"] == "memory" else 2)
        assert row["seconds"] >= row["seconds_of_the_run"]
        if row["images"]:
            assert row["keypoints"] > row["images"]
            assert sum(row["share"].values()) == pytest.approx(1)
    assert all(len(row["resident_bytes"]) == 10 for row in rows if row["task"] == "memory")


def test_sinks_with_each_decoder(tmp_path):
    pytest.importorskip("nvidia.nvimgcodec", reason='the package is missing: pip install "gpusift[nvimgcodec]"')
    done = run_module(
        "bench.jobs.batch",
        "--quick",
        "--images",
        2,
        "--tasks",
        "sinks",
        "--decoders",
        "opencv,nvimgcodec",
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]
    sinks = ("HDF5", "COLMAP", "Parquet", "npz")
    assert [(row["case"], row["decoder"]) for row in rows] == [
        *((sink, "opencv") for sink in sinks),
        *((f"{sink}, nvimgcodec", "nvimgcodec") for sink in sinks),
    ]
    for opencv, other in zip(rows[:4], rows[4:], strict=True):
        assert (opencv["images"], opencv["keypoints"]) == (other["images"], other["keypoints"])
        assert other["versions"]["nvimgcodec"]


def test_unknown_tasks_are_refused(tmp_path):
    done = run_module("bench.jobs.batch", "--tasks", "sinks,speed", "--out", tmp_path)
    assert done.returncode == 2
    assert "--tasks must be among sinks, processes, resume, memory; got 'speed'" in done.stderr
