"""Keypoints are refined over tracks: each goes to where the best connected one of its track is in its image."""

import shutil
import sqlite3
from contextlib import closing
from itertools import combinations

import cv2  # before pycolmap, see gpusift.sinks.colmap.cameras
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from gpusift import SIFT
from gpusift.colmap import SIFT_PARAMETERS, match_database, tracks, write_database

pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

PHOTOGRAPH = skimage.data.camera()[80:380, 90:450]
# Of points (x, y, 1), with pixel centres at integers: from the first image to each.
HOMOGRAPHIES = {
    "a.png": np.eye(3),
    "b.png": np.array([[0.98, 0.1, -7.3], [-0.08, 1.03, 9.2], [4e-5, 2e-5, 1]]),
    "c.png": np.array([[1.05, -0.06, 4.4], [0.09, 0.94, -3.7], [-3e-5, 5e-5, 1]]),
}
SETTINGS = {**SIFT_PARAMETERS, "device": "cpu"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    size = PHOTOGRAPH.shape[::-1]
    for name, homography in HOMOGRAPHIES.items():
        cv2.imwrite(str(folder / name), cv2.warpPerspective(PHOTOGRAPH, homography, size, flags=cv2.INTER_CUBIC))
    return folder


def errors(path):
    """Distances of verified matches from where the homographies put them, of all pairs."""
    found = []
    with pycolmap.Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        for pair, geometry in zip(*database.read_two_view_geometries(), strict=True):
            i, j = pycolmap.pair_id_to_image_pair(pair)
            points_i, points_j = (database.read_keypoints(number)[:, :2] - 0.5 for number in (i, j))
            homography = HOMOGRAPHIES[names[j]] @ np.linalg.inv(HOMOGRAPHIES[names[i]])
            matches = geometry.inlier_matches
            points = cv2.perspectiveTransform(points_i[matches[:, :1]].astype(np.float64), homography)[:, 0]
            found.append(np.linalg.norm(points - points_j[matches[:, 1]], axis=1))
    return np.concatenate(found)


def keypoints(path):
    """The rows of keypoints, image by image in the order of names."""
    with pycolmap.Database.open(path) as database:
        images = sorted(database.read_all_images(), key=lambda image: image.name)
        return [np.array(database.read_keypoints(image.image_id)) for image in images]


def test_matches_are_closer_to_the_truth(photographs, tmp_path):
    before = write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS)
    after = write_database(photographs, tmp_path / "b.db", match="exhaustive", sift=SETTINGS, refine=True)
    assert (after.images, after.keypoints, after.pairs, after.verified) == (3, before.keypoints, 3, 3)
    assert len(errors(tmp_path / "b.db")) > 0.97 * len(errors(tmp_path / "a.db")) > 300
    assert np.median(errors(tmp_path / "b.db")) < 0.6 * np.median(errors(tmp_path / "a.db"))
    for rough, refined in zip(keypoints(tmp_path / "a.db"), keypoints(tmp_path / "b.db"), strict=True):
        np.testing.assert_array_equal(refined[:, 2:], rough[:, 2:])
        moved = np.linalg.norm(refined[:, :2] - rough[:, :2], axis=1)
        assert (moved > 0).any()
        assert (moved == 0).any()
        assert (moved < 1.5 * rough[:, 2]).all()


def test_the_same_matches_are_used_once(photographs, tmp_path):
    write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS, refine=True)
    expected = keypoints(tmp_path / "a.db")
    write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS, refine=True)
    for found, same in zip(keypoints(tmp_path / "a.db"), expected, strict=True):
        np.testing.assert_array_equal(found, same)


def geometries(path):
    """The verified matches of each pair of images, by their names."""
    with pycolmap.Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        return {
            tuple(names[number] for number in pycolmap.pair_id_to_image_pair(pair)): geometry.inlier_matches.tolist()
            for pair, geometry in zip(*database.read_two_view_geometries(), strict=True)
        }


def add(photographs, path, names):
    """Add images one by one, so that their numbers are in this order, and match all."""
    for name in names:
        write_database([photographs / name], path, root=str(photographs), sift=SETTINGS)
    match_database(path, combinations(sorted(HOMOGRAPHIES), 2), device="cpu")


def test_images_that_come_later_are_refined_as_if_all_had_been_there(photographs, tmp_path):
    files = {name: photographs / name for name in HOMOGRAPHIES}
    add(photographs, tmp_path / "a.db", ["a.png", "b.png"])
    match_database(tmp_path / "a.db", [], device="cpu", refine=files)
    add(photographs, tmp_path / "a.db", ["c.png"])
    match_database(tmp_path / "a.db", [], device="cpu", refine=files)
    add(photographs, tmp_path / "b.db", ["a.png", "b.png", "c.png"])
    match_database(tmp_path / "b.db", [], device="cpu", refine=files)
    assert geometries(tmp_path / "a.db") == geometries(tmp_path / "b.db")
    for later, at_once in zip(keypoints(tmp_path / "a.db"), keypoints(tmp_path / "b.db"), strict=True):
        np.testing.assert_array_equal(later, at_once)


def test_refinement_with_other_files_begins_at_the_original_keypoints(photographs, tmp_path):
    write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS)
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    match_database(tmp_path / "a.db", [], device="cpu", refine={name: photographs / name for name in HOMOGRAPHIES})
    pairs = zip(keypoints(tmp_path / "a.db"), keypoints(tmp_path / "b.db"), strict=True)
    assert any((refined != original).any() for refined, original in pairs)
    match_database(tmp_path / "a.db", [], device="cpu", refine={})
    assert geometries(tmp_path / "a.db") == geometries(tmp_path / "b.db")
    for found, original in zip(keypoints(tmp_path / "a.db"), keypoints(tmp_path / "b.db"), strict=True):
        np.testing.assert_array_equal(found, original)


def test_images_without_a_file_keep_their_keypoints(photographs, tmp_path):
    write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS)
    expected = keypoints(tmp_path / "a.db")
    files = {name: photographs / name for name in ("a.png", "b.png")}
    match_database(tmp_path / "a.db", [], device="cpu", refine=files)
    found = keypoints(tmp_path / "a.db")
    np.testing.assert_array_equal(found[2], expected[2])
    assert any((found[i] != expected[i]).any() for i in (0, 1))


def test_nothing_changes_when_the_write_fails(photographs, tmp_path, monkeypatch):
    write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS)
    expected = keypoints(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute(
            "CREATE TRIGGER full BEFORE DELETE ON two_view_geometries BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    sift = SIFT(**SIFT_PARAMETERS, device="cpu")
    files = {name: photographs / name for name in ("a.png", "b.png", "c.png")}
    with pytest.raises(OSError, match="SQLite says: full"):
        tracks.refine_tracks(pycolmap, tmp_path / "a.db", files, sift)
    for found, same in zip(keypoints(tmp_path / "a.db"), expected, strict=True):
        np.testing.assert_array_equal(found, same)


def verified(path):
    with pycolmap.Database.open(path) as database:
        return database.num_verified_image_pairs()


def test_geometries_stay_when_nothing_is_refined_and_later_files_are_used(photographs, tmp_path):
    write_database(photographs, tmp_path / "a.db", match="exhaustive", sift=SETTINGS)
    expected = keypoints(tmp_path / "a.db")
    assert match_database(tmp_path / "a.db", [], device="cpu", refine={})[1] == verified(tmp_path / "a.db") == 3
    files = {name: photographs / name for name in HOMOGRAPHIES}
    match_database(tmp_path / "a.db", [], device="cpu", refine=files)
    assert verified(tmp_path / "a.db") == 3
    assert any((a != b).any() for a, b in zip(keypoints(tmp_path / "a.db"), expected, strict=True))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda file: file.unlink(), "refine needs the images as files on this machine, but .*b.png is none"),
        (lambda file: file.write_bytes(b"no picture"), "b.png"),
        (
            lambda file: cv2.imwrite(str(file), PHOTOGRAPH[:50, :60]),
            "b.png must be the image of 300 x 360 pixels that the features are of, got 50 x 60",
        ),
    ],
    ids=["missing", "broken", "another"],
)
def test_a_file_that_is_not_the_image_is_told_and_matches_stay(photographs, tmp_path, change, error):
    shutil.copytree(photographs, tmp_path / "photographs")
    write_database(tmp_path / "photographs", tmp_path / "a.db", match="exhaustive", sift=SETTINGS)
    change(tmp_path / "photographs" / "b.png")
    files = {name: tmp_path / "photographs" / name for name in HOMOGRAPHIES}
    with pytest.raises(ValueError, match=error):
        match_database(tmp_path / "a.db", [], device="cpu", refine=files)
    assert verified(tmp_path / "a.db") == 3


def test_a_database_of_another_program_is_refused(photographs, tmp_path):
    pycolmap.Database.open(tmp_path / "a.db").close()
    with pytest.raises(ValueError, match="refine needs a database that gpusift wrote"):
        match_database(tmp_path / "a.db", [], device="cpu", refine={})


def test_refinement_needs_matches(photographs, tmp_path):
    with pytest.raises(ValueError, match="refine needs matches"):
        write_database(photographs, tmp_path / "a.db", refine=True)
    assert not (tmp_path / "a.db").exists()


@given(st.lists(st.integers(0, 6), min_size=2, max_size=5), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99))))
def test_each_keypoint_is_aligned_with_the_best_connected_of_its_track(counts, numbers):
    firsts = np.concatenate(([0], np.cumsum(counts)))
    n = int(firsts[-1])
    edges = [(a % n, b % n) for a, b in numbers if n and a % n != b % n]
    neighbours = {node: {node} for node in range(n)}
    for a, b in edges:
        joined = neighbours[a] | neighbours[b]
        for node in joined:
            neighbours[node] = joined
    degree = np.bincount(np.array(edges, int).reshape(-1), minlength=n)
    image = np.repeat(np.arange(len(counts)), counts)
    expected = set()
    for node in range(n):
        best = max(neighbours[node], key=lambda other: (degree[other], -other))
        if best != node and image[best] != image[node]:
            expected.add((best, node))
    pairs, matches = tracks._tasks(np.array(edges, np.int64).reshape(-1, 2), firsts)
    found = [
        (int(firsts[i] + a), int(firsts[j] + b))
        for (i, j), some in zip(pairs, matches, strict=True)
        for a, b in some.tolist()
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(i != j for i, j in pairs)
