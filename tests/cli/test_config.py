"""`--config FILE.toml` of `gpusift extract`."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from gpusift import SIFT, hdf5
from gpusift.images import read_image
from tests.support.command import run
from tests.support.pictures import blobs


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder with a picture; its parent is the current one."""
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), blobs(0))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_a_file_gives_options_and_the_command_line_wins(photos):
    Path("a.toml").write_text(
        'sources = ["photos"]\noutput = "f.h5"\ndevice = "cpu"\nmax-keypoints = 4\nupright = true\nn_octaves = 2\n'
    )
    assert run("extract", "--config", "a.toml", "--max-keypoints", 6).exit_code == 0
    image = read_image(photos / "a.png")
    features = SIFT.colmap(device="cpu", max_keypoints=6, upright=True, n_octaves=2).compute(image)
    with h5py.File("f.h5") as file:
        for key, array in hdf5.hloc_arrays(features, image.shape, "root").items():
            np.testing.assert_array_equal(file["a.png"][key], array)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n-octave = 2", "must hold options of this command, got 'n-octave'"),
        ("config = 'b.toml'", "must hold options of this command, got 'config'"),
        ("n-octaves = 2.5", "'2.5' is not a valid integer"),
        ("upright = 3", "'3' is not a valid boolean"),
        ("[sift]\nn-octaves = 2", "got 'sift'"),
        ("n-octaves = [2]", "n-octaves must be a string, a number, true or false, got [2]"),
        ("sources = [1]", "sources must be a list of strings, got [1]"),
        ("n-octaves = ", "must be a TOML file: "),
    ],
)
def test_wrong_options_in_a_file_are_refused(photos, text, message):
    Path("a.toml").write_text(text)
    result = run("extract", photos, "-o", "out", "--config", "a.toml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


def test_a_missing_file_of_options(photos):
    assert "cannot read a.toml: No such file" in run("extract", photos, "-o", "out", "--config", "a.toml").stderr
