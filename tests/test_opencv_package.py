"""Importing cv2: whichever distribution is there, and what is said where none is."""

from __future__ import annotations

import subprocess
import sys

import cv2
import pytest

from gpusift.opencv_package import import_cv2
from tests.support.command import run

NONE = "import sys; sys.modules['cv2'] = None\n"


@pytest.fixture
def without_cv2(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    import_cv2.cache_clear()
    yield
    import_cv2.cache_clear()


def test_the_one_that_is_there_is_used():
    import_cv2.cache_clear()
    assert import_cv2() is cv2


@pytest.mark.parametrize("call", ["from gpusift.opencv import SIFT_create", "import gpusift.opencv.keypoints"])
def test_the_face_of_opencv_says_what_to_install(call):
    done = subprocess.run([sys.executable, "-c", NONE + call], capture_output=True, text=True)
    assert 'pip install "gpusift[opencv]", or any of opencv-python, ' in done.stderr


def test_the_rest_works_without():
    code = NONE + (
        "import numpy as np, gpusift, gpusift.images, gpusift.plot, gpusift.geometry, gpusift.stream, gpusift.cli\n"
        "print(len(gpusift.SIFT(device='cpu').compute(np.random.default_rng(0).random((60, 80)))) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("True\n"), done.stderr


def test_no_image_is_recorded_as_failed_for_want_of_it(without_cv2, tmp_path):
    (tmp_path / "a.png").write_bytes(b"any")
    result = run("extract", tmp_path / "a.png", "-o", tmp_path / "out", "--device", "cpu")
    assert result.exit_code != 0
    assert 'pip install "gpusift[opencv]"' in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", ["4.10.0", "3.4.18", "4.9.0-dev"])
def test_an_old_one_is_refused(monkeypatch, version):
    import_cv2.cache_clear()
    monkeypatch.setattr(cv2, "__version__", version)
    with pytest.raises(ImportError, match=rf"OpenCV must be at least 4\.11, got {version}: upgrade"):
        import_cv2()


@pytest.mark.parametrize("version", ["4.11.0", "5.0.0-pre", "10.0"])
def test_newer_ones_are_taken(monkeypatch, version):
    import_cv2.cache_clear()
    monkeypatch.setattr(cv2, "__version__", version)
    assert import_cv2() is cv2
