"""bench/speed/matching.py compares the engines' matches, and writes a row for each. No time is asserted."""

import json

from tests.support.checkout import run_module


def test_quick_run_has_a_row_for_each_engine_and_task(tmp_path):
    done = run_module("bench.speed.matching", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("matching-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    engines = ["gpusift-cpu", "gpusift-cuda", "opencv", "scikit-image"]
    assert [(row["cross_check"], row["engine"]) for row in rows] == [(b, e) for b in (False, True) for e in engines]
    for row in rows:
        assert row["descriptors"] == [2000, 2000]
        assert not row["standard"]
        assert {"run", "commit", "dirty", "hardware", "load_before", "versions"} <= set(row)
        if "skipped" in row:
            assert row["engine"] == "gpusift-cuda"
            continue
        assert row["matches"] >= 400
        assert 0 < row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]


def test_an_unknown_engine_is_refused(tmp_path):
    done = run_module("bench.speed.matching", "--engines", "flann", "--out", tmp_path)
    assert done.returncode == 2
    assert "--engines must be among gpusift-cpu, gpusift-cuda, opencv, scikit-image; got 'flann'" in done.stderr
