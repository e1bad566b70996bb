"""Fixtures of all tests: every test body that takes `device` runs on each device."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, and no limits of time.
settings.register_profile("gpusift", derandomize=True, deadline=None, database=None)
settings.load_profile("gpusift")


def pytest_runtest_setup(item):
    """A test marked gpu is skipped on a machine without one, saying why."""
    if item.get_closest_marker("gpu"):
        from gpusift.devices import cuda_info

        error = cuda_info().get("error")
        if error:
            pytest.skip(f"no GPU to run on: {error}")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The name of a device."""
    return request.param


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory, where there is such a place: files are synchronised at once."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
