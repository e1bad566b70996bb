"""`gpusift match`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner, Result

from gpusift import SIFT, cli
from gpusift.geometry import verify
from gpusift.images import read_image
from gpusift.matching import match
from gpusift.plot import draw_matches

WARP = np.array([[0.8, 0.15, 30.0], [-0.1, 0.9, 60.0], [1e-4, 0, 1.0]])
POINTS = np.array([[[100.0, 100.0]], [[400, 120]], [[150, 450]], [[420, 400]]])


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, ["match", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder, the current one, with a photograph, a warp of it, a stereo pair, and nothing to see."""
    image = skimage.data.camera()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "b.png"), cv2.warpPerspective(image, WARP, image.shape[::-1]))
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((40, 50), 7, np.uint8))
    for name, photo in zip(("left", "right"), skimage.data.stereo_motorcycle()):
        cv2.imwrite(str(tmp_path / f"{name}.png"), photo[..., ::-1])
    monkeypatch.chdir(tmp_path)
    SIFT(device="cpu").compute(image)  # a checkout builds its kernels on first use, and says so
    return tmp_path


def test_refined_matches_fit_the_homography_better(photos):
    errors = []
    for options in ([], ["--refine"]):
        result = run("a.png", "b.png", "-o", "m.png", "--json", "m.json", "--overwrite", "--device", "cpu", *options)
        assert result.exit_code == 0, result.output
        record = json.loads(Path("m.json").read_text())
        assert record["refined"] == bool(options)
        points = np.array(record["points"])
        expected = cv2.perspectiveTransform(points[:, None, :2], WARP)[:, 0]
        errors.append(np.median(np.linalg.norm(expected - points[:, 2:], axis=1)))
    assert errors[1] < 0.5 * errors[0]


def test_only_refined_matches(photos):
    counts = []
    for options in (["--refine"], ["--refine", "--only-refined"]):
        result = run("a.png", "b.png", "-o", "m.png", "--json", "m.json", "--overwrite", "--device", "cpu", *options)
        assert result.exit_code == 0, result.output
        counts.append(json.loads(Path("m.json").read_text())["matches"])
    assert 0.8 * counts[0] < counts[1] < counts[0]
    result = run("a.png", "b.png", "-o", "m.png", "--only-refined")
    assert result.exit_code == 2
    assert "--only-refined needs --refine" in result.output


def test_a_homography_is_found_printed_and_written(photos):
    result = run("a.png", "b.png", "-o", "new/m.png", "--json", "new/m.json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    record = json.loads(Path("new/m.json").read_text())
    matrix = np.array(record["matrix"])
    off = cv2.perspectiveTransform(POINTS, matrix) - cv2.perspectiveTransform(POINTS, WARP)
    assert np.abs(off).max() < 1
    assert record["model"] == "homography"
    assert record["images"] == ["a.png", "b.png"]
    assert record["image_sizes"] == [[512, 512], [512, 512]]
    assert record["threshold"] == 3
    assert record["max_ratio"] == 0.8
    points = np.array(record["points"])
    assert points.shape == (record["inliers"], 4)
    assert 200 < record["inliers"] <= record["matches"] < min(record["keypoints"])
    through = cv2.perspectiveTransform(points[:, None, :2], matrix)[:, 0]
    assert np.linalg.norm(through - points[:, 2:], axis=1).max() < 3.01

    lines = result.stdout.splitlines()
    n, m = record["keypoints"]
    assert lines[0] == f"{n} and {m} keypoints on cpu, {record['matches']} matches"
    share = f"{record['inliers'] / record['matches']:.0%}"
    assert lines[1] == f"{record['inliers']} verified ({share}), within 3 px of a homography:"
    np.testing.assert_allclose([[float(value) for value in line.split()] for line in lines[2:5]], matrix, rtol=1e-6)
    assert lines[5:] == ["-> new/m.png, new/m.json"]


def test_python_gives_the_same(photos):
    run("a.png", "b.png", "-o", "m.png", "--json", "m.json", "--device", "cpu", "--max-ratio", 0.7, "--threshold", 2)
    images = [read_image(name) for name in ("a.png", "b.png")]
    features = [SIFT(device="cpu").compute(image) for image in images]
    matches = match(*features, max_ratio=0.7)
    geometry = verify(*features, matches, threshold=2)
    record = json.loads(Path("m.json").read_text())
    assert record["matches"] == len(matches)
    np.testing.assert_array_equal(record["matrix"], geometry.matrix)
    picture = draw_matches(*images, *features, matches, geometry.inliers)
    np.testing.assert_array_equal(cv2.imread("m.png")[..., ::-1], picture)


@pytest.mark.parametrize("model", ["auto", "fundamental", "homography"])
def test_a_stereo_pair(photos, model):
    arguments = ["left.png", "right.png", "-o", "m.png", "--json", "m.json", "--model", model, "--device", "cpu"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(Path("m.json").read_text())
    assert record["model"] == ("homography" if model == "homography" else "fundamental")
    a, b = np.split(np.array(record["points"]), 2, axis=1)
    matrix = np.array(record["matrix"])
    if record["model"] == "fundamental":
        assert record["inliers"] > 900
        assert "of a fundamental matrix:" in result.stdout
        lines = np.column_stack([a, np.ones(len(a))]) @ matrix.T
        off = (lines * np.column_stack([b, np.ones(len(b))])).sum(axis=1) / np.hypot(*lines[:, :2].T)
        assert np.abs(off).max() < 5
    before = Path("m.png").read_bytes(), Path("m.json").read_bytes()
    assert run(*arguments, "--overwrite").stdout == result.stdout
    assert (Path("m.png").read_bytes(), Path("m.json").read_bytes()) == before


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (("a.png", "left.png"), "no geometry: the best homography has "),
        (
            ("a.png", "flat.png"),
            "no geometry: a homography needs 4 matches or more, got 0; a fundamental matrix needs 8",
        ),
        (("flat.png", "flat.png"), "no geometry: a homography needs 4 matches or more, got 0"),
    ],
)
def test_no_geometry_is_said(photos, images, reason):
    result = run(*images, "-o", "m.png", "--json", "m.json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].startswith(reason)
    record = json.loads(Path("m.json").read_text())
    assert record["model"] is record["matrix"] is None
    assert record["inliers"] == 0
    assert record["points"] == []
    assert f"no geometry: {record['meaning']}" in result.stdout
    assert cv2.imread("m.png") is not None


def test_an_image_and_itself(photos):
    result = run("a.png", "a.png", "-o", "m.png", "--json", "m.json", "--device", "cpu")
    assert result.exit_code == 0
    np.testing.assert_allclose(json.loads(Path("m.json").read_text())["matrix"], np.eye(3), atol=1e-6)


def test_options_reach_sift_and_verification(photos):
    options = ["--max-keypoints", 300, "--keep", "grid", "--descriptor-layout", "ubc", "--normalization", "root"]
    result = run("a.png", "b.png", "-o", "m.png", "--device", "cpu", *options)
    assert result.stdout.startswith("300 and 300 keypoints")
    result = run("a.png", "b.png", "-o", "n.png", "--device", "cpu", "--min-inliers", 9999)
    assert "9999 are needed" in result.stdout


@pytest.mark.parametrize("taken", ["m.png", "m.json"])
def test_results_are_not_replaced_unless_asked(photos, taken):
    Path(taken).write_bytes(b"precious")
    arguments = ["a.png", "b.png", "-o", "m.png", "--json", "m.json", "--device", "cpu"]
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"{taken} exists; choose another name (--overwrite)" in result.stderr
    assert Path(taken).read_bytes() == b"precious"
    assert len([name for name in ("m.png", "m.json") if Path(name).exists()]) == 1
    assert run(*arguments, "--overwrite").exit_code == 0
    assert Path(taken).read_bytes() != b"precious"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.png", "b.png", "-o", "m.png"], 1, "none.png: No such file or directory"),
        (["a.png", "none.png", "-o", "m.png"], 1, "none.png: No such file or directory"),
        (["a.png", "broken.png", "-o", "m.png"], 1, "broken.png: must be a whole image"),
        (["a.png", "nan.tif", "-o", "m.png"], 1, "nan.tif: image must be finite"),
        (["a.png", "b.png", "-o", "m.jpg"], 2, "must be a .png file, got m.jpg"),
        (["a.png", "b.png", "-o", "m.png", "--json", "./m.png"], 2, "must be two files, got m.png for both"),
        (["a.png", "b.png", "-o", "m.png", "--model", "affine"], 2, "'affine' is not one of"),
        (["a.png", "b.png", "-o", "m.png", "--max-ratio", "0"], 2, "0.0 is not in the range 0<x<=1"),
        (["a.png", "b.png", "-o", "m.png", "--threshold", "-1"], 2, "-1.0 is not in the range x>0"),
        (["a.png", "b.png", "-o", "m.png", "--threshold", "nan"], 1, "threshold must be a positive number"),
        (["a.png", "b.png", "-o", "m.png", "--device", "cpu", "--upsampling", "3"], 1, "upsampling must be"),
        (["a.png", "-o", "m.png"], 2, "Missing argument 'IMAGE_B'"),
        (["a.png", "b.png"], 2, "Missing option '-o'"),
        (["a.png", "b.png", "-o", "a.png/m.png"], 1, "cannot write a.png/m.png"),
        (["a.png", "b.png", "-o", "m.png", "--json", "a.png/m.json"], 1, "cannot write a.png/m.json"),
    ],
)
def test_it_says_what_is_wrong(photos, arguments, code, message):
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:1000])
    cv2.imwrite("nan.tif", np.full((30, 30), np.nan, np.float32))
    before = {path.name for path in photos.iterdir()}
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert {path.name for path in photos.iterdir()} - before <= ({"m.png"} if "a.png/m.json" in arguments else set())
