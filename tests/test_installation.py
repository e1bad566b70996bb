"""Finding devices, kernels and libraries; clear messages for what is missing."""

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest

import gpusift
from gpusift import devices
from gpusift.devices import get_device, host_library, kernel_sources
from tests.support.checkout import ROOT

# The GPU, present and missing


class FakeRuntime:
    """cupy.cuda.runtime of a machine with `devices` devices, or with an error in place of their number."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, devices):
        self.devices = devices

    def getDeviceCount(self):
        if isinstance(self.devices, str):
            raise self.CUDARuntimeError(self.devices)
        return self.devices

    def getDeviceProperties(self, index):
        return {"name": f"GPU {index}".encode(), "major": 9, "minor": index, "totalGlobalMem": 4}

    def driverGetVersion(self):
        return 13010

    def runtimeGetVersion(self):
        return 12080


@pytest.fixture
def cupy(monkeypatch):
    """A function that replaces CuPy by one that finds this number of devices; None: CuPy is not installed."""

    def put(devices_found):
        fake = None
        if devices_found is not None:
            runtime = FakeRuntime(devices_found)
            fake = SimpleNamespace(
                __version__="14.0.0",
                __name__="cupy",
                cuda=SimpleNamespace(runtime=runtime, Device=lambda index: nullcontext()),
            )
        monkeypatch.setitem(sys.modules, "cupy", fake)
        monkeypatch.setitem(sys.modules, "cupyx", fake and SimpleNamespace())

    devices.cuda_info.cache_clear()
    devices._say_once.cache_clear()
    yield put
    devices.cuda_info.cache_clear()
    devices._say_once.cache_clear()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, ["CuPy could not be imported (ModuleNotFoundError", "pip install gpusift[cuda13]", "gpusift[cuda12]"]),
        (
            "cudaErrorInsufficientDriver: too old",
            ["CuPy 14.0.0", "cudaErrorInsufficientDriver: too old", "nvidia-smi", "--gpus all"],
        ),
        (0, ["no device", "CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_without_a_gpu_the_error_says_what_is_missing_and_auto_selects_the_cpu(cupy, found, says, caplog):
    cupy(found)
    error = devices.cuda_info()["error"]
    for words in says:
        assert words in error
    with pytest.raises(RuntimeError) as caught:
        get_device("cuda")
    assert str(caught.value) == f"device='cuda' cannot be had: {error}"
    with caplog.at_level(logging.INFO, "gpusift"):
        assert [get_device("auto").name for _ in range(3)] == ["cpu"] * 3
    assert [record.getMessage() for record in caplog.records] == ["device='auto' takes cpu"]


def test_the_error_of_a_cupy_that_breaks_on_import_is_shown(cupy, monkeypatch):
    cupy(None)

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "cupy":
                raise OSError("libcuda.so.1: invalid ELF header")

    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert "(OSError: libcuda.so.1: invalid ELF header)" in devices.cuda_info()["error"]


def test_gpus_are_listed_and_selected(cupy, caplog):
    cupy(2)
    assert devices.cuda_info() == {
        "cupy": "14.0.0",
        "cuda_driver": "13.1",
        "cuda_runtime": "12.8",
        "devices": [
            {"index": 0, "name": "GPU 0", "compute_capability": "9.0", "memory_total": 4},
            {"index": 1, "name": "GPU 1", "compute_capability": "9.1", "memory_total": 4},
        ],
    }
    with caplog.at_level(logging.INFO, "gpusift"):
        assert [get_device(name).name for name in ("auto", "cuda", "cuda:0", "cuda:1")] == [
            "cuda:0",
            "cuda:0",
            "cuda:0",
            "cuda:1",
        ]
    assert [record.getMessage() for record in caplog.records] == ["device='auto' takes cuda:0"]
    with pytest.raises(RuntimeError, match="'cuda:2' cannot be had: there are 2 CUDA devices, numbered from 0"):
        get_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cpu:0", "auto:1"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=rf"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}"):
        get_device(name)


# Where the package lies


# Python runs without site (-S): otherwise the finder of an editable installation would be used.
BESIDE_NUMPY = Path(numpy.__file__).parents[1]


def python(code, path, **environment):
    """Runs code in a fresh Python that finds `path`, the standard library and NumPy with its neighbours."""
    process = started(code, path, **environment)
    out, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def started(code, path, **environment):
    """The same, as a running process. It has no site-packages: an editable installation would be found first."""
    kept = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if key in os.environ}
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        env={**kept, "PYTHONPATH": f"{path}{os.pathsep}{BESIDE_NUMPY}", **environment},
        cwd=path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WHERE = "from gpusift.devices import kernel_sources as sources; print(sources.folder(), sources.checkout())"
WHICH = (
    "from gpusift.devices import host_library; print([library.instruction_set for library in host_library.libraries()])"
)


def copy_package(folder):
    shutil.copytree(Path(gpusift.__file__).parent, folder / "gpusift", ignore=shutil.ignore_patterns("lib", "kernels"))


@pytest.mark.xdist_group("wheel")
def test_a_wheel_carries_its_kernels_and_libraries(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert not {"bench", "tests"} & {path.name for path in tmp_path.iterdir()}
    assert python(WHERE, tmp_path).stdout.split() == [str(tmp_path / "gpusift" / "kernels"), "None"]
    expected = str([library.instruction_set for library in host_library.libraries()])
    loaded = python(WHICH, tmp_path)
    assert loaded.stdout.strip() == expected, loaded.stderr
    checked = python("from gpusift.cli import main; main(['info', '--check'])", tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_package_without_libraries_is_told_from_a_checkout(tmp_path):
    copy_package(tmp_path)
    shutil.copytree(kernel_sources.folder(), tmp_path / "gpusift" / "kernels")
    without = python(WHICH, tmp_path)
    assert f"RuntimeError: gpusift's CPU library was not found in {tmp_path / 'gpusift' / 'lib'}" in without.stderr
    assert "install gpusift from a wheel" in without.stderr


def test_without_kernels_the_error_says_that_the_installation_is_incomplete(tmp_path):
    copy_package(tmp_path)
    stderr = python(WHERE, tmp_path).stderr
    assert f"RuntimeError: gpusift's kernels were not found beside {tmp_path / 'gpusift'}" in stderr
    assert "install gpusift again" in stderr


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout, without build results."""
    if kernel_sources.checkout() is None:
        pytest.skip("the tests do not run from a checkout")
    copy_package(tmp_path)
    shutil.copytree(kernel_sources.folder(), tmp_path / "kernels")
    shutil.copy(ROOT / "CMakeLists.txt", tmp_path)
    return tmp_path


def test_a_checkout_has_its_kernels_beside_the_package(checkout):
    assert python(WHERE, checkout).stdout.split() == [str(checkout / "kernels"), str(checkout)]


def test_a_checkout_takes_the_libraries_of_its_sources_only(checkout):
    built = checkout / "build" / "host"
    built.mkdir(parents=True)
    for library in host_library.libraries():
        shutil.copy(library.path, built)
    no_compiler = {"PATH": str(checkout / "nothing"), "CXX": str(checkout / "nothing" / "c++")}
    names = str([library.instruction_set for library in host_library.libraries()])
    assert python(WHICH, checkout, **no_compiler).stdout.strip() == names

    with (checkout / "kernels" / "extrema.cu").open("a") as file:
        file.write("// changed\n")
    stderr = python(WHICH, checkout, **no_compiler).stderr
    assert "building gpusift's CPU kernels in" in stderr
    assert (
        "RuntimeError: gpusift runs from a checkout whose CPU kernels are not built, and building them failed" in stderr
    )
    assert "pip install cmake" in stderr
    assert "apt install g++" in stderr


STUB = """#!/bin/sh
# Builds as CMake does, but slowly and in place: by copying.
[ "$1" = --build ] || exit 0
echo built >> calls
{extra}
for library in {libraries}; do
    head -c 5000 "$library" > "build/host/${{library##*/}}"; sleep 0.1; cat "$library" > "build/host/${{library##*/}}"
done
"""


def with_stub(checkout: Path, extra: str = "") -> dict[str, str]:
    """Put a program in the place of CMake; return the environment that finds it."""
    libraries = " ".join(f"'{library.path}'" for library in host_library.libraries())
    (checkout / "bin").mkdir()
    (checkout / "bin" / "cmake").write_text(STUB.format(libraries=libraries, extra=extra))
    (checkout / "bin" / "cmake").chmod(0o755)
    return {"PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def test_processes_that_start_at_once_build_once_and_load_whole_libraries(checkout):
    environment = with_stub(checkout)
    processes = [started(WHICH, checkout, **environment) for _ in range(6)]
    names = str([library.instruction_set for library in host_library.libraries()])
    for process in processes:
        out, errors = process.communicate(timeout=100)
        assert out.strip() == names, errors
    assert (checkout / "calls").read_text().split() == ["built"]
    assert not list((checkout / "build" / "host").glob("*.tmp"))


def test_sources_that_change_during_a_build_are_told_and_nothing_is_loaded(checkout):
    environment = with_stub(checkout, "echo '// changed' >> kernels/extrema.cu")
    assert "must not change while gpusift is built" in python(WHICH, checkout, **environment).stderr
    assert not [path for path in (checkout / "build" / "host").glob("*/*.so") if "CMakeFiles" not in path.parts]


def test_importing_gpusift_imports_nothing_heavy():
    heavy = ("numpy", "scipy", "cv2", "cupy", "h5py", "matplotlib", "skimage", "PIL", "click")
    code = f"import sys, gpusift; print([name for name in {heavy} if name in sys.modules])"
    code += "; from gpusift import SIFT, Features, match_descriptors; SIFT(device='cpu')"
    code += f"; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['numpy']"], done.stderr
