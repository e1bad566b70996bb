"""The programs in examples/ run as they are, and say what they should."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

# For each program: the packages that it needs beside gpusift, what its output must contain, and what it leaves.
EXPECTED = {
    "match_two_photographs": ((), r"matches, \d{3,} of them agree with one fundamental matrix", "matches.png"),
    "compare_with_opencv": ((), r"the cosine of two such descriptors is 0\.9\d in the median", "keypoints.png"),
    "features_to_pandas": (("pandas",), r"features\.pkl: \d{4} features", "features.pkl"),
    "folder_to_colmap": (("pycolmap",), r"1 pairs verified", "database.db"),
    "batch_with_pytorch": (("torch",), r"turned by 270 degrees: \d+ features on (cpu|cuda:0)", None),
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example_runs(name, tmp_path):
    packages, expected, file = EXPECTED[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install {package}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout)
    if file:
        assert (tmp_path / file).stat().st_size > 1000
