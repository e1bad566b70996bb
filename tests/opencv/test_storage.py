"""Parameters in OpenCV's files: read by cv2.SIFT, and read from it."""

from __future__ import annotations

import cv2
import pytest

from gpusift.opencv import SIFT, SIFT_create

CHANGED = {"nfeatures": 7, "nOctaveLayers": 4, "contrastThreshold": 0.03, "edgeThreshold": 12.0, "sigma": 1.5}
GETTERS = ("NFeatures", "NOctaveLayers", "ContrastThreshold", "EdgeThreshold", "Sigma")


def parameters(sift) -> list:
    return [getattr(sift, f"get{name}")() for name in GETTERS] + [sift.descriptorType()]


@pytest.mark.parametrize("suffix", [".yml", ".xml", ".json"])
def test_files_go_both_ways(tmp_path, suffix):
    ours = SIFT_create(**CHANGED, descriptorType=cv2.CV_8U, device="cpu")
    theirs = cv2.SIFT_create(**CHANGED, descriptorType=cv2.CV_8U)
    path = str(tmp_path / f"a{suffix}")
    ours.write(path)
    read = cv2.SIFT_create()
    read.read(path)
    assert parameters(read)[:5] == list(CHANGED.values())
    theirs.write(path)
    again = SIFT(device="cpu")
    again.read(path)
    assert parameters(again) == parameters(theirs) == parameters(ours)


def test_what_is_saved_is_read(tmp_path):
    ours = SIFT_create(**CHANGED, enable_precise_upscale=True, device="cpu")
    path = str(tmp_path / "a.yml")
    ours.save(path)
    again = SIFT(device="cpu")
    again.read(path)
    assert parameters(again) == parameters(ours)
    assert again._sift.parameters == ours._sift.parameters
    assert again._sift.parameters.precise_upscale


def test_a_node_of_storage(tmp_path):
    path = str(tmp_path / "a.yml")
    for sift in (SIFT_create(**CHANGED, device="cpu"), cv2.SIFT_create(**CHANGED)):
        storage = cv2.FileStorage(path, cv2.FILE_STORAGE_WRITE)
        storage.write("before", 1)
        sift.write(storage, "sift")
        storage.write("after", 2)
        storage.release()
        storage = cv2.FileStorage(path, cv2.FILE_STORAGE_READ)
        assert [storage.getNode(name).real() for name in ("before", "after")] == [1, 2]
        for reader in (SIFT(device="cpu"), cv2.SIFT_create()):
            reader.read(storage.getNode("sift"))
            assert parameters(reader)[:5] == list(CHANGED.values())
        storage.release()


def test_what_is_wrong_is_said(tmp_path):
    sift = SIFT_create(**CHANGED, device="cpu")
    with pytest.raises(OSError, match="must come from a file that OpenCV reads"):
        sift.read(str(tmp_path / "none.yml"))
    with pytest.raises(OSError, match="must go to a file that can be written"):
        sift.write(str(tmp_path / "none" / "a.yml"))
    path = str(tmp_path / "a.yml")
    cv2.ORB_create().write(path)
    with pytest.raises(ValueError, match=r"must be those of Feature2D\.SIFT, got those of Feature2D\.ORB"):
        sift.read(path)
    (tmp_path / "a.yml").write_text("%YAML:1.0\n---\nsigma: -1.\n")
    with pytest.raises(ValueError, match="sigma must be greater than 0"):
        sift.read(path)
    assert parameters(sift)[:5] == list(CHANGED.values())  # as before
