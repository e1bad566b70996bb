"""The steps on a GPU: what they run exists, and rows are kept whatever happens to a step or to the run."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from bench import gpu
from bench.gpu import Step
from bench.kernels import first
from gpusift import SIFT
from tests.support.checkout import ROOT


def rows_of(folder):
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


def test_every_step_exists(tmp_path):
    steps = gpu.steps(tmp_path, tmp_path)
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        assert step.arguments[0] == "-m"
        assert find_spec(step.arguments[1]) is not None, step
        assert all((ROOT / part).exists() for part in step.arguments if part.startswith("tests/")), step


def test_correctness_is_known_before_speed_and_speed_before_long_tests(tmp_path):
    names = [step.name for step in gpu.steps(tmp_path, None)]
    assert names[:3] == ["check", "hashes", "first"]
    assert names.index("first") < names.index("order") < names.index("bench")


def test_a_failing_and_an_endless_step_do_not_keep_the_next_from_running(tmp_path, capsys):
    steps = [
        Step("fails", ("-c", "print('a'); print('the reason'); raise SystemExit(3)"), 60),
        Step("endless", ("-c", "import time; time.sleep(600)"), 0.2),
        Step("works", ("-c", "print('done')"), 60),
    ]
    assert not gpu.run(steps, tmp_path, 600, {"run": "now"})
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["fails", "endless", "works"]
    assert [row["exit_code"] for row in rows] == [3, None, 0]
    assert [row["last_line"] for row in rows] == ["the reason", "", "done"]
    assert (tmp_path / "fails.log").read_text() == "a\nthe reason\n"
    assert "endless: took too long" in capsys.readouterr().out
    assert gpu.run(steps[2:], tmp_path, 600, {"run": "again"})


def test_a_step_is_skipped_when_no_time_is_left(tmp_path):
    assert not gpu.run([Step("late", ("-c", ""), 60)], tmp_path, 1, {})
    assert rows_of(tmp_path)[0]["skipped"] == "1 of 1 seconds are left"


RUN = """
import pathlib, sys
from bench import gpu
steps = [gpu.Step("one", ("-c", "print(1)"), 60), gpu.Step("two", ("-c", "import sys; sys.stdin.read()"), 600)]
gpu.run(steps, pathlib.Path(sys.argv[1]), 600, {})
"""


def test_rows_are_there_when_the_run_is_killed(tmp_path):
    command = [sys.executable, "-c", RUN, os.fspath(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # at its end the second step's stdin ends too
        while not (tmp_path / "two.log").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert [row["step"] for row in rows_of(tmp_path)] == ["one"]


def test_the_command_names_its_steps(capsys):
    gpu.main(["--list"])
    assert re.match(r"check +at most +120 s: python -m gpusift info --check\n", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        gpu.main(["--only", "nothing"])
    assert "--only must be among check, hashes, first" in capsys.readouterr().err


def test_first_measurements_cover_what_was_predicted():
    sift, batch = SIFT(device="cpu"), 2
    names = {(m.name, m.batch) for m in first.measurements(sift, (60, 80), batch, 1)}
    assert {(name, 1 if n == 1 else batch) for name, n in first.PREDICTED} <= names
    row = first.row_of(first.Measurement("graph", 16, [5e-4]), is_default=True)
    assert row["predicted_h100_seconds"] == pytest.approx([450e-6, 550e-6])
    assert "500.0 us an image (an H100 was predicted to take 450 to 550)" in first.shown(row)
    assert "predicted_h100_seconds" not in first.row_of(first.Measurement("graph", 16, [5e-4]), is_default=False)
