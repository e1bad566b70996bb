"""Cameras and images in the database: COLMAP's own import of the files."""

from __future__ import annotations

import signal
import subprocess
import sys

import cv2  # before pycolmap, see gpusift.sinks.colmap.cameras
import numpy as np
import pytest
from PIL import Image as Picture

from gpusift import SIFT
from gpusift.colmap import SIFT_PARAMETERS, keypoint_rows, write_database
from gpusift.images import read_image
from gpusift.stream import extract
from tests.support.pictures import textured

pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")
pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)

ROWS, COLS = 80, 100


@pytest.fixture
def sift() -> SIFT:
    return SIFT(**SIFT_PARAMETERS, device="cpu")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("ab"):
        cv2.imwrite(str(folder / f"{name}.png"), textured(number, (ROWS, COLS)))
    return folder


def test_cameras_are_colmaps_own(tmp_path, sift):
    """EXIF: focal length for a 35 mm film, position, the same camera for two images; pictures are not turned."""
    exif = Picture.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model", 6
    exif.get_ifd(0x8769)[0xA405] = 28
    exif.get_ifd(0x8825).update({1: "N", 2: (46.0, 50.0, 33.5), 3: "W", 4: (91.0, 59.0, 41.0), 5: b"\0", 6: 198.5})
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "c.png"), textured(3, (ROWS, COLS)))
    for name, seed in (("a", 1), ("b", 2)):
        Picture.fromarray(textured(seed, (ROWS, COLS))).save(folder / f"{name}.jpg", exif=exif, quality=95)
    # one reader: images are numbered in the order in which they arrive
    assert extract(folder, tmp_path / "c.db", sift, n_decoders=1).images == 3
    pycolmap.Database.open(tmp_path / "theirs.db").close()
    pycolmap.import_images(tmp_path / "theirs.db", folder)
    with (
        pycolmap.Database.open(tmp_path / "c.db") as ours,
        pycolmap.Database.open(tmp_path / "theirs.db") as theirs,
    ):
        assert str(ours.read_all_cameras()) == str(theirs.read_all_cameras())
        assert str(ours.read_all_rigs()) == str(theirs.read_all_rigs())
        assert str(ours.read_all_frames()) == str(theirs.read_all_frames())
        assert str(ours.read_all_images()) == str(theirs.read_all_images())
        assert str(ours.read_all_pose_priors()) == str(theirs.read_all_pose_priors())
        np.testing.assert_allclose(
            [p.position for p in ours.read_all_pose_priors()], [[46.843, -91.995, 198.5]] * 2, 1e-5
        )
        turned_one = ours.read_camera(ours.read_image_with_name("a.jpg").camera_id)
        assert (turned_one.width, turned_one.height, ours.num_cameras()) == (100, 80, 2)
        assert turned_one.has_prior_focal_length
        rows = ours.read_keypoints(ours.read_image_with_name("a.jpg").image_id)
    expected = sift.compute(read_image(folder / "a.jpg", exif_orientation=False))
    np.testing.assert_array_equal(rows, keypoint_rows(expected))


def test_positions_and_gravity_are_colmaps_own(tmp_path, sift):
    """Every orientation, and one that is none, with and without a position."""
    folder = tmp_path / "in"
    folder.mkdir()
    for orientation in range(10):
        for has_position in (False, True):
            exif = Picture.Exif()
            exif[0x0112] = orientation
            if has_position:
                exif.get_ifd(0x8825).update(
                    {1: "N", 2: (46.0, 50.0, 33.5), 3: "W", 4: (91.0, 59.0, 41.0), 5: b"\0", 6: 1.5}
                )
            Picture.fromarray(textured(1, (ROWS, COLS))).save(folder / f"{orientation}{has_position}.jpg", exif=exif)
    assert write_database(folder, tmp_path / "c.db", sift=sift).images == 20
    pycolmap.Database.open(tmp_path / "theirs.db").close()
    pycolmap.import_images(tmp_path / "theirs.db", folder)

    def priors(path):
        with pycolmap.Database.open(path) as database:
            names = {image.image_id: image.name for image in database.read_all_images()}
            return {
                names[prior.corr_data_id.id]: (str(prior.position), str(prior.gravity), prior.coordinate_system)
                for prior in database.read_all_pose_priors()
            }

    assert priors(tmp_path / "c.db") == priors(tmp_path / "theirs.db")


def test_a_single_camera_that_is_given(photos, tmp_path, sift):
    params = [110.5, 111.5, 50.25, 40.75]
    write_database(
        photos, tmp_path / "c.db", sift=sift, single_camera=True, camera_model="PINHOLE", camera_params=params
    )
    with pycolmap.Database.open(tmp_path / "c.db") as database:
        (camera,) = database.read_all_cameras()
        assert camera.model.name == "PINHOLE"
        assert camera.has_prior_focal_length
        np.testing.assert_array_equal(camera.params, params)
        assert {image.camera_id for image in database.read_all_images()} == {camera.camera_id}


def test_images_of_another_size_do_not_share_a_camera(photos, tmp_path, sift):
    cv2.imwrite(str(photos / "z.png"), textured(5, (60, 70)))
    written = write_database(photos, tmp_path / "c.db", sift=sift, single_camera=True)
    ((path, reason),) = written.failures
    assert path == str(photos / "z.png")
    assert "must be of the first image's size, as all are of a single camera: 100 x 80 pixels, got 70 x 60" in reason
    with pycolmap.Database.open(tmp_path / "c.db") as database:
        assert {image.name for image in database.read_all_images()} == {"a.png", "b.png"}


def test_sigterm_stays_the_programs_own():
    """Pycolmap would print a stack and abort, where a program wants to finish what it has in hand."""
    code = (
        "import os, signal\n"
        "from gpusift.colmap import import_pycolmap\n"
        "signal.signal(signal.SIGTERM, lambda *arguments: print('finished'))\n"
        "import_pycolmap()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "import_pycolmap()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-uc", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "finished\n", "")
