"""bench/jobs/parts.py measures both tasks and writes a row for each measurement. No time and no memory is asserted."""

import json

import pytest

from tests.support.checkout import run_module

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")


def test_quick_run_has_a_row_for_each_measurement(tmp_path):
    done = run_module("bench.jobs.parts", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    parts, sinks = ([row for row in rows if row["task"] == task] for task in ("parts", "sinks"))
    assert [row["memory_limit"] for row in parts] == [None, 20_000_000]
    assert [row["sink"] for row in sinks] == ["HDF5", "COLMAP", "Parquet", "npz"]
    assert len({row["hash"] for row in parts}) == 1
    for row in rows:
        assert not row["standard"]
        assert {"run", "commit", "dirty", "hardware", "load_before", "versions", "device", "seconds"} <= set(row)
        assert row["shape"] == [600, 800]
        assert row["keypoints"] > 1000
    for row in sinks:
        assert row["images"] == 1
        assert row["peak_resident_bytes"] > row["output_bytes"] > 100 * row["keypoints"]


def test_unknown_tasks_are_refused(tmp_path):
    done = run_module("bench.jobs.parts", "--tasks", "sinks,speed", "--out", tmp_path)
    assert done.returncode == 2
    assert "--tasks must be among parts, sinks; got 'speed'" in done.stderr
