"""The accuracy study: measures on keypoints with known results, images, conventions of the engines, tables."""

import json
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.accuracy import engines, measures, plot, run, sequences
from tests.support.checkout import run_module

SHAPE = 200, 300  # rows, columns
TURN = np.array([[0.0, -1, SHAPE[0] - 1], [1, 0, 0], [0, 0, 1]])  # by a quarter
TWICE = np.diag([2.0, 2, 1])


def features(points, sigmas=2.0, descriptors=None):
    points = np.asarray(points, float).reshape(-1, 2)
    if descriptors is None:
        descriptors = np.zeros((len(points), 128), np.uint8)
    return measures.Features(points, np.broadcast_to(np.asarray(sigmas, float), len(points)), descriptors)


def grid(step=20):
    """Points (x, y) of an image of `SHAPE`, far apart."""
    rows, cols = np.mgrid[10 : SHAPE[0] : step, 10 : SHAPE[1] : step]
    return np.column_stack((cols.ravel(), rows.ravel())).astype(float)


def distinct_descriptors(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 128)).astype(np.uint8)


def test_points_are_projected():
    homography = np.array([[2.0, 0, 1], [0, 3, -1], [0.5, 0, 1]])
    np.testing.assert_allclose(measures.project(np.array([[0.0, 0], [2, 4]]), homography), [[1, -1], [2.5, 5.5]])


def test_keypoints_that_the_other_image_lacks_do_not_count():
    found = features([[0, 0], [149.5, 99.5], [149.6, 10], [10, 99.6], [-0.1, 5]])
    np.testing.assert_array_equal(measures.inside_other(found, TWICE, SHAPE).points, [[0, 0], [149.5, 99.5]])


def test_repeatability_is_the_fraction_with_a_counterpart():
    first = grid()
    second = measures.project(first, TURN)
    second[::4] += (0, 2.9)  # still counterparts
    second[1::4] += (0, 3.1)  # no more
    measured = measures.repeatability(features(first), features(second), TURN)
    gone = len(first[1::4])
    assert measured["repeatability"] == pytest.approx((len(first) - gone) / len(first))
    assert measured["overlap_repeatability"] == 1  # regions of 30 px, 3.1 apart


def test_repeatability_is_of_the_fewer_and_one_to_one():
    first = grid()
    near = np.concatenate((first[:10], first[:10] + np.array([1, 0])))  # two candidates each
    measured = measures.repeatability(features(first), features(near), np.eye(3))
    assert measured["repeatability"] == pytest.approx(10 / 20)
    nearest_first = measures.one_to_one(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([1.0, 2.0, 2.0]))
    assert nearest_first == 1  # the cheapest takes both that the others need
    assert measures.one_to_one(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([2.0, 1.0, 1.0])) == 2


def test_overlap_repeatability_follows_the_scale_of_the_homography():
    first = grid()
    second = measures.project(first, TWICE)
    for sigma, expected in ((4.0, 1), (2.0, 0), (4 * 0.78, 1), (4 * 0.77, 0), (4 / 0.78, 1), (4 / 0.77, 0)):
        measured = measures.repeatability(features(first, 2), features(second, sigma), TWICE)
        assert measured == {"repeatability": 1, "overlap_repeatability": expected}, sigma


def test_overlap_error_uses_the_local_scale_of_a_perspective():
    homography = np.array([[1.0, 0.1, 3], [-0.05, 1.2, 0], [2e-3, 1e-3, 1]])
    first = grid(60)
    step = 1e-4
    mapped = measures.project(first, homography)
    dx, dy = (measures.project(first + shift, homography) - mapped for shift in ((step, 0), (0, step)))
    sigmas = 2 * np.sqrt(np.abs(dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0])) / step
    assert sigmas.max() > 2 * sigmas.min()
    for share, expected in ((1, 1), (0.79, 1), (0.76, 0)):
        second = features(mapped, share * sigmas)
        assert measures.repeatability(features(first), second, homography)["overlap_repeatability"] == expected


@settings(max_examples=30, deadline=None)
@given(other=st.floats(3, 90), distance=st.floats(0, 100))
def test_overlap_is_of_circles(other, distance):
    y, x = np.mgrid[-100:100.5:0.5, -100:210.5:0.5]
    first, second = x**2 + y**2 < 30**2, (x - distance) ** 2 + y**2 < other**2
    expected = (first & second).sum() / (first | second).sum()
    measured = measures.overlap(30.0, np.array([other]), np.array([distance]))[0]
    assert measured == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("first", "second"), [(40, 55), (1, 2), (0, 5), (5, 0), (3, 1)])
def test_matcher_is_brute_force(first, second):
    a, b = distinct_descriptors(first), distinct_descriptors(second, seed=1)
    b[: min(first, second) // 2] = a[: min(first, second) // 2]  # some are alike
    matches, ratios = measures.mutual_nearest(a, b)
    expected = {}
    if first and second >= 2:
        matcher = cv2.BFMatcher(cv2.NORM_L2)
        back = matcher.knnMatch(b, a, k=2)
        pairs = [pair for pair in matcher.knnMatch(a, b, k=2) if back[pair[0].trainIdx][0].trainIdx == pair[0].queryIdx]
        for best, *others in pairs:
            others += back[best.trainIdx][1:]  # the ratio test is applied in both directions
            expected[best.queryIdx, best.trainIdx] = best.distance / min(other.distance for other in others)
        assert expected
    np.testing.assert_array_equal(matches, np.array(list(expected), int).reshape(-1, 2))
    np.testing.assert_allclose(ratios, list(expected.values()), rtol=1e-6)


def test_refined_points_replace_those_of_the_keypoints():
    descriptors = distinct_descriptors(len(grid()))
    first, second = features(grid(), descriptors=descriptors), features(grid() + 2, descriptors=descriptors)
    rough = measures.pair(first, second, np.eye(3), (SHAPE, SHAPE))
    refined = measures.pair(
        first, second, np.eye(3), (SHAPE, SHAPE), lambda matches: (matches[1:], first.points[matches[1:, 0]])
    )
    assert (rough["accuracy"][0], refined["accuracy"][0]) == (0, 1)
    assert rough["mutual_accuracy"] == refined["mutual_accuracy"]
    assert refined["matches"] == rough["matches"] - 1


def test_the_bench_refines_for_the_engines_that_say_so():
    from skimage import data

    image = data.camera()[100:300, 150:350].copy()
    assert engines.refiner("gpusift root", image, image, None) is None
    refine = engines.refiner("gpusift root refined", image, image, None)
    (found,) = engines.make("gpusift root refined")(image, [None])
    matches = np.column_stack((np.arange(len(found)),) * 2)
    kept, points = refine(matches)
    np.testing.assert_array_equal(kept, matches)
    np.testing.assert_allclose(points, found.points, rtol=0, atol=0.01)
    kept, points = engines.refiner("gpusift root only refined", image, image, None)(matches)
    assert 0.5 * len(matches) < len(kept) == len(points) < len(matches)


def test_accuracy_is_the_fraction_of_matches_within_each_threshold():
    points = grid()[:40]
    descriptors = distinct_descriptors(40)
    moved = measures.project(points, TURN)
    moved[:10] += (0, 1.5)
    moved[10:15] += (4.5, 0)
    moved[15:25] += (0, 50)
    first, second = (features(each, descriptors=descriptors) for each in (points, moved))
    measured = measures.pair(first, second, TURN, (SHAPE, SHAPE[::-1]))
    assert measured["matches"] == measured["mutual_matches"] == 40
    assert measured["accuracy"] == [15 / 40, 25 / 40, 25 / 40, 25 / 40, *[30 / 40] * 6]
    assert measured["mutual_accuracy"] == measured["accuracy"]
    assert measured["covisible"] == 40
    assert measured["matching_score"] == 25 / 40


def test_matches_of_near_ties_fail_the_ratio_only():
    descriptors = distinct_descriptors(20)
    tied = np.concatenate((descriptors, descriptors[:5] ^ 1))  # second nearest: almost as near
    descriptors[:5, 0] ^= 128  # and the nearest is at a distance
    points = grid()[:25]
    first, second = features(points[:20], descriptors=descriptors), features(points, 2, tied)
    measured = measures.pair(first, second, np.eye(3), (SHAPE, SHAPE))
    assert measured["mutual_matches"] == 20
    assert measured["matches"] == 15


def test_pair_without_features_scores_nothing():
    some = features(grid()[:9], descriptors=distinct_descriptors(9))
    none = features([])
    for first, second in ((some, none), (none, some), (none, none)):
        measured = measures.pair(first, second, np.eye(3), (SHAPE, SHAPE))
        assert measured["covisible"] == measured["matches"] == measured["repeatability"] == 0
        assert measured["accuracy"] == [0.0] * 10
        assert measures.area_under_curve(measured["corner_errors"], 5) == 0


def test_orientations_of_one_keypoint_count_once():
    found = features([[5, 5], [5, 5], [5, 5], [1, 2]], [2, 2, 3, 2])
    distinct = found.distinct()
    np.testing.assert_array_equal(distinct.points, [[5, 5], [5, 5], [1, 2]])
    np.testing.assert_array_equal(distinct.sigmas, [2, 3, 2])


def test_corner_error_is_that_of_the_estimate():
    points = grid()
    moved = measures.project(points, TURN) + np.array([3, 4])
    moved[::3] += np.random.default_rng(0).uniform(50, 100, (len(moved[::3]), 2))  # wrong matches
    errors = measures.corner_errors(points, moved, TURN, SHAPE)
    assert errors == pytest.approx([5] * measures.ESTIMATES, abs=1e-3)
    too_few = measures.corner_errors(points[:3], moved[:3], TURN, SHAPE)
    assert too_few == [measures.NO_HOMOGRAPHY] * measures.ESTIMATES


@settings(max_examples=30)
@given(errors=st.lists(st.floats(0, 20), min_size=1, max_size=12), threshold=st.sampled_from([1, 3, 5]))
def test_area_under_curve_is_the_integral_of_the_fraction_below(errors, threshold):
    steps = (np.arange(20_000) + 0.5) / 20_000 * threshold
    expected = np.mean([np.mean(np.array(errors) <= step) for step in steps[::20]])
    assert measures.area_under_curve(errors, threshold) == pytest.approx(expected, abs=2e-3)


def test_area_under_curve_of_known_errors():
    assert measures.area_under_curve([0.0, 1.5, 3.0, 100.0], 3) == pytest.approx((1 + 0.5) / 4)
    assert measures.area_under_curve([], 3) == 0


def blobs(shape, places, sigma):
    """Bright blobs at points (x, y) of an image."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for a, b in places)
    return np.rint(40 + 180 * image).astype(np.uint8)


def centre(image):
    """Centre of mass (x, y) of the pixels that are brighter than the background."""
    weights = np.maximum(image - np.median(image) - 5, 0)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_rendered_images_obey_their_homographies(tmp_path, scale):
    from PIL import Image

    Image.fromarray(blobs((240, 320), [(172.3, 131.8)], 3)).save(tmp_path / "blob.png")
    sequence = sequences.rendered(tmp_path / "blob.png", scale)
    assert len(sequence.images) == len(sequence.homographies) == 11
    np.testing.assert_array_equal(sequence.homographies[0], np.eye(3))
    expected = (np.array([[172.3, 131.8]]) + 0.5) * scale - 0.5
    for number, (image, homography) in enumerate(zip(sequence.images, sequence.homographies)):
        assert image.shape == (240 * scale, 320 * scale)
        if number != 8:  # noise
            seen, shown = centre(image), measures.project(expected, homography)[0]
            np.testing.assert_allclose(seen, shown, atol=0.05, err_msg=str(number))
    again = sequences.rendered(tmp_path / "blob.png", scale)
    assert all(np.array_equal(*pair) for pair in zip(sequence.images, again.images))


BIASED = ("gpusift", "scikit-image", "OpenCV")  # by a quarter pixel, in x and y


@pytest.mark.parametrize("name", [*BIASED, "gpusift precise", "gpusift root", "OpenCV precise", "pycolmap"])
def test_engine_gives_points_and_sigmas_in_pixels(name):
    if name == "pycolmap":
        pytest.importorskip("pycolmap")
    places, sigma = [(60.25, 50.5), (180.0, 70.75), (110.5, 140.0)], 5.0
    (found,) = engines.make(name)(blobs((200, 250), places, sigma), [None])
    assert found.descriptors.shape == (len(found), 128)
    assert found.descriptors.dtype == np.uint8
    for place in places:
        distances = np.abs(found.points - (0.25 if name in BIASED else 0) - place).max(axis=1)
        at = np.argmin(distances)
        assert distances[at] < 0.07
        assert found.sigmas[at] == pytest.approx(sigma, rel=0.15)  # that of the blob


@pytest.mark.parametrize("name", ["gpusift root", "gpusift as COLMAP", "scikit-image", "OpenCV", "pycolmap"])
def test_engine_keeps_its_budget(name):
    if name == "pycolmap":
        pytest.importorskip("pycolmap")
    from skimage import data

    everything, few = engines.make(name)(data.camera()[100:300, 150:350].copy(), [None, 40])
    assert len(everything) > 80
    assert len(few) == 40
    if name in ("gpusift as COLMAP", "scikit-image", "pycolmap"):
        np.testing.assert_allclose(np.sort(few.sigmas), np.sort(everything.sigmas)[-40:], rtol=1e-6)


@pytest.mark.parametrize("name", ["gpusift", "scikit-image", "OpenCV", "pycolmap"])
def test_engine_finds_nothing_in_a_blank_image(name):
    if name == "pycolmap":
        pytest.importorskip("pycolmap")
    for found in engines.make(name)(np.full((64, 64), 90, np.uint8), [None, 10]):
        assert len(found) == 0
        assert found.points.shape == (0, 2)
        assert found.descriptors.shape == (0, 128)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a quick run of two engines, on photographs that scikit-image carries."""
    folder = tmp_path_factory.mktemp("accuracy")
    done = run_module(
        "bench.accuracy.run", "--quick", "--engines", "gpusift precise,OpenCV", "--out", folder, "--budgets", 200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_study_writes_a_row_per_engine_sequence_and_budget(study):
    rows = [json.loads(line) for line in (study / "accuracy.jsonl").read_text().splitlines()]
    assert len({(row["engine"], row["sequence"], row["budget"]) for row in rows}) == len(rows) == 8
    for row in rows:
        assert not row["standard"]
        assert row["pairs"] == 10
        assert len(row["corner_errors"]) == 50
        assert row["keypoints"] <= (row["budget"] or np.inf)
        assert 0.5 < row["repeatability"] <= 1
        assert row["accuracy"] == sorted(row["accuracy"])
        assert 0.8 < row["accuracy"][2] <= 1
        assert row["hardware"]["cores"] >= 1
        assert row["versions"]["numpy"] == np.__version__


def test_study_is_resumed_with_what_it_lacks(study, tmp_path):
    lines = (study / "accuracy.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "accuracy.jsonl").write_text("".join(lines[:5] + lines[6:]))
    done = run_module(
        "bench.accuracy.run",
        *("--quick", "--engines", "gpusift precise,OpenCV", "--out", tmp_path, "--budgets", 200, "--resume"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "accuracy.jsonl").read_text().splitlines()]
    assert len({row["run"] for row in rows}) == 1
    lacking, added = json.loads(lines[5]), rows[-1]
    assert all(lacking[key] == added[key] for key in ("engine", "sequence", "budget", "accuracy", "corner_errors"))
    assert len(rows) == 8
    assert (tmp_path / "accuracy.md").read_text().splitlines()[:-1] == (study / "accuracy.md").read_text().splitlines()[
        :-1
    ]


def test_study_is_drawn_from_its_rows(study, tmp_path):
    done = run_module("bench.accuracy.plot", study / "accuracy.jsonl", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "accuracy.md").read_text()
    assert text == (study / "accuracy.md").read_text()
    for words in ("20 pairs", "All features", "At most 200 features", "gpusift precise", "motorcycle, rendered"):
        assert words in text
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_means_weigh_sequences_by_their_pairs():
    few = {"pairs": 1, "accuracy": [0.0, 1.0], "matches": 8.0, "corner_errors": [0.0], "settings": {}}
    many = {"pairs": 3, "accuracy": [1.0, 1.0], "matches": 4.0, "corner_errors": [9.0] * 3, "settings": {}}
    few["pair_accuracies"], many["pair_accuracies"] = [[0.0, 1.0]], [[1.0, 1.0]] * 3
    mean = plot.mean([few, many])
    np.testing.assert_allclose(mean["accuracy"], [0.75, 1])
    assert mean["matches"] == 5
    assert mean["areas"] == [0.25] * 3


def test_difference_is_paired_and_has_its_standard_error():
    theirs = np.random.default_rng(0).uniform(0, 1, (4, 10))
    ours = theirs + np.array([0.1, 0.2, 0.3, 0.4])[:, None]
    common = {"budget": None, "pairs": 2, "corner_errors": [0.0]}
    rows = [
        {**common, "engine": engine, "sequence": str(half), "pair_accuracies": accuracies[half : half + 2].tolist()}
        for engine, accuracies in (("gpusift root", ours), ("OpenCV", theirs))
        for half in (0, 2)
    ]
    error = np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2
    (line,) = [line for line in plot.difference_table(rows) if line.startswith("| All features")]
    assert line == "| All features: gpusift root - OpenCV | " + " | ".join([f"+0.250 ± {error:.3f}"] * 3) + " |"
    assert plot.difference_table(rows[:2]) == []


def test_best_of_a_column_is_bold():
    shown = plot.emphasized([[0.1, 0.5], [0.2, 0.4999]])
    assert shown == [["0.100", "**0.500**"], ["**0.200**", "**0.500**"]]


def test_bad_arguments_are_refused(tmp_path):
    for arguments, words in (
        (("--engines", "gpusift,matlab"), "'matlab'"),
        (("--budgets", "200,0"), "at least 1"),
        (("--data", tmp_path / "none"), "must be a folder"),
        (("--data", tmp_path), "homography/graf"),
    ):
        done = run_module("bench.accuracy.run", *arguments, "--out", tmp_path)
        assert done.returncode != 0
        assert words in done.stderr
    done = run_module("bench.accuracy.plot", tmp_path / "none.jsonl")
    assert done.returncode == 2
    assert "run python -m bench.accuracy.run first" in done.stderr


def test_engine_that_cannot_be_imported_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    rows = list(run.study(["pycolmap"], {}, [None]))
    assert [row["engine"] for row in rows] == ["pycolmap"]
    assert "pip install pycolmap" in rows[0]["skipped"]
