"""hloc's features.h5: its layout, read by plain h5py, and its geometry, compared with OpenCV's SIFT."""

from __future__ import annotations

from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpusift import SIFT, Features, hdf5, npz
from gpusift.features import ARRAYS

RNG = np.random.default_rng(0)
SHAPE = (120, 160)


def some_features(n: int, n_values: int = 128) -> Features:
    return Features(
        positions=RNG.random((n, 2)) * SHAPE,
        sigmas=RNG.random(n) + 1,
        scales=RNG.integers(1, 4, n),
        octaves=RNG.integers(0, 4, n),
        orientations=RNG.uniform(-np.pi, np.pi, n),
        responses=RNG.normal(size=n),
        descriptors=RNG.integers(0, 256, (n, n_values), dtype=np.uint8),
    )


@pytest.mark.parametrize(("n", "n_values"), [(7, 128), (1, 32), (0, 128)])
def test_layout(tmp_path, n, n_values):
    features = some_features(n, n_values)
    hdf5.write(tmp_path / "f.h5", "db/1.jpg", features, SHAPE)
    with h5py.File(tmp_path / "f.h5") as file:
        group = file["db/1.jpg"]
        assert {key: (data.shape, data.dtype) for key, data in group.items()} == {
            "keypoints": ((n, 2), np.float32),
            "descriptors": ((n_values, n), np.float16),
            "scores": ((n,), np.float32),
            "scales": ((n,), np.float32),
            "oris": ((n,), np.float32),
            "image_size": ((2,), np.int64),
        }
        assert group["keypoints"].attrs["uncertainty"] == 1
        np.testing.assert_array_equal(group["image_size"], [160, 120])
        np.testing.assert_array_equal(group["keypoints"], features.positions[:, ::-1].astype(np.float32))
        np.testing.assert_allclose(group["scores"], np.abs(features.responses), rtol=1e-6)
        np.testing.assert_allclose(group["scales"], features.sigmas, rtol=1e-6)


@pytest.mark.parametrize("normalization", ["l2", "root"])
def test_many_descriptors_are_written_in_pieces(tmp_path, monkeypatch, normalization):
    features = some_features(50)
    whole = hdf5.hloc_arrays(features, SHAPE, normalization)["descriptors"]
    monkeypatch.setattr(hdf5.layout, "CHUNK", 16)
    hdf5.write(tmp_path / "f.h5", "a.jpg", features, SHAPE, normalization)
    with h5py.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(file["a.jpg/descriptors"], whole)
        assert file["a.jpg/descriptors"].chunks is None
    np.testing.assert_array_equal(hdf5.hloc_arrays(features, SHAPE, normalization)["descriptors"], whole)


def test_names_are_found_as_hloc_finds_them(tmp_path):
    names = ["a.jpg", "s/a.jpg", "s/t/a.jpg", "grüße.png"]
    for name in names:
        hdf5.write(tmp_path / "f.h5", name, some_features(3), SHAPE)
    found = set()
    with h5py.File(tmp_path / "f.h5", "r", libver="latest") as file:
        file.visititems(
            lambda _, item: found.add(item.parent.name.strip("/")) if isinstance(item, h5py.Dataset) else None
        )
    assert found == set(names)


def test_writing_again_replaces(tmp_path):
    hdf5.write(tmp_path / "f.h5", "a.jpg", some_features(3), SHAPE)
    hdf5.write(tmp_path / "f.h5", "a.jpg", some_features(5), SHAPE)
    with h5py.File(tmp_path / "f.h5") as file:
        assert len(file["a.jpg/keypoints"]) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_no_half_group(tmp_path, monkeypatch, error):
    hdf5.write(tmp_path / "f.h5", "a.jpg", some_features(3), SHAPE)
    create, calls = h5py.Group.create_dataset, []

    def fail_third(self, name, **kwargs):
        calls.append(name)
        if len(calls) == 3:
            raise error("now")
        return create(self, name, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", fail_third)
    with pytest.raises(error):
        hdf5.write(tmp_path / "f.h5", "b.jpg", some_features(3), SHAPE)
    with h5py.File(tmp_path / "f.h5") as file:
        assert list(file) == ["a.jpg"]
        assert len(file["a.jpg"]) == 6


def test_root_sift_compares_by_scalar_product():
    """hloc's nearest neighbours compute a squared distance as 2 - 2 <a, b>, so lengths must be 1."""
    arrays = hdf5.hloc_arrays(some_features(50), SHAPE)
    descriptors = arrays["descriptors"].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=0), 1, atol=1e-3)
    one = np.array([[0, 9, 16, 0, 75, 0, 0, 0]], np.uint8)
    np.testing.assert_allclose(hdf5.root_sift(one), [[0, 0.3, 0.4, 0, 0.75**0.5, 0, 0, 0]], rtol=1e-6)
    assert not hdf5.root_sift(np.zeros((1, 8), np.uint8)).any()


@pytest.mark.parametrize("device_dtype", ["float32", "float64"])
@given(hnp.arrays(np.float64, 9, elements=st.floats(-7, 7)))
def test_orientations_are_the_same_directions(device_dtype, radians):
    features = replace(some_features(9), orientations=radians.astype(device_dtype))
    degrees = hdf5.hloc_arrays(features, SHAPE)["oris"]
    assert degrees.dtype == np.float32
    assert ((degrees >= 0) & (degrees < 360)).all()
    np.testing.assert_allclose(np.cos(np.deg2rad(degrees)), np.sin(radians), atol=1e-5)
    np.testing.assert_allclose(np.sin(np.deg2rad(degrees)), np.cos(radians), atol=1e-5)


def test_orientation_just_under_a_full_turn():
    features = replace(some_features(1), orientations=np.array([np.pi / 2 + 1e-12]))
    assert hdf5.hloc_arrays(features, SHAPE)["oris"] == 0


def test_root_descriptors_are_not_rooted_again(device):
    """Those of both normalizations are the same histograms, rounded to bytes at different places."""
    image = skimage.data.camera()
    arrays = [
        hdf5.hloc_arrays(SIFT(device=device, normalization=n).compute(image), SHAPE, n)["descriptors"].astype(float)
        for n in ("l2", "root")
    ]
    assert (arrays[0] * arrays[1]).sum(axis=0).min() > 0.99
    assert np.abs(arrays[0] - arrays[1]).max() < 0.05


def test_unknown_normalization():
    with pytest.raises(ValueError, match="normalization must be one of 'l2', 'root', got 'l1'"):
        hdf5.hloc_arrays(some_features(1), SHAPE, "l1")


def test_geometry_is_that_of_opencv(device):
    """OpenCV's SIFT, whose x, y and angle are hloc's, finds the same keypoints.

    Both have the bias of 0.25 pixels; orientations differ by half a histogram bin (5 degrees)
    and a little more.
    """
    rng = np.random.default_rng(0)
    image = np.full(SHAPE, 40, np.uint8)
    for _ in range(25):
        centre = int(rng.integers(10, 150)), int(rng.integers(10, 110))
        axes = int(rng.integers(3, 9)), int(rng.integers(2, 5))
        turn, grey = float(rng.integers(180)), int(rng.integers(90, 255))
        cv2.ellipse(image, centre, axes, turn, 0, 360, grey, cv2.FILLED)
    image = cv2.GaussianBlur(image, None, 1)
    ours = hdf5.hloc_arrays(SIFT(device=device).compute(image), SHAPE)
    theirs = cv2.SIFT_create().detect(image)

    # x, y and log(sigma), such that a distance of 1 is a pixel or a third of an octave.
    a = np.column_stack([ours["keypoints"], 3 * np.log2(ours["scales"])])
    b = np.array([[*k.pt, 3 * np.log2(k.size / 2)] for k in theirs])
    near = np.linalg.norm(a[:, None] - b, axis=2) < 0.5
    same = near.any(axis=1)
    assert same.sum() > 30
    assert same.mean() > 0.8

    def share_turned_alike(degrees: np.ndarray) -> float:
        turn = (degrees[:, None] - np.array([k.angle for k in theirs]) + 180) % 360 - 180
        return (near & (np.abs(turn) < 10))[same].any(axis=1).mean()

    assert share_turned_alike(ours["oris"]) > 0.8
    for wrong in (ours["oris"] + 90, -ours["oris"], 90 - ours["oris"], 180 - ours["oris"]):
        assert share_turned_alike(wrong) < 0.3


@pytest.mark.parametrize("n", [4, 0])
def test_npz_round_trip(tmp_path, n):
    features = some_features(n)
    npz.save(tmp_path / "s" / "a.jpg.npz", features, (*SHAPE, 3))
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["a.jpg.npz"]
    with np.load(tmp_path / "s" / "a.jpg.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["image_shape"], SHAPE)
    again = npz.load(tmp_path / "s" / "a.jpg.npz")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name))


def test_npz_without_descriptors(tmp_path):
    features = some_features(4).with_descriptors(None)
    npz.save(tmp_path / "a.npz", features, SHAPE)
    assert npz.load(tmp_path / "a.npz").descriptors is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_npz_is_whole_or_not_at_all(tmp_path, monkeypatch, error):
    npz.save(tmp_path / "a.npz", some_features(4), SHAPE)

    def fail(file, **arrays):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(error):
        npz.save(tmp_path / "a.npz", some_features(5), SHAPE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert len(npz.load(tmp_path / "a.npz")) == 4
