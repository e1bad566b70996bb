"""hloc's matches.h5: read by hloc if it is installed, and by its documented layout; its geometry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import skimage.data

from gpusift import SIFT, Features, hdf5
from gpusift.matching import match

NAMES = "db/1.jpg", "query/2.jpg"


def some_features(n: int, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    indices = rng.integers(1, 4, n).astype(np.int32)
    numbers = [rng.random(n) + 1 for _ in range(3)]
    descriptors = rng.integers(0, 256, (n, 128), dtype=np.uint8)
    return Features(rng.random((n, 2)) * 100, numbers[0], indices, indices, numbers[1], numbers[2], descriptors)


def documented_matches(path: Path, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray]:
    """The matches as get_matches of hloc/utils/io.py reads them: the group in either order, -1 for none."""
    with h5py.File(path, "r", libver="latest") as file:
        group, turned = f"{name0.replace('/', '-')}/{name1.replace('/', '-')}", False
        if group not in file:
            group, turned = f"{name1.replace('/', '-')}/{name0.replace('/', '-')}", True
        matches, scores = file[group]["matches0"][()], file[group]["matching_scores0"][()]
    found = np.flatnonzero(matches != -1)
    pairs = np.stack([found, matches[found]], axis=1)
    return pairs[:, ::-1] if turned else pairs, scores[found]


def documented_keypoints(path: Path, name: str) -> np.ndarray:
    with h5py.File(path, "r", libver="latest") as file:
        return file[name]["keypoints"][()]


@pytest.fixture(params=["documented", "hloc"])
def reader(request) -> tuple[Callable, Callable]:
    """Functions that read matches and keypoints."""
    if request.param == "documented":
        return documented_matches, documented_keypoints
    io = pytest.importorskip(
        "hloc.utils.io",
        reason="hloc is not installed: pip install git+https://github.com/cvg/Hierarchical-Localization",
    )
    return io.get_matches, io.get_keypoints


def test_what_is_read_is_what_was_matched(tmp_path, reader):
    a, b = some_features(9), some_features(7, 1)
    matches = np.array([[0, 6], [3, 0], [4, 2], [8, 1]])
    hdf5.write_matches(tmp_path / "m.h5", *NAMES, a, b, matches)
    pairs, scores = reader[0](tmp_path / "m.h5", *NAMES)
    np.testing.assert_array_equal(pairs, matches)
    np.testing.assert_array_equal(reader[0](tmp_path / "m.h5", *NAMES[::-1])[0], matches[:, ::-1])
    for (i, j), score in zip(matches, scores):
        roots = [np.sqrt(d / d.sum()) for d in (a.descriptors[i].astype(float), b.descriptors[j].astype(float))]
        assert score == pytest.approx((1 + roots[0] @ roots[1]) / 2, abs=1e-3)


def test_geometry_of_a_known_warp(tmp_path, reader, device):
    image = skimage.data.camera()
    warp = np.array([[0.8, 0.15, 30.0], [-0.1, 0.9, 60.0], [1e-4, 0, 1.0]])
    images = image, cv2.warpPerspective(image, warp, image.shape[::-1])
    sift = SIFT(device=device, normalization="root")
    features = [sift.compute(i) for i in images]
    matches = match(*features)
    for name, each, pixels in zip(NAMES, features, images):
        hdf5.write(tmp_path / "features.h5", name, each, pixels.shape, "root")
    hdf5.write_matches(tmp_path / "matches.h5", *NAMES, *features, matches, "root")

    read_matches, read_keypoints = reader
    pairs, scores = read_matches(tmp_path / "matches.h5", *NAMES)
    first, second = (read_keypoints(tmp_path / "features.h5", name)[i] for name, i in zip(NAMES, pairs.T))
    off = np.linalg.norm(cv2.perspectiveTransform(first[:, None].astype(float), warp)[:, 0] - second, axis=1)
    assert len(pairs) > 200
    assert np.median(off) < 0.5
    assert (off < 3).mean() > 0.85
    assert scores[off < 3].min() > 0.85
    assert scores.max() <= 1


def test_layout(tmp_path):
    hdf5.write_matches(tmp_path / "m.h5", *NAMES, some_features(5), some_features(3), np.array([[4, 2]]))
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["db-1.jpg/query-2.jpg"]
        assert {key: (data.shape, data.dtype) for key, data in group.items()} == {
            "matches0": ((5,), np.int16),
            "matching_scores0": ((5,), np.float16),
        }
        np.testing.assert_array_equal(group["matches0"], [-1, -1, -1, -1, 2])
        np.testing.assert_array_equal(group["matching_scores0"][:4], 0)


@pytest.mark.parametrize(("n", "dtype"), [(32768, np.int16), (32769, np.int32)])
def test_many_keypoints_have_wide_indices(n, dtype):
    b = Features(*[np.zeros((n, 2))] * 6, descriptors=np.ones((n, 4), np.uint8))
    arrays = hdf5.hloc_matches(b[:1], b, np.array([[0, n - 1]]))
    assert arrays["matches0"].dtype == dtype
    assert arrays["matches0"] == n - 1


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_no_matches(tmp_path, reader, n, m):
    hdf5.write_matches(tmp_path / "m.h5", *NAMES, some_features(n), some_features(m), np.empty((0, 2), np.int64))
    pairs, scores = reader[0](tmp_path / "m.h5", *NAMES)
    assert pairs.shape == (0, 2)
    assert scores.shape == (0,)


def test_writing_again_replaces_in_either_order(tmp_path):
    a, b = some_features(4), some_features(4, 1)
    hdf5.write_matches(tmp_path / "m.h5", *NAMES, a, b, np.array([[0, 1]]))
    hdf5.write_matches(tmp_path / "m.h5", NAMES[0], "third.jpg", a, b, np.array([[2, 2]]))
    hdf5.write_matches(tmp_path / "m.h5", *NAMES[::-1], b, a, np.array([[3, 0]]))
    np.testing.assert_array_equal(documented_matches(tmp_path / "m.h5", *NAMES)[0], [[0, 3]])
    np.testing.assert_array_equal(documented_matches(tmp_path / "m.h5", NAMES[0], "third.jpg")[0], [[2, 2]])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_no_half_pair(tmp_path, monkeypatch, error):
    a, b = some_features(4), some_features(4, 1)
    hdf5.write_matches(tmp_path / "m.h5", *NAMES, a, b, np.array([[0, 1]]))
    create = h5py.Group.create_dataset

    def fail_second(self, name, **kwargs):
        if name == "matching_scores0":
            raise error("now")
        return create(self, name, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", fail_second)
    with pytest.raises(error):
        hdf5.write_matches(tmp_path / "m.h5", "a.jpg", "b.jpg", a, b, np.array([[0, 1]]))
    with h5py.File(tmp_path / "m.h5") as file:
        assert "a.jpg/b.jpg" not in file
        assert len(file["db-1.jpg/query-2.jpg"]) == 2


@pytest.mark.parametrize(
    ("matches", "message"),
    [
        ([[0, 0], [0, 1]], "one match a feature of the first image, got 2 for 1 features"),
        ([[3, 0]], "matches must be indices into features of 3 and 3 keypoints"),
        ([[0, 1, 2]], r"matches must be \(Q, 2\) integers"),
    ],
)
def test_wrong_matches(tmp_path, matches, message):
    with pytest.raises(ValueError, match=message):
        hdf5.write_matches(tmp_path / "m.h5", *NAMES, some_features(3), some_features(3), np.array(matches))
    assert not list(tmp_path.iterdir())


def test_features_must_have_descriptors():
    features = some_features(3)
    with pytest.raises(ValueError, match="features must have descriptors"):
        hdf5.hloc_matches(features, features.with_descriptors(None), np.array([[0, 0]]))
