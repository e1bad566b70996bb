"""Fixtures of all tests: every test body that takes `device` runs on each device."""

import pytest
from hypothesis import settings

# The same examples on every run, and no limits of time.
settings.register_profile("gpusift", derandomize=True, deadline=None, database=None)
settings.load_profile("gpusift")


def pytest_runtest_setup(item):
    """A test marked gpu is skipped on a machine without one, saying why."""
    if item.get_closest_marker("gpu"):
        from gpusift.device import cuda_info

        error = cuda_info().get("error")
        if error:
            pytest.skip(f"no GPU to run on: {error}")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The name of a device."""
    return request.param
