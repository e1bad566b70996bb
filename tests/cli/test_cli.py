"""The command line, as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from gpusift import SIFT, __version__
from gpusift.cli import extract, match, self_check, show
from gpusift.cli import options as cli_options
from gpusift.images import read_image
from gpusift.parameters import Parameters
from tests.support.command import run
from tests.support.pictures import blobs


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder with two pictures of one stem at different depths; its parent is the current one."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), blobs(0))
    cv2.imwrite(str(folder / "sub" / "a.png"), blobs(1))
    monkeypatch.chdir(tmp_path)
    SIFT(device="cpu").compute(blobs(0))  # a checkout builds its kernels on first use, and says so
    return folder


def test_every_parameter_is_an_option_with_its_default():
    assert set(cli_options.PARAMETER_HELP) == set(Parameters.__dataclass_fields__)
    for command in (extract.extract, show.show, match.match):
        options = {option.name: option for option in command.params}
        for name, parameter in Parameters.__dataclass_fields__.items():
            assert options[name].default == parameter.default


def test_show(photos):
    result = run("show", "photos/a.png", "-o", "new/a.png", "--device", "cpu")
    assert result.exit_code == 0, result.output
    count = len(SIFT(device="cpu").compute(read_image("photos/a.png")))
    assert result.stdout == f"{count} keypoints on cpu -> new/a.png\n"
    picture = cv2.imread("new/a.png")
    assert picture.shape == (4 * 60, 4 * 80, 3)
    assert (picture[..., 0] != picture[..., 2]).any()
    assert run("show", "photos/a.png", "-o", "b.png", "--zoom", 1).exit_code == 0
    assert cv2.imread("b.png").shape == (60, 80, 3)


def test_show_keeps_the_photograph(photos):
    before = (photos / "a.png").read_bytes()
    result = run("show", "photos/a.png", "-o", "photos/a.png", "--device", "cpu")
    assert result.exit_code == 1
    assert "exists" in result.stderr
    assert (photos / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/none.png", "-o", "a.png"], "photos/none.png: No such file or directory"),
        (["photos", "-o", "a.png"], "photos: Is a directory"),
        (["photos/a.png", "-o", "a.jpg"], "must be a .png file, got a.jpg"),
        (["photos/a.png", "-o", "photos/a.png/b.png"], "cannot write photos/a.png/b.png"),
        (["photos/a.png", "-o", "a.png", "--upsampling", "3"], "upsampling must be"),
    ],
)
def test_show_says_what_is_wrong(photos, arguments, message):
    result = run("show", *arguments)
    assert result.exit_code != 0
    assert message in result.stderr
    assert not Path("a.png").exists()


def test_info(monkeypatch):
    result = run("info")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"gpusift {__version__}, Python 3")
    assert "CPU: " in result.stdout
    assert "CUDA: " in result.stdout

    from gpusift import devices

    gpu = {"name": "NVIDIA X", "index": 1, "compute_capability": "9.0"}
    gpu |= {"memory_total": 3 << 30}
    info = {"cupy": "14.0", "cuda_driver": "13.1", "cuda_runtime": "13.0", "devices": [gpu]}
    monkeypatch.setattr(devices, "cuda_info", lambda: info)
    for free, memory in ((2 << 30, "2.0 of 3.0 GiB free"), (None, "3.0 GiB, but it is reserved or broken")):
        monkeypatch.setattr(devices, "free_memory_of", lambda index, free=free: free)
        assert run("info").stdout.splitlines()[2:] == [
            "CUDA: driver 13.1, runtime 13.0, CuPy 14.0",
            f"cuda:1: NVIDIA X, compute capability 9.0, {memory}",
        ]
    monkeypatch.setattr(devices, "cuda_info", lambda: {"error": "no driver; install one"})
    assert run("info").stdout.splitlines()[2] == "CUDA: none; no driver; install one"


def test_info_check_computes_on_a_device():
    result = run("info", "--check", "--devices", "cpu")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "cpu: computes correctly"


def test_info_check_tells_a_wrong_device(monkeypatch):
    monkeypatch.setattr(self_check, "EXPECTED", "0" * 64)
    result = run("info", "--check", "--devices", "cpu")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith(
        "cpu: fails: the hash of the features must be 000000000000..., got "
    )


def test_info_check_of_gpus_where_there_is_none():
    from gpusift.devices import cuda_info

    if "error" not in cuda_info():
        pytest.skip("this machine has a GPU")
    for devices in ("all", "0"):
        result = run("info", "--check", "--devices", devices)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: devices")


def test_the_check_holds_on_every_device(device):
    """Also float32's promise of the same bytes, on an image that the package carries."""
    assert self_check.fault_of(device) is None


def test_the_check_says_how_a_device_fails():
    assert self_check.fault_of("gpu").startswith("ValueError: device must be")


def test_version_and_help():
    assert run("--version").stdout == f"gpusift {__version__}\n"
    code = "import gpusift.cli, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    slow = {"cv2", "h5py", "scipy", "cupy", "tqdm", "skimage", "pycolmap", "torch"}
    assert not slow & set(modules.stdout.split())
