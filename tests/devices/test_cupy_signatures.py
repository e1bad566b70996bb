"""The stand-in for CuPy has the names, keywords, defaults and properties of CuPy 14, which needs no GPU to be asked."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from tests.support import cupy_signatures, cupy_standin

STANDIN = os.fspath(cupy_standin.FOLDER)


def offered(path):
    """What the CuPy offers that a process with this path imports."""
    command = [sys.executable, "-W", "ignore", "-m", cupy_signatures.__name__]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ours():
    return offered(os.pathsep.join([STANDIN, os.environ["PYTHONPATH"]]))


@pytest.fixture(scope="module")
def theirs():
    """Those of CuPy 14, where it is installed: `pip install cupy-cuda13x`, which needs no GPU."""
    version = next((d.version for d in metadata.distributions() if d.name.startswith("cupy-cuda")), "none")
    if not version.startswith("14."):
        pytest.skip(f"needs CuPy 14, and {version} is installed")
    path = os.environ["PYTHONPATH"].split(os.pathsep)
    return offered(os.pathsep.join(folder for folder in path if folder != STANDIN))


def differences(ours, theirs):
    """What the stand-in has otherwise than CuPy, or alone; a class without an `__init__` of its own has any."""
    for name, described in ours.items():
        if name not in theirs:
            yield f"{name} is not CuPy's"
        elif isinstance(described, dict) and isinstance(theirs[name], dict):
            yield from (f"{name}.{each}" for each in differences(described, theirs[name]))
        elif described != theirs[name] and not (name == "__init__" and described is None):
            yield f"{name}: {described}, but CuPy has {theirs[name]}"


@pytest.mark.parametrize("module", cupy_signatures.MODULES)
def test_every_name_is_cupys(ours, theirs, module):
    assert ours[module]
    assert list(differences(ours[module], theirs[module])) == []


def test_the_comparison_sees_a_difference():
    theirs = {"f": ["a", "b=1"], "C": {"__init__": ["n=0"], "p": "property"}}
    assert list(differences(theirs, theirs)) == []
    ours = {"f": ["a", "b=2"], "C": {"__init__": None, "p": []}, "g": []}
    assert [line.split()[0] for line in differences(ours, theirs)] == ["f:", "C.p:", "g"]
