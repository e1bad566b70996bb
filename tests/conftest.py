"""Fixtures of all tests: every test body that takes `device` runs on each device."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.checkout import PYTHONPATH, ROOT
from tests.support.wheel import build

# The same examples on every run, and no time limits.
settings.register_profile("gpusift", derandomize=True, deadline=None, database=None)
settings.load_profile("gpusift")

os.environ["PYTHONPATH"] = PYTHONPATH


def pytest_addoption(parser):
    """The option that replaces CuPy by its stand-in (tests/support/cupy_standin)."""
    parser.addoption(
        "--cuda-standin",
        type=int,
        metavar="SEED",
        help="run tests on device='cuda' without a GPU, in an order of streams drawn from the seed",
    )
    parser.addoption(
        "--cuda-standin-kernels",
        choices=("one-thread", "emulated"),
        default="one-thread",
        help="the build of the kernels that the stand-in launches: the CPU device's, or with a thread of the operating "
        "system for each CUDA thread",
    )


def pytest_configure(config):
    """Puts the stand-in for CuPy on the path."""
    if config.getoption("--cuda-standin") is not None:
        from tests.support import cupy_standin, emulated

        is_emulated = config.getoption("--cuda-standin-kernels") == "emulated"
        library = {"library": os.fspath(emulated.build())} if is_emulated else {}
        cupy_standin.install(seed=config.getoption("--cuda-standin"), **library)


@pytest.fixture(autouse=True)
def no_violations(request):
    """On the stand-in, a test fails if anything that it did was against the rules, also where it was caught."""
    seed = request.config.getoption("--cuda-standin")
    if seed is None:
        yield
        return
    import standin

    standin.reset(seed=f"{seed} {request.node.nodeid}")
    yield
    standin.machine().settle()
    violations = standin.take_violations()
    assert violations == [], f"with --cuda-standin={seed}"


def pytest_runtest_setup(item):
    """Skip a test whose device this machine has not, with the reason."""
    if item.get_closest_marker("gpu"):
        from gpusift.devices import cuda_info

        error = cuda_info().get("error")
        if error:
            pytest.skip(f"no GPU to run on: {error}")
    if item.get_closest_marker("standin") and item.config.getoption("--cuda-standin") is None:
        pytest.skip("needs the stand-in for CuPy: pass --cuda-standin=1")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The name of a device."""
    return request.param


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory if possible, where synchronizing files costs nothing."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel of the checkout; its tests are of one group, so that one process builds it."""
    pytest.importorskip("scikit_build_core", reason='the package is missing: pip install "gpusift[test]"')
    if not (ROOT / "Dockerfile").exists():
        pytest.skip("the tests do not run from a checkout")
    return build(tmp_path_factory.mktemp("wheel"))
