"""Options of `gpusift colmap` that COLMAP's own extractor and matchers have, compared with COLMAP's results."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import cv2  # before pycolmap, see gpusift.sinks.colmap.cameras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as Picture

from gpusift import cli
from gpusift.cli.job import IMAGES_FAILED
from gpusift.colmap import write_database
from tests.support.pictures import textured

pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")
pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)

SHAPE = (120, 160)


def run(*arguments: object, command: str = "colmap") -> Result:
    result = CliRunner().invoke(cli.main, [command, *map(str, arguments), "--device", "cpu"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: object, code: int = 0, command: str = "colmap") -> str:
    result = run(*arguments, command=command)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Two folders of two pictures each; those of the first overlap, and know where they were taken."""
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    exif = Picture.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model"
    exif.get_ifd(0x8769)[0xA405] = 28
    whole = textured(0, (SHAPE[0] + 10, SHAPE[1] + 20))
    for name, first in (("a", 0), ("b", 10)):
        exif.get_ifd(0x8825).update(
            {1: "N", 2: (46.0, 50.0, 30.0 + first / 50), 3: "E", 4: (7.0, 0.0, 0.0), 5: b"\0", 6: 9.0}
        )
        part = whole[first : first + SHAPE[0], first : first + SHAPE[1]]
        Picture.fromarray(part).save(f"photos/one/{name}.jpg", exif=exif, quality=95)
    for seed, name in enumerate("cd", 5):
        cv2.imwrite(f"photos/two/{name}.png", textured(seed, SHAPE))
    return tmp_path / "photos"


def rows(database: str, query: str) -> list[tuple]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(query).fetchall()


def cameras_of(database: str) -> dict[str, int]:
    return dict(rows(database, "SELECT name, camera_id FROM images"))


def content(database: str) -> list[list[tuple]]:
    """All that COLMAP reads of images: cameras, positions and features, by name."""
    joined = "FROM images JOIN {} USING ({}) ORDER BY name"
    columns = (
        "name, model, width, height, params, prior_focal_length",
        "name, position, gravity",
        "name, data",
        "name, data",
    )
    tables = (("cameras", "camera_id"), ("pose_priors ON corr_data_id = image_id", ""), ("keypoints", "image_id"))
    queries = []
    for some, (table, key) in zip(columns, (*tables, ("descriptors", "image_id")), strict=True):
        source = joined.format(table, key) if key else f"FROM images JOIN {table} ORDER BY name"
        queries.append(rows(database, f"SELECT {some} {source}"))
    return queries


def test_both_commands_write_the_same_database(photos):
    done("photos", "-o", "a.db")
    done("photos", "-o", "b.db", command="extract")
    assert content("a.db") == content("b.db")
    assert len(content("a.db")[1]) == 2  # positions
    with pycolmap.Database.open("a.db") as database:
        assert any(camera.has_prior_focal_length for camera in database.read_all_cameras())


def test_large_images_are_shrunk_as_colmap_does(photos):
    done("photos", "-o", "a.db")
    done("photos", "-o", "b.db", "--max-size", 3200)
    assert "default: 3200" in " ".join(run("--help").output.split())
    assert content("a.db") == content("b.db")
    result = run("photos", "-o", "a.db", "--max-size", 100)
    assert (result.exit_code, "max_size was 3200, is 100" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("option", "groups"),
    [
        (("--camera-per", "folder"), [{"one/a.jpg", "one/b.jpg"}, {"two/c.png", "two/d.png"}]),
        (("--camera-per", "image"), [{"one/a.jpg"}, {"one/b.jpg"}, {"two/c.png"}, {"two/d.png"}]),
        (("--single-camera",), [{"one/a.jpg", "one/b.jpg", "two/c.png", "two/d.png"}]),
    ],
)
def test_cameras_of_folders_and_of_images(photos, option, groups):
    done("photos/two", "--root", "photos", "-o", "c.db", *option)
    done("photos", "-o", "c.db", *option)  # the cameras of a database that is resumed
    by_camera: dict[int, set[str]] = {}
    for name, camera in cameras_of("c.db").items():
        by_camera.setdefault(camera, set()).add(name)
    assert sorted(map(sorted, by_camera.values())) == sorted(map(sorted, groups))


def test_the_images_of_a_folders_camera_have_one_size(photos):
    cv2.imwrite("photos/two/e.png", textured(9, (90, 90)))
    result = run("photos", "-o", "c.db", "--camera-per", "folder")
    assert result.exit_code == IMAGES_FAILED
    assert "as all are of the camera of their folder" in result.stderr
    assert run("photos", "-o", "d.db", "--camera-per", "folder", "--single-camera").exit_code == 1


def test_masks_are_colmaps(photos):
    """COLMAP's own extraction with the same masks removes the same part: to the pixel of each keypoint."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:90, 30:] = 255
    for name in ("one/a.jpg.png", "one/b.png", "two/c.png.png"):  # both names that COLMAP looks for
        Path("masks", name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"masks/{name}", mask)
    cv2.imwrite("masks/two/d.png.png", mask[1:])
    result = run("photos", "-o", "m.db", "--mask-path", "masks")
    assert result.exit_code == IMAGES_FAILED
    assert "mask must be of the image's size" in result.stderr
    done("photos", "-o", "all.db")
    for name in ("one/a.jpg", "one/b.jpg", "two/c.png"):
        query = f"SELECT data FROM keypoints JOIN images USING (image_id) WHERE name = '{name}'"
        ours, every = (np.frombuffer(rows(file, query)[0][0], np.float32).reshape(-1, 4) for file in ("m.db", "all.db"))
        cols, lines = every[:, :2].astype(int).T
        np.testing.assert_array_equal(ours, every[mask[lines, cols] != 0])
        assert 0 < len(ours) < len(every)
    Path("masks/two/c.png.png").unlink()
    assert "must have a mask" in run("photos", "-o", "n.db", "--mask-path", "masks").stderr
    assert run("photos", "-o", "o.db", "--mask-path", "none").exit_code == 1


def test_a_list_of_images(photos):
    Path("list.txt").write_text("﻿two/d.png\r\n\r\n# one/b.jpg\r\none/a.jpg\r\n")
    done("photos", "-o", "c.db", "--image-list", "list.txt")
    assert sorted(cameras_of("c.db")) == ["one/a.jpg", "two/d.png"]
    done("photos", "-o", "c.db")
    assert len(cameras_of("c.db")) == 4
    Path("list.txt").write_text("one/none.jpg\none/a.jpg\n")
    assert "none.jpg" in run("photos", "-o", "d.db", "--image-list", "list.txt").stderr
    for wrong in (("photos/one", "photos/two", "--image-list", "list.txt"), ("photos", "--image-list", "no.txt")):
        assert run(*wrong, "-o", "e.db").exit_code == 2


@pytest.mark.parametrize("url", ["s3://bucket/photos", "https://example.com/a.jpg", "zip://*.jpg::photos.zip"])
def test_urls_are_refused(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    result = run(url, "-o", "c.db")
    assert result.exit_code == 2
    assert f"images must be on this machine, where COLMAP reads them, got {url}" in " ".join(result.stderr.split())


def inliers(database: str) -> int:
    return rows(database, "SELECT SUM(rows) FROM two_view_geometries")[0][0]


def test_pairs_near_each_other(photos):
    """Only two images have positions; COLMAP pairs them."""
    assert "1 pairs matched, 1 verified" in done("photos", "-o", "c.db", "--match", "spatial")
    result = run("photos/two", "-o", "d.db", "--match", "spatial")
    assert result.exit_code == 1
    assert "needs images with positions (GPS in EXIF), and none has one" in result.stderr
    written = write_database("photos", "e.db", sift={"device": "cpu"}, match="spatial")
    assert (written.pairs, written.verified) == (1, 1)


def test_a_vocabulary_tree_must_be_given(photos):
    result = run("photos", "-o", "c.db", "--match", "vocabtree", "--vocab-tree", "none.bin")
    assert (result.exit_code, "needs COLMAP's vocabulary tree as a file" in result.stderr) == (1, True)
    assert run("photos", "-o", "c.db", "--match", "vocabtree").exit_code == 2
    assert run("photos", "-o", "c.db", "--match", "spatial", "--vocab-tree", "x").exit_code == 2


def test_guided_matching_is_colmaps(photos):
    plain = done("photos/one", "-o", "p.db", "--match", "exhaustive")
    guided = done("photos/one", "-o", "g.db", "--match", "exhaustive", "--guided")
    assert "1 pairs matched, 1 verified" in plain
    assert "1 pairs matched, 1 verified" in guided
    assert inliers("g.db") > inliers("p.db") > 20
    before = rows("g.db", "SELECT * FROM two_view_geometries")
    done("photos/one", "-o", "g.db", "--match", "exhaustive", "--guided")
    assert rows("g.db", "SELECT * FROM two_view_geometries") == before
    assert run("photos", "-o", "h.db", "--guided").exit_code == 2
    assert run("photos", "-o", "h.db", "--match", "exhaustive", "--guided", "--refine").exit_code == 2


def test_a_database_of_colmaps_own_is_continued(photos):
    """What is in it stays, and features of other images are added; it is never replaced."""
    options = pycolmap.FeatureExtractionOptions(use_gpu=False)
    pycolmap.extract_features("c.db", "photos", image_names=["two/c.png"], extraction_options=options)
    before = rows("c.db", "SELECT * FROM keypoints")
    refused = run("photos", "-o", "c.db", "--overwrite")
    assert (refused.exit_code, "must not be a database of COLMAP's own" in refused.stderr) == (1, True)
    assert rows("c.db", "SELECT * FROM keypoints") == before
    assert done("photos", "-o", "c.db", "--match", "exhaustive").startswith("3 of 4 images, ")
    assert sorted(cameras_of("c.db")) == ["one/a.jpg", "one/b.jpg", "two/c.png", "two/d.png"]
    assert rows("c.db", "SELECT * FROM keypoints WHERE image_id = 1") == before
    with pycolmap.Database.open("c.db") as database:
        assert (database.num_images(), database.num_cameras() >= 2, database.num_rigs()) == (
            4,
            True,
            database.num_cameras(),
        )
    assert done("photos", "-o", "c.db").startswith("0 of 4 images, ")


def test_a_database_that_lacks_features_is_refused(photos):
    pycolmap.Database.open("c.db").close()
    pycolmap.import_images("c.db", "photos")
    result = run("photos", "-o", "c.db")
    assert result.exit_code == 1
    assert "must be new, or results of gpusift extract" in result.stderr
    with closing(sqlite3.connect("d.db")) as other, other:
        other.execute("CREATE TABLE images (name TEXT)")
    assert run("photos", "-o", "d.db").exit_code == 1
