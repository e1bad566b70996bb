"""`gpusift colmap`, as a user calls it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2  # before pycolmap, see gpusift.sinks.colmap.cameras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as Picture

from gpusift import SIFT, cli
from gpusift.cli.colmap import colmap
from gpusift.cli.extract import extract
from gpusift.cli.job import IMAGES_FAILED
from gpusift.colmap import SIFT_PARAMETERS, keypoint_rows
from gpusift.images import read_image
from gpusift.parameters import Parameters
from tests.support.command import run as run_command
from tests.support.pictures import textured

pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

# Ctrl-C is heard also where the tests run in the background of a shell, which has it ignored.
CODE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from gpusift.cli import main; main()"
SCRIPT = [sys.executable, "-c", CODE, "colmap"]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, ["colmap", *map(str, arguments), "--device", "cpu"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder of two pictures that share much; its parent is the current one."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    picture = textured(0, (120, 160))
    cv2.imwrite(str(folder / "a.png"), picture)
    cv2.imwrite(str(folder / "sub" / "b.png"), picture[10:, 20:])
    monkeypatch.chdir(tmp_path)
    SIFT(device="cpu").compute(picture)  # a checkout builds its kernels on first use, and says so
    return folder


def assert_same(database: str, folder: Path, **parameters: object) -> None:
    sift = SIFT(**{**SIFT_PARAMETERS, **parameters}, device="cpu")
    with pycolmap.Database.open(database) as opened:
        for image in opened.read_all_images():
            features = sift.compute(read_image(folder / image.name))
            np.testing.assert_array_equal(opened.read_keypoints(image.image_id), keypoint_rows(features))
            np.testing.assert_array_equal(opened.read_descriptors(image.image_id).data, features.descriptors)


def count(database: str, what: str) -> int:
    with pycolmap.Database.open(database) as opened:
        return getattr(opened, f"num_{what}")()


@pytest.mark.parametrize("kind", ["exhaustive", "sequential", "pairs"])
def test_features_and_matches(photos, kind):
    Path("pairs.txt").write_text("sub/b.png a.png\n")
    extra = ["--pairs", "pairs.txt"] if kind == "pairs" else []
    result = run("photos", "-o", "new/c.db", "--match", kind, *extra)
    assert result.exit_code == 0, result.output
    assert_same("new/c.db", photos)
    keypoints = count("new/c.db", "keypoints")
    assert keypoints > 100
    assert result.stdout.startswith(f"2 of 2 images, {keypoints} keypoints, ")
    assert result.stdout.endswith(" s on cpu, 0 failed, 1 pairs matched, 1 verified -> new/c.db\n")
    assert result.stderr == ""
    assert count("new/c.db", "inlier_matches") > 30


def test_features_only(photos):
    result = run("photos/**/*.png", "-o", "c.db", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert (count("c.db", "images"), count("c.db", "matches")) == (2, 0)
    result = run("photos/sub/b.png", "--root", "photos", "-o", "d.db")
    assert "1 of 1 images" in result.stdout
    assert "pairs" not in result.stdout
    with pycolmap.Database.open("d.db") as database:
        assert database.read_all_images()[0].name == "sub/b.png"


def test_nothing_else_is_printed(photos):
    """COLMAP logs on the process's stderr."""
    Path("photos/bad.png").write_bytes(b"no picture")
    command = [*SCRIPT, "photos", "-o", "c.db", "--match", "exhaustive", "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == IMAGES_FAILED
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("failed: ")
    assert "bad.png" in result.stderr
    assert result.stdout.count("\n") == 1
    assert "2 of 3 images" in result.stdout
    assert "1 failed" in result.stdout


def test_options_reach_sift_and_colmap(photos):
    options = {"upsampling": 1, "n_octaves": 2, "n_scales": 4, "c_dog": 0.003, "max_keypoints": 50, "keep": "grid"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    camera = ["--camera-model=SIMPLE_PINHOLE", "--camera-params=99,50,40.5"]
    result = run("photos", "-o", "c.db", "--upright", "--normalization=l2", *flags, *camera)
    assert result.exit_code == 0, result.output
    assert_same("c.db", photos, upright=True, normalization="l2", **options)
    with pycolmap.Database.open("c.db") as database:
        assert [list(camera.params) for camera in database.read_all_cameras()] == [[99, 50, 40.5]] * 2
    assert run("photos/a.png", "photos/sub/../a.png", "-o", "d.db", "--single-camera").exit_code == 0


def test_defaults_of_sift_are_colmaps():
    options = {option.name: option for option in colmap.params}
    settled = {"n_hist", "n_ori", "precise_upscale", "descriptor_layout"}
    assert settled.isdisjoint(options)
    assert "no_exif" not in options
    for name, parameter in Parameters.__dataclass_fields__.items():
        if name not in settled:
            assert options[name].default == SIFT_PARAMETERS.get(name, parameter.default)
    of_extract = {option.name: option for option in extract.params}
    assert of_extract["max_keypoints"].default is None  # each command has options of its own
    text = " ".join(run("--help").stdout.split())
    assert "Largest number of features. [default: 16384]" in text


def test_the_same_command_resumes_and_other_settings_are_refused(photos):
    assert run("photos/a.png", "--root", "photos", "-o", "c.db").exit_code == 0
    result = run("photos", "-o", "c.db", "--match", "exhaustive")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 of 2 images, ")
    assert result.stdout.endswith("0 failed, 1 skipped, as they are done, 1 pairs matched, 1 verified -> c.db\n")
    result = run("photos", "-o", "c.db", "--camera-model", "PINHOLE")
    assert result.exit_code == 1
    assert 'camera_model was "SIMPLE_RADIAL", is "PINHOLE"' in result.stderr
    assert count("c.db", "images") == 2
    assert run("photos/sub", "-o", "c.db", "--overwrite").exit_code == 0
    assert count("c.db", "images") == 1


def test_extract_writes_the_same_database(photos):
    """One path: `gpusift extract -o x.db` and `gpusift colmap` differ in nothing, cameras included."""
    exif = Picture.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model"
    exif.get_ifd(0x8769)[0xA405] = 28
    for name in ("c", "d"):
        Picture.fromarray(textured(2)).save(photos / f"{name}.jpg", exif=exif)
    assert run("photos", "-o", "one.db").exit_code == 0
    assert run_command("extract", "photos", "-o", "two.db", "--device", "cpu").exit_code == 0
    for what in ("cameras", "images", "keypoints"):
        assert count("one.db", what) == count("two.db", what)
    assert count("one.db", "cameras") == 3
    cameras = [cameras_of("one.db"), cameras_of("two.db")]
    assert cameras[0] == cameras[1]
    assert run("photos", "-o", "two.db").stdout.startswith("0 of 4 images")


def cameras_of(database: str) -> dict[str, str]:
    with pycolmap.Database.open(database) as opened:
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        return {
            image.name: str(cameras[image.camera_id].todict() | {"camera_id": 0}) for image in opened.read_all_images()
        }


def test_refine_changes_positions_only(photos):
    options = ["--match", "exhaustive"]
    assert run("photos", "-o", "rough.db", *options).exit_code == 0
    assert run("photos", "-o", "refined.db", *options, "--refine").exit_code == 0
    with pycolmap.Database.open("rough.db") as rough, pycolmap.Database.open("refined.db") as refined:
        assert refined.num_keypoints() == rough.num_keypoints()
        assert refined.num_matches() == rough.num_matches()
        assert refined.num_descriptors() == rough.num_descriptors()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "-o", "c.db"], "Error: no image found in none"),
        (["photos", "-o", "c.db", "--match", "pairs"], "Error: --pairs must be given with --match pairs"),
        (["photos", "-o", "c.db", "--pairs", "p.txt"], "Error: --pairs must be given with --match pairs"),
        (["photos", "-o", "c.db", "--match", "pairs", "--pairs", "p.txt"], "Error: cannot read p.txt: "),
        (["photos", "-o", "c.db", "--refine"], "Error: --refine needs matches: add --match"),
        (["photos", "-o", "c.db", "--root", "other"], "Error: images must lie under root other"),
        (["photos", "-o", "c.db", "--camera-model", "LENS"], "Error: camera_model must be one of SIMPLE_PINHOLE"),
        (["photos", "-o", "c.db", "--camera-params", "1,2"], "Error: camera_params of SIMPLE_RADIAL must be f, cx"),
        (["photos", "-o", "c.db", "--camera-params", "f"], "Error: --camera-params must be numbers with commas"),
        (["photos", "-o", "c.db", "--max-keypoints", "0"], "Error: max_keypoints must be"),
        (["photos", "-o", "photos/a.png/c.db"], "Error: cannot write to photos/a.png/c.db: "),
    ],
)
def test_wrong_arguments(photos, arguments, message):
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not list(Path().glob("*.db*"))


def test_without_pycolmap(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    result = run("photos", "-o", "c.db")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: COLMAP databases need pycolmap: pip install pycolmap")
    assert not list(Path().glob("*.db*"))


def test_ctrl_c_keeps_what_is_done_and_the_same_command_resumes(photos):
    for index in range(300):
        cv2.imwrite(str(photos / f"b{index:03}.png"), textured(index, (300, 400)))
    command = [*SCRIPT, "photos", "-o", "c.db", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    written = Path("c.db-wal")
    while not (written.exists() and written.stat().st_size > 500_000):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.startswith("interrupted after ")
    assert stderr.endswith("kept in c.db\n")
    done = int(stderr.split()[2])
    assert 1 <= done == count("c.db", "images")
    assert f"{done} skipped, as they are done" in run("photos", "-o", "c.db", "--upsampling", "2").stdout
