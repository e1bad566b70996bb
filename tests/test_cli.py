"""The command line, as a user calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from gpusift import SIFT, __version__, cli, cli_options, hdf5, npz
from gpusift.images import read_image
from gpusift.parameters import Parameters

# Ctrl-C is heard also where the tests run in the background of a shell, which has it ignored.
CODE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from gpusift.cli import main; main()"
SCRIPT = [sys.executable, "-c", CODE]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def blobs(seed: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random(shape), None, 3)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


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


def assert_same(entry: h5py.Group, path: Path, **parameters: object) -> None:
    image = read_image(path)
    sift = SIFT(device="cpu", **parameters)
    expected = hdf5.hloc_arrays(sift.compute(image), image.shape, sift.parameters.normalization)
    assert set(entry) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(entry[key], array)


def test_extract_to_hdf5(photos):
    result = run("extract", photos, "-o", "out/f.h5", "--device", "cpu")
    assert result.exit_code == 0, result.output
    with h5py.File("out/f.h5") as file:
        assert_same(file["a.png"], photos / "a.png")
        assert_same(file["sub/a.png"], photos / "sub/a.png")
        keypoints = len(file["a.png/keypoints"]) + len(file["sub/a.png/keypoints"])
    assert keypoints > 20
    assert result.stdout.startswith(f"2 of 2 images, {keypoints} keypoints, ")
    assert result.stdout.endswith(" s on cpu, 0 failed -> out/f.h5\n")
    assert result.stderr == ""


def test_extract_to_a_folder(photos):
    assert run("extract", photos, "-o", "out", "--device", "cpu").exit_code == 0
    written = sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.*"))
    assert written == ["a.png.npz", "sub/a.png.npz"]
    expected = SIFT(device="cpu").compute(read_image(photos / "a.png"))
    features = npz.load("out/a.png.npz")
    np.testing.assert_array_equal(features.positions, expected.positions)
    np.testing.assert_array_equal(features.descriptors, expected.descriptors)
    with np.load("out/a.png.npz") as data:
        np.testing.assert_array_equal(data["image_shape"], (60, 80))


def test_a_folder_may_hold_other_results(photos):
    assert run("extract", photos / "a.png", "-o", "out", "--device", "cpu").exit_code == 0
    before = Path("out/a.png.npz").read_bytes()
    assert run("extract", photos / "sub", "--root", photos, "-o", "out").exit_code == 0
    assert Path("out/a.png.npz").read_bytes() == before
    assert Path("out/sub/a.png.npz").exists()


def test_globs_and_quiet(photos):
    result = run("extract", "photos/**/*.png", "-o", "f.h5", "--device", "cpu", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    with h5py.File("f.h5") as file:
        assert set(file) == {"a.png", "sub"}


def test_bad_files_do_not_stop_the_rest(photos):
    data = (photos / "a.png").read_bytes()
    (photos / "0_truncated.png").write_bytes(data[: len(data) // 2])
    (photos / "0_empty.jpg").touch()
    cv2.imwrite(str(photos / "0_nan.tif"), np.full((30, 30), np.nan, np.float32))
    (photos / "0_gone.png").symlink_to("nowhere")
    result = run("extract", photos, "none.png", "-o", "f.h5", "--device", "cpu")
    assert result.exit_code == 1
    with h5py.File("f.h5") as file:
        assert set(file) == {"a.png", "sub"}
    lines = result.stderr.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("failed: ") for line in lines)
    reasons = dict(line.removeprefix("failed: ").split(": ", 1) for line in lines)
    reasons = {Path(path).name: reason for path, reason in reasons.items()}
    assert reasons["none.png"] == "no such file or folder"
    assert reasons["0_gone.png"] == "No such file or directory"
    assert "empty" in reasons["0_empty.jpg"]
    assert "truncated" in reasons["0_truncated.png"]
    assert "decoder: " in reasons["0_truncated.png"]
    assert "finite" in reasons["0_nan.tif"]
    assert "2 of 6 images" in result.stdout
    assert "5 failed" in result.stdout


def test_stderr_has_one_line_a_bad_file_even_past_python(photos):
    """Decoders print on the process's stderr; no terminal is there, so no progress either."""
    data = (photos / "a.png").read_bytes()
    (photos / "b.png").write_bytes(data[: len(data) // 2])
    command = [*SCRIPT, "extract", "photos", "-o", "f.h5", "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "b.png" in result.stderr


def test_what_a_decoder_says_of_a_picture_it_read_is_passed_on(photos):
    path = photos / "sub" / "a.jpg"
    cv2.imwrite(str(path), blobs(2))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 200] + b"\xff\xd9")  # cut, but properly ended
    result = run("extract", path, "-o", "f.h5", "--device", "cpu")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {path}: decoder: Corrupt JPEG data")


def test_an_image_without_features_is_an_empty_entry(photos):
    cv2.imwrite(str(photos / "flat.png"), np.full((40, 50), 7, np.uint8))
    cv2.imwrite(str(photos / "dot.png"), np.full((1, 1), 7, np.uint8))
    assert run("extract", photos, "-o", "f.h5", "--device", "cpu").exit_code == 0
    assert run("extract", photos, "-o", "out", "--device", "cpu").exit_code == 0
    with h5py.File("f.h5") as file:
        for name, size in (("flat.png", (50, 40)), ("dot.png", (1, 1))):
            assert file[name]["keypoints"].shape == (0, 2)
            assert file[name]["descriptors"].shape == (128, 0)
            np.testing.assert_array_equal(file[name]["image_size"], size)
            assert len(npz.load(f"out/{name}.npz")) == 0


@pytest.mark.parametrize("paths", [["empty"], ["none.png"], ["*.tif"]])
def test_no_images_is_an_error(photos, paths):
    Path("empty").mkdir()
    result = run("extract", *paths, "-o", "f.h5", "--device", "cpu")
    assert result.exit_code == 1
    assert "no image found in" in result.stderr
    assert not Path("f.h5").exists()


@pytest.mark.parametrize("out", ["f.h5", "out"])
def test_results_are_not_replaced_unless_asked(photos, out):
    run("extract", photos, "-o", out, "--device", "cpu")
    files = {p: p.read_bytes() for p in [Path("f.h5"), *Path("out").rglob("*.npz")] if p.exists()}
    assert files
    again = ["extract", photos, "-o", out, "--device", "cpu", "--upsampling", 1]
    result = run(*again)
    assert result.exit_code == 1
    assert "exists" in result.stderr
    assert "--overwrite" in result.stderr
    assert {path: path.read_bytes() for path in files} == files
    assert run(*again, "--overwrite").exit_code == 0
    assert all(path.read_bytes() != data for path, data in files.items())


@pytest.mark.parametrize("out", ["photos/a.png/f.h5", "photos/a.png"])
def test_an_output_that_cannot_be_written(photos, out):
    result = run("extract", "photos", "-o", out, "--device", "cpu")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot write to {out}: ") or "exists" in result.stderr
    assert cv2.imread("photos/a.png") is not None


def test_a_full_disk_stops_and_keeps_what_is_done(photos, monkeypatch):
    write = hdf5.write

    def full(path, name, *arguments):
        if name == "sub/a.png":
            raise OSError(28, "No space left on device")
        write(path, name, *arguments)

    monkeypatch.setattr(hdf5, "write", full)
    result = run("extract", "photos", "-o", "f.h5", "--device", "cpu")
    assert result.exit_code == 1
    assert "No space left on device; stopped after 1 of 2 images" in result.stderr
    assert "kept in f.partial.h5" in result.stderr
    with h5py.File("f.partial.h5") as file:
        assert_same(file["a.png"], photos / "a.png")


def test_options_reach_sift(photos):
    options = {"upsampling": 1, "n_octaves": 2, "n_scales": 4, "sigma_min": 1.5, "sigma_in": 0.4, "c_dog": 0.005}
    options |= {"c_edge": 12.0, "n_bins": 24, "lambda_ori": 1.2, "c_max": 0.7, "lambda_descr": 5.0}
    options |= {"n_hist": 3, "n_ori": 6, "dtype": "float64", "blur": "ndimage", "num_threads": 1}
    options |= {"max_keypoints": 5, "keep": "grid", "normalization": "root", "descriptor_layout": "vlfeat"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    options |= {"upright": True, "precise_upscale": True}
    flags += ["--upright", "--precise-upscale"]
    result = run("extract", photos, "-o", "f.h5", "--device=cpu", *flags)
    assert result.exit_code == 0, result.output
    with h5py.File("f.h5") as file:
        assert file["a.png/descriptors"].shape == (3 * 3 * 6, 5)
        assert_same(file["a.png"], photos / "a.png", **options)


def test_every_parameter_is_an_option_with_its_default():
    assert set(cli_options.PARAMETER_HELP) == set(Parameters.__dataclass_fields__)
    for command in (cli.extract, cli.show, cli.match):
        options = {option.name: option for option in command.params}
        for name, parameter in Parameters.__dataclass_fields__.items():
            assert options[name].default == parameter.default


def test_wrong_parameters_are_told_and_nothing_is_written(photos):
    for flag in ("--n-scales=0", "--upsampling=3", "--device=gpu", "--num-threads=0", "--max-keypoints=0"):
        result = run("extract", photos, "-o", "f.h5", flag)
        assert result.exit_code != 0
        assert result.stderr.startswith("Error: ")
    assert not list(Path().glob("f*"))


def test_a_missing_gpu_is_an_error(photos):
    from gpusift.device import cuda_info

    if "error" not in cuda_info():
        pytest.skip("this machine has a GPU")
    result = run("extract", photos, "-o", "f.h5", "--device", "cuda")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_exif_can_be_switched_off(photos):
    segment = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    _, data = cv2.imencode(".jpg", blobs(3))
    data = data.tobytes()
    marker = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    Path("turned.jpg").write_bytes(data[:2] + marker + data[2:])
    run("extract", "turned.jpg", "-o", "on.h5", "--device", "cpu")
    run("extract", "turned.jpg", "-o", "off.h5", "--device", "cpu", "--no-exif")
    with h5py.File("on.h5") as on, h5py.File("off.h5") as off:
        np.testing.assert_array_equal(on["turned.jpg/image_size"], (60, 80))
        np.testing.assert_array_equal(off["turned.jpg/image_size"], (80, 60))


def test_progress_is_shown_on_a_terminal(photos):
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    command = [*SCRIPT, "extract", "photos", "-o", "f.h5", "--device", "cpu"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    assert result.returncode == 0
    assert "2/2" in os.read(master, 10000).decode()
    os.close(master)


@pytest.mark.parametrize("out", ["f.h5", "out"])
def test_ctrl_c_keeps_what_is_done(photos, out):
    for index in range(300):
        cv2.imwrite(str(photos / f"b{index:03}.png"), blobs(index, (300, 400)))
    command = [*SCRIPT, "extract", "photos", "-o", out, "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def some_are_done() -> bool:
        partial = Path("f.partial.h5")
        return Path("out/b003.png.npz").exists() or (partial.exists() and partial.stat().st_size > 200_000)

    while not some_are_done():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.startswith("interrupted after ")
    done = int(stderr.split()[2])
    assert 1 <= done < 302
    if out == "out":
        entries = [npz.load(path) for path in Path("out").rglob("*")]
        assert "kept in out" in stderr
    else:
        assert not Path("f.h5").exists()
        assert "kept in f.partial.h5" in stderr
        with h5py.File("f.partial.h5") as file:
            entries = [len(entry) for entry in file.values()]
            assert set(entries) == {6}
            assert_same(file["a.png"], photos / "a.png")
    assert done <= len(entries) <= done + 1


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

    from gpusift import device

    gpu = {"name": "NVIDIA X", "index": 1, "compute_capability": "9.0"}
    gpu |= {"memory_total": 3 << 30, "memory_free": 2 << 30}
    info = {"cupy": "14.0", "cuda_driver": "13.1", "cuda_runtime": "13.0", "devices": [gpu]}
    monkeypatch.setattr(device, "cuda_info", lambda: info)
    assert run("info").stdout.splitlines()[2:] == [
        "CUDA: driver 13.1, runtime 13.0, CuPy 14.0",
        "cuda:1: NVIDIA X, compute capability 9.0, 2.0 of 3.0 GiB free",
    ]
    monkeypatch.setattr(device, "cuda_info", lambda: {"error": "no driver; install one"})
    assert run("info").stdout.splitlines()[2] == "CUDA: none; no driver; install one"


def test_version_and_help():
    assert run("--version").stdout == f"gpusift {__version__}\n"
    code = "import gpusift.cli, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    slow = {"cv2", "h5py", "scipy", "cupy", "tqdm", "skimage", "pycolmap", "torch"}
    assert not slow & set(modules.stdout.split())
