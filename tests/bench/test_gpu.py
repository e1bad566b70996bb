"""The steps on a GPU: what they run exists, and rows are kept whatever happens to a step or to the run."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from PIL import Image

from bench import gpu
from bench.gpu import Step
from bench.kernels import first
from tests.support.checkout import ROOT
from tests.support.same_bytes import synthetic


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
from PIL import Image

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


def test_first_measurements_are_of_the_graph_of_calls_of_copies_and_of_kernels(tmp_path, capsys):
    Image.fromarray(synthetic(60, 80)).save(tmp_path / "picture.png")
    options = ["--device", "cpu", "--batch", "2", "--calls", "1", "--out", str(tmp_path)]
    first.main([*options, "--image", str(tmp_path / "picture.png")])
    kept = [json.loads(line) for line in (tmp_path / "first.jsonl").read_text().splitlines()]
    measured = [(row["measurement"], row["batch"]) for row in kept]
    assert measured[:7] == [
        ("graph", 2),
        ("graph", 1),
        ("map", 2),
        ("compute_batch, host to host", 1),
        ("compute_batch, host to host", 2),
        ("upload", 2),
        ("download and copy", 2),
    ]
    assert ("first_level and blurs", 2) in measured[7:]
    assert {(row["image"], *row["shape"]) for row in kept} == {("picture.png", 60, 80)}
    assert [first.shown(row) for row in kept] == capsys.readouterr().out.splitlines()


def test_a_first_measurement_has_the_features_of_its_images():
    of_two, of_one = (first.Measurement("graph", batch, [5e-4]).row([10, 20]) for batch in (2, 1))
    assert (of_two["features"], of_one["features"]) == (15, 10)
    assert first.shown(of_two) == "graph                        batch  2      15 features      500.0 us an image"
