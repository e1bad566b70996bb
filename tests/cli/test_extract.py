"""`gpusift extract`, as a user calls it; `test_interrupted.py` stops it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import termios
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from gpusift import SIFT, hdf5, npz
from gpusift.cli.job import IMAGES_FAILED
from gpusift.cli.options import MemoryLimit
from gpusift.images import read_image
from gpusift.sinks import failures
from tests.support.command import run
from tests.support.pictures import blobs

SCRIPT = [sys.executable, "-c", "from gpusift.cli import main; main()"]


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
    sift = SIFT.colmap(device="cpu", **parameters)  # the profile of .h5 files
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
    assert written == ["a.png.npz", "gpusift.json", "sub/a.png.npz"]
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
    assert result.exit_code == IMAGES_FAILED
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
    assert "2 of 7 images" in result.stdout
    assert "5 failed" in result.stdout


def test_stderr_has_one_line_a_bad_file_even_past_python(photos):
    """Decoders print on the process's stderr; no terminal is there, so no progress either."""
    data = (photos / "a.png").read_bytes()
    (photos / "b.png").write_bytes(data[: len(data) // 2])
    command = [*SCRIPT, "extract", "photos", "-o", "f.h5", "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == IMAGES_FAILED
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


@pytest.mark.parametrize("out", ["f.h5", "out", "f.db", "f.parquet"])
def test_other_settings_are_refused_unless_results_are_to_be_replaced(photos, out):
    run("extract", photos, "-o", out, "--device", "cpu", "--max-keypoints", 50)
    files = contents(out)
    again = ["extract", photos, "-o", out, "--device", "cpu", "--upsampling", 1, "--max-keypoints", 50]
    result = run(*again)
    assert result.exit_code == 1
    assert f"settings must be those that {out} was made with, got others: upsampling was 2, is 1;" in result.stderr
    assert "overwrite" in result.stderr
    assert contents(out) == files
    result = run(*again, "--overwrite")
    assert result.stdout.startswith("2 of 2 images, ")
    assert result.exit_code == 0
    assert contents(out) != files


def contents(out: str) -> dict[Path, bytes]:
    files = {path: path.read_bytes() for path in [Path(out), *Path(out).rglob("*")] if path.is_file()}
    assert files
    return files


@pytest.mark.parametrize("out", ["f.h5", "out", "f.db", "f.parquet"])
def test_the_same_command_goes_on(photos, out):
    """With new images, failed ones, and failed ones that are mended, as with none of them."""
    command = ["extract", photos, "-o", out, "--device", "cpu"]
    (photos / "b.png").touch()
    first = run(*command)
    assert first.exit_code == IMAGES_FAILED
    assert first.stdout.startswith("2 of 3 images, ")

    cv2.imwrite(str(photos / "b.png"), blobs(2))
    cv2.imwrite(str(photos / "c.png"), blobs(3))
    second = run(*command)
    assert second.exit_code == IMAGES_FAILED
    assert second.stdout.startswith("1 of 4 images, ")
    assert "0 failed, 1 failed before (--retry-failed), 2 skipped, as they are done" in second.stdout

    third = run(*command, "--retry-failed")
    assert third.exit_code == 0
    assert third.stdout.startswith("1 of 4 images, ")
    assert "0 failed, 3 skipped, as they are done" in third.stdout
    assert not list(Path().rglob("*failures.jsonl"))

    last = run(*command)
    assert last.exit_code == 0
    assert last.stdout.startswith("0 of 4 images, 0 keypoints, ")


def test_failures_are_recorded_beside_the_results(photos):
    (photos / "b.png").touch()
    run("extract", photos, "-o", "f.h5", "--device", "cpu")
    (record,) = failures.read("f.h5.failures.jsonl")
    assert record["name"] == "b.png"
    assert record["url"] == str((photos / "b.png").absolute())
    assert "empty" in record["reason"]


@pytest.mark.parametrize("out", ["f.h5", "f.db", "out", "f.parquet"])
def test_what_is_not_ours_is_not_touched(photos, out):
    path = Path(out)
    if path.suffix in (".h5", ".db"):
        path.write_bytes(b"something else")
    else:
        path.mkdir()
        np.savez(path / "a.png.npz", a=np.arange(3))
        (path / "part-1.parquet").write_bytes(b"something else")
    before = contents(out)
    result = run("extract", photos, "-o", out, "--device", "cpu")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {out} must be ")
    assert contents(out) == before


@pytest.mark.parametrize("out", ["photos/a.png/f.h5", "npz:photos/a.png"])
def test_an_output_that_cannot_be_written(photos, out):
    result = run("extract", "photos", "-o", out, "--device", "cpu")
    assert result.exit_code == 1
    path = out.removeprefix("npz:")
    assert re.match(rf"Error: (cannot write to (npz:)?{path}: |(npz:)?{path} must be new)", result.stderr)
    assert cv2.imread("photos/a.png") is not None


def test_options_reach_sift(photos):
    options = {"upsampling": 1, "n_octaves": 2, "n_scales": 4, "sigma_min": 1.5, "sigma_in": 0.4, "c_dog": 0.005}
    options |= {"c_edge": 12.0, "n_bins": 24, "lambda_ori": 1.2, "c_max": 0.7, "lambda_descr": 5.0}
    options |= {"n_hist": 3, "n_ori": 6, "dtype": "float64", "blur": "ndimage", "num_threads": 1}
    options |= {"max_keypoints": 5, "keep": "grid", "normalization": "root", "descriptor_layout": "vlfeat"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    options |= {"upright": True, "precise_upscale": True, "pooling": (0.5, 1, 2)}
    flags += ["--upright", "--precise-upscale", "--pooling", "0.5,1,2"]
    result = run("extract", photos, "-o", "f.h5", "--device=cpu", *flags)
    assert result.exit_code == 0, result.output
    with h5py.File("f.h5") as file:
        assert file["a.png/descriptors"].shape == (3 * 3 * 6, 5)
        assert_same(file["a.png"], photos / "a.png", **options)


def test_wrong_parameters_are_told_and_nothing_is_written(photos):
    for flag in ("--n-scales=0", "--upsampling=3", "--device=gpu", "--num-threads=0", "--pooling=1,0"):
        result = run("extract", photos, "-o", "f.h5", flag)
        assert result.exit_code != 0
        assert result.stderr.startswith("Error: ")
    assert not list(Path().glob("f*"))


def test_a_missing_gpu_is_an_error(photos):
    from gpusift.devices import cuda_info

    if "error" not in cuda_info():
        pytest.skip("this machine has a GPU")
    result = run("extract", photos, "-o", "f.h5", "--device", "cuda")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def turned(orientation: int, suffix: str) -> bytes:
    """A picture with an orientation in its EXIF data, or in the tags of TIFF."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.fromarray(blobs(3)).save(file, {".jpg": "jpeg", ".png": "png", ".tif": "tiff"}[suffix], exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_hloc_gets_the_frame_that_it_reads(photos, suffix):
    """hloc and COLMAP look at the pixels as stored, whatever the orientation says."""
    folder = Path("turned")
    folder.mkdir()
    for orientation in range(1, 9):
        (folder / f"{orientation}{suffix}").write_bytes(turned(orientation, suffix))
    assert run("extract", folder, "-o", "f.h5", "--device", "cpu").exit_code == 0
    with h5py.File("f.h5") as file:
        for orientation in range(2, 9):
            for key, values in file[f"1{suffix}"].items():
                np.testing.assert_array_equal(file[f"{orientation}{suffix}"][key], values)
        np.testing.assert_array_equal(file[f"6{suffix}/image_size"], (80, 60))


def test_exif_can_be_switched_off(photos):
    Path("turned.jpg").write_bytes(turned(6, ".jpg"))
    run("extract", "turned.jpg", "-o", "on", "--device", "cpu")
    run("extract", "turned.jpg", "-o", "off", "--device", "cpu", "--no-exif")
    on, off = (npz.load(f"{folder}/turned.jpg.npz").positions.max(axis=0) for folder in ("on", "off"))
    assert on[1] < 60
    assert off[0] < 60


def test_progress_is_shown_on_a_terminal(photos):
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    command = [*SCRIPT, "extract", "photos", "-o", "f.h5", "--device", "cpu"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    assert result.returncode == 0
    assert "2/2" in os.read(master, 10000).decode()
    os.close(master)


def test_a_database_has_colmaps_defaults(photos):
    pycolmap = pytest.importorskip("pycolmap")
    from gpusift.colmap import SIFT_PARAMETERS

    assert run("extract", photos, "-o", "f.db", "--device", "cpu", "--max-keypoints", 20).exit_code == 0
    with pycolmap.Database.open("f.db") as database:
        (image,) = [image for image in database.read_all_images() if image.name == "sub/a.png"]
        rows = np.asarray(database.read_keypoints(image.image_id))
    sift = SIFT(device="cpu", **{**SIFT_PARAMETERS, "max_keypoints": 20})
    features = sift.compute(read_image(photos / "sub" / "a.png"))
    assert len(features) == 20
    np.testing.assert_allclose(rows[:, :2], features.positions[:, ::-1] + 0.5, atol=1e-4)


def test_a_database_takes_no_other_layout(photos):
    result = run("extract", photos, "-o", "f.db", "--device", "cpu", "--descriptor-layout", "vlfeat")
    assert result.exit_code == 1
    assert "descriptor_layout" in result.stderr
    assert not Path("f.db").exists()


def test_larger_images_are_made_smaller(photos):
    run("extract", photos, "-o", "small.h5", "--device", "cpu", "--max-size", 40)
    run("extract", photos, "-o", "whole.h5", "--device", "cpu")
    with h5py.File("small.h5") as small, h5py.File("whole.h5") as whole:
        np.testing.assert_array_equal(small["a.png/image_size"], whole["a.png/image_size"])
        there, here = (file["a.png/keypoints"][:] for file in (whole, small))
    assert not np.array_equal(there, here)
    distances = np.linalg.norm(there[:, None] - here, axis=2).min(axis=1)
    assert np.median(distances) < 0.5  # the same blobs, in pixels of the file


def test_too_large_images_are_refused(photos):
    result = run("extract", photos, "-o", "out", "--device", "cpu", "--max-pixels", 60 * 80 - 1)
    assert result.exit_code == IMAGES_FAILED
    assert result.stdout.startswith("0 of 2 images, ")
    assert "pixels" in result.stderr


def test_scans_of_a_jpeg_are_limited(photos):
    data = cv2.imencode(".jpg", blobs(0), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data[data.rindex(b"\xff\xc4") : -2]  # tables and a scan
    Path("many.jpg").write_bytes(data[:-2] + last * 3000 + data[-2:])
    few = ("--device", "cpu", "--max-pixels", 5000)
    result = run("extract", "many.jpg", "-o", "few", *few, "--max-scans", 1)
    assert result.exit_code == IMAGES_FAILED
    assert "must not have so many scans (max_scans)" in result.stderr
    assert "so many scans" not in run("extract", "many.jpg", "-o", "many", *few).stderr


def test_a_format_without_bounds_must_be_allowed(photos):
    Path("a.jxl").write_bytes(b"\xff\x0a" + bytes(99))
    result = run("extract", "a.jxl", "-o", "no", "--device", "cpu")
    assert result.exit_code == IMAGES_FAILED
    assert "it is JPEG XL; if you trust where it comes from, allow it" in result.stderr
    result = run("extract", "a.jxl", "-o", "yes", "--device", "cpu", "--allow-format", "jpeg xl")
    assert result.exit_code == IMAGES_FAILED
    assert "must be a whole image that OpenCV reads" in result.stderr


def test_a_pattern(photos):
    cv2.imwrite(str(photos / "b.jpg"), blobs(2))
    assert run("extract", photos, "-o", "out", "--device", "cpu", "--pattern", "*.jpg").exit_code == 0
    assert [path.name for path in Path("out").rglob("*.npz")] == ["b.jpg.npz"]


def test_lists(photos):
    Path("list.txt").write_text("photos/a.png\nphotos/sub/a.png\n")
    assert run("extract", "--files-from", "list.txt", "-o", "out", "--device", "cpu").exit_code == 0
    assert sorted(path.name for path in Path("out").rglob("*.npz")) == ["a.png.npz", "a.png.npz"]
    command = [*SCRIPT, "extract", "-", "-o", "stdin", "--device", "cpu"]
    assert subprocess.run(command, input="photos/a.png\n", text=True, capture_output=True).returncode == 0
    assert [path.name for path in Path("stdin").rglob("*.npz")] == ["a.png.npz"]


def test_an_archive_by_its_url(photos):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.write(photos / "a.png", "folder/a.png")
    assert run("extract", "zip://folder/*.png::photos.zip", "-o", "out", "--device", "cpu").exit_code == 0
    expected = SIFT(device="cpu").compute(read_image(photos / "a.png"))
    (path,) = Path("out").rglob("*.npz")
    np.testing.assert_array_equal(npz.load(path).descriptors, expected.descriptors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out"], "there must be a SOURCE, or --files-from"),
        (["photos", "-o", "out", "--devices", "cpu", "--dask", "local:1"], "exclude each other"),
        (["photos", "-o", "out", "--devices", "gpu"], "devices must be 'all' or numbers"),
        (["photos", "-o", "out", "--devices", "cpu", "--upsampling", 3], "upsampling must be"),
        (["photos", "-o", "out", "--log-json", "photos"], "cannot write photos: Is a directory"),
        (["photos", "-o", "s3://bucket/out"], "must be a path on this machine"),
        (["--files-from", "none.txt", "-o", "out"], "none.txt"),
    ],
)
def test_extract_says_what_is_wrong(photos, arguments, message):
    result = run("extract", *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not Path("out").exists()


def test_a_log_for_machines(photos):
    (photos / "b.png").touch()
    for _ in range(2):
        result = run("extract", photos, "-o", "out", "--device", "cpu", "--log-json", "log.jsonl")
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    runs = [index for index, line in enumerate(lines) if line["event"] == "start"]
    assert runs[0] == 0
    first, second = lines[: runs[1]], lines[runs[1] :]
    assert (first[0]["output"], first[0]["device"], first[0]["settings"]["n_octaves"]) == ("out", "cpu", 8)
    assert {line["name"] for line in first if line["event"] == "image"} == {"a.png", "sub/a.png"}
    (failed,) = [line for line in first if line["event"] == "failed"]
    assert (failed["name"], failed["url"]) == ("b.png", str((photos / "b.png").absolute()))
    counts = {"images": 2, "failures": 1, "skipped": 0, "exit_code": IMAGES_FAILED, "error": None}
    assert counts.items() <= first[-1].items()
    assert {"event": "end", "images": 0, "skipped": 2, "failed_before": 1}.items() <= second[-1].items()
    assert all(line["time"].endswith("+00:00") for line in lines)
    assert result.stdout.startswith("0 of 3 images")


def test_a_log_on_stdout_is_all_that_is_there(photos):
    result = run("extract", photos, "-o", "out", "--device", "cpu", "--log-json", "-")
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()][-1] == "end"


def test_two_devices(photos):
    command = [*SCRIPT, "extract", "photos", "-o", "f.h5", "--devices", "cpu,cpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert " s on cpu, cpu, 0 failed" in result.stdout
    with h5py.File("f.h5") as file:
        assert_same(file["a.png"], photos / "a.png")
        assert_same(file["sub/a.png"], photos / "sub/a.png")


def test_a_cluster(photos):
    pytest.importorskip("distributed")
    command = [*SCRIPT, "extract", "photos", "-o", "f.h5", "--dask", "local:1", "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert " s on Dask at tcp://" in result.stdout
    with h5py.File("f.h5") as file:
        assert_same(file["a.png"], photos / "a.png")


# A limit of memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2000000", 2_000_000), ("2MB", 2_000_000), ("1.5 MiB", 1_572_864), ("7B", 7), ("3kB", 3000), ("0.5", 0.5)],
)
def test_memory_limits_are_bytes_or_shares(text, expected):
    found = MemoryLimit().convert(text, None, None)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", ["much", "-5", "2XB", "1e9", ""])
def test_wrong_memory_limits(photos, text):
    result = run("extract", photos, "-o", "out", "--memory-limit", text)
    assert result.exit_code == 2
    assert "must be bytes such as 2000000000, 2GB or 500MiB, or a fraction such as 0.5" in result.output


def test_a_memory_limit_changes_no_result_and_no_setting(photos):
    """A run goes on in a sink that was begun with another limit."""
    assert run("extract", photos / "a.png", "-o", "out/a.h5", "--device", "cpu").exit_code == 0
    limited = ("extract", photos, "-o", "out/all.h5", "--device", "cpu", "--memory-limit")
    assert run(*limited, "1500kB").exit_code == 0
    with h5py.File("out/a.h5") as whole, h5py.File("out/all.h5") as parts:
        np.testing.assert_array_equal(parts["a.png/descriptors"], whole["a.png/descriptors"])
    assert "0 of 2 images" in run(*limited, "2MB").stdout


def test_an_image_that_does_not_fit_the_memory_limit_fails(photos):
    result = run("extract", photos, "-o", "out", "--device", "cpu", "--memory-limit", "10kB")
    assert result.exit_code == 1
    assert "memory_limit must be enough for a strip of" in result.stderr
