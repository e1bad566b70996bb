"""Features as an object: what it looks like, files, and several of them as one."""

import os

import numpy as np
import pytest

from gpusift import SIFT, Features, npz
from tests.support.same_bytes import digest, synthetic

IMAGE = synthetic(90, 120, seed=4)


@pytest.fixture
def features(device):
    return SIFT(device=device).compute(IMAGE)


def test_repr_is_one_line(device, features):
    module = "NumPy" if device == "cpu" else "CuPy"
    n = len(features)
    assert repr(features) == f"<Features: {n} keypoints, descriptors of 128 values, float32, {module}>"
    without = Features(*(getattr(features, name) for name in list(features.arrays())[:6]))
    assert repr(without.to_host()) == f"<Features: {n} keypoints, no descriptors, float32, NumPy>"


@pytest.mark.parametrize("name", ["a.npz", "with spaces and no suffix", "folder/é.features"])
def test_files_hold_the_same_features(device, features, tmp_path, name):
    features.save(tmp_path / name)
    again = Features.load(tmp_path / name)
    assert digest(again) == digest(features)
    assert all(isinstance(array, np.ndarray) for array in again.arrays().values())
    assert digest(npz.load(tmp_path / name)) == digest(features)
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [os.path.basename(name)]


def test_a_file_without_descriptors_or_keypoints(tmp_path):
    sift = SIFT(device="cpu")
    sift.compute(np.zeros((40, 40), np.uint8)).save(tmp_path / "none")
    assert len(Features.load(tmp_path / "none")) == 0
    whole = sift.compute(IMAGE)
    Features(**{name: array for name, array in whole.arrays().items() if name != "descriptors"}).save(tmp_path / "bare")
    assert Features.load(tmp_path / "bare").descriptors is None


def test_a_file_of_npz_is_read(tmp_path):
    features = SIFT(device="cpu").compute(IMAGE)
    npz.save(tmp_path / "a.npz", features, IMAGE.shape)
    assert digest(Features.load(tmp_path / "a.npz")) == digest(features)


@pytest.mark.parametrize("kind", ["other arrays", "one array", "text", "nothing"])
def test_a_file_of_something_else_is_refused(tmp_path, kind):
    path = tmp_path / "file"
    if kind == "other arrays":
        np.savez(tmp_path / "file.npz", positions=np.zeros((3, 2)))
        path = tmp_path / "file.npz"
    elif kind == "one array":
        np.save(tmp_path / "file.npy", np.zeros(3))
        path = tmp_path / "file.npy"
    elif kind == "text":
        path.write_text("positions")
    error, message = (OSError, "file") if kind == "nothing" else (ValueError, "must hold features|allow_pickle|pickle")
    with pytest.raises(error, match=message):
        Features.load(path)


def test_concatenated_features_are_those_of_each_in_turn(device):
    sift = SIFT(device=device)
    several = [sift.compute(image) for image in (IMAGE, np.zeros((30, 30), np.uint8), IMAGE[::-1].copy())]
    whole = Features.concatenate(several)
    n = len(several[0])
    assert type(whole.positions) is type(several[0].positions)
    assert (digest(whole[:n]), digest(whole[n:])) == (digest(several[0]), digest(several[2]))
    assert digest(Features.concatenate(several[:1])) == digest(several[0])


@pytest.mark.parametrize("change", ["no descriptors", "other lengths"])
def test_features_that_are_not_alike_are_not_concatenated(change):
    features = SIFT(device="cpu").compute(IMAGE)
    arrays = features.arrays()
    arrays["descriptors"] = None if change == "no descriptors" else arrays["descriptors"][:, :64]
    with pytest.raises(ValueError, match=r"descriptors of one length or without, got <Features: .*<Features: "):
        Features.concatenate([features, Features(**arrays)])
    with pytest.raises(ValueError, match="at least one"):
        Features.concatenate([])


def test_features_that_were_computed_are_copied_to_the_host_at_once(device, features, monkeypatch):
    """Selections, whose arrays do not lie next to each other, are copied array by array."""
    host = features.to_host()
    assert digest(host) == digest(features)
    if device == "cpu":
        return
    copies, get = [], type(features.positions).get
    monkeypatch.setattr(type(features.positions), "get", lambda *given, **options: copies.append(1) or get(*given))
    assert digest(features.to_host()) == digest(host)
    assert len(copies) == 1
    some = features[5:20].to_host()
    assert len(copies) == 1 + 7
    assert digest(some) == digest(host[5:20])
    assert len(features[:0].to_host()) == 0
