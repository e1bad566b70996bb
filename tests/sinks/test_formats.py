"""What is in the files of sinks, as other software reads it: h5py, pycolmap, pyarrow's datasets, NumPy."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2  # noqa: F401 - before pycolmap, see gpusift.sinks.colmap.cameras
import h5py
import numpy as np
import pytest
from skimage import data

from gpusift import SIFT, Features, colmap, hdf5, npz
from gpusift.features import ARRAYS
from gpusift.parquet import read, schema_of
from gpusift.sinks import open_sink
from gpusift.sinks import parquet as sink_parquet
from gpusift.sinks.base import record_of, settings_in
from gpusift.sinks.colmap.conventions import regions_of
from tests.support.sink_writer import SETTINGS, SHAPE, check, features_of, name_of

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")
dataset = pytest.importorskip("pyarrow.dataset")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = [name_of(i) for i in range(6)]


def fill(output: Path, names: list[str] = NAMES, **settings) -> Path:
    sink = open_sink(output, {**SETTINGS, **settings})
    for name in names:
        sink.write(name, features_of(name), SHAPE)
        sink.commit()
    sink.close()
    return output


def rows_of(names: list[str]) -> list[tuple[str, Features, tuple[int, int]]]:
    return [(name, features_of(name), SHAPE) for name in names]


def same(a: Features, b: Features) -> bool:
    return all(np.array_equal(getattr(a, field), getattr(b, field)) for field in ARRAYS)


# HDF5 and npz.


@pytest.mark.parametrize("normalization", ["l2", "root"])
def test_hdf5_is_what_the_other_commands_write(tmp_path, normalization):
    fill(tmp_path / "sink.h5", normalization=normalization)
    for name in NAMES:
        hdf5.write(tmp_path / "plain.h5", name, features_of(name), SHAPE, normalization)
    with h5py.File(tmp_path / "sink.h5") as sink, h5py.File(tmp_path / "plain.h5") as plain:
        assert settings_in(sink.attrs["gpusift"]) == {**SETTINGS, "normalization": normalization}
        for name in NAMES:
            assert set(sink[name]) == set(plain[name])
            assert dict(sink[name]["keypoints"].attrs) == dict(plain[name]["keypoints"].attrs)
            for key, array in plain[name].items():
                assert sink[name][key].dtype == array.dtype
                np.testing.assert_array_equal(sink[name][key], array)


def test_hdf5_has_images_in_the_groups_of_others(tmp_path):
    """Image "a" and image "a/b.jpg", in either order."""
    for i, names in enumerate((["a", "a/b.jpg", "a/c/d"], ["a/c/d", "a/b.jpg", "a"])):
        output = fill(tmp_path / f"{i}.h5", names)
        sink = open_sink(output, SETTINGS)
        assert all(name in sink for name in names)
        assert "a/c" not in sink
        with pytest.raises(ValueError, match="name must be possible for a group in HDF5, got 'a/keypoints'"):
            sink.write("a/keypoints", features_of("x"), SHAPE)
        sink.close()
        with h5py.File(output) as file:
            for name in names:
                np.testing.assert_array_equal(file[name]["scales"], features_of(name).sigmas)


def test_npz_is_what_load_reads(tmp_path):
    fill(tmp_path / "folder")
    for name in NAMES:
        assert same(npz.load(tmp_path / "folder" / f"{name}.npz"), features_of(name))


# COLMAP.


def test_colmap_has_the_rows_that_pycolmap_writes(tmp_path):
    fill(tmp_path / "sink.db")
    with pycolmap.Database.open(tmp_path / "theirs.db") as database:
        for i, name in enumerate(NAMES, 1):
            camera = pycolmap.Camera.create_from_model_name(i, "SIMPLE_RADIAL", 1.2 * max(SHAPE), SHAPE[1], SHAPE[0])
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=i)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
            image = pycolmap.Image(name=name, camera_id=i, image_id=i)
            image.frame_id = i
            frame = pycolmap.Frame(frame_id=i, rig_id=i)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_image(image, use_image_id=True)
            database.write_keypoints(i, colmap.keypoint_rows(features_of(name)))
            kind = pycolmap.FeatureExtractorType.SIFT
            database.write_descriptors(i, pycolmap.FeatureDescriptors(kind, features_of(name).descriptors))
    ours, theirs = (dump(tmp_path / name) for name in ("sink.db", "theirs.db"))
    assert [line for line in ours if "gpusift" not in line] == theirs


def test_colmap_reads_affine_shapes(tmp_path):
    """As matrices: the shape times a circular keypoint of COLMAP's, of this scale and orientation."""
    picture = np.ascontiguousarray(data.camera()[100:300, 100:300])
    features = SIFT(**{**colmap.SIFT_PARAMETERS, "affine_shape": True}, device="cpu").compute(picture)
    sink = open_sink(tmp_path / "c.db", {**SETTINGS, "affine_shape": True})
    sink.write("a.png", features, picture.shape)
    sink.close()
    with pycolmap.Database.open(tmp_path / "c.db") as database:
        rows = database.read_keypoints(1)
    assert rows.shape == (len(features), 6)
    for row, position, sigma, angle, shape in zip(
        rows, features.positions, features.sigmas, features.angles, features.affine_shapes, strict=True
    ):
        circle = np.linalg.inv(shape[::-1, ::-1]) @ row[2:].reshape(2, 2)
        columns = {"x": row[0], "y": row[1], **dict(zip(("a11", "a12", "a21", "a22"), circle.ravel(), strict=True))}
        theirs = pycolmap.FeatureKeypoint({key: float(value) for key, value in columns.items()})
        assert (theirs.x, theirs.y) == pytest.approx(position[::-1] + 0.5, abs=1e-3)
        assert theirs.compute_scale() == pytest.approx(sigma, rel=1e-4)
        away = np.exp(1j * (theirs.compute_orientation() - np.deg2rad(angle)))
        assert np.abs(np.angle(away)) < 1e-3
        assert (theirs.compute_shear() + np.pi / 2) % np.pi == pytest.approx(np.pi / 2, abs=1e-3)
    sigmas, angles, shapes = regions_of(rows)
    np.testing.assert_allclose(sigmas, features.sigmas, rtol=1e-4)
    np.testing.assert_allclose(shapes, features.affine_shapes, atol=1e-3)
    away = np.angle(np.exp(1j * (angles - np.deg2rad(features.angles))))
    assert np.abs(away).max() < 1e-3


@pytest.mark.parametrize("name", ["out.h5", "out.parquet", "folder"])
def test_affine_shapes_are_read_again(tmp_path, name):
    features = SIFT(affine_shape=True, normalization="root", device="cpu").compute(data.camera()[100:300, 100:300])
    sink = open_sink(tmp_path / name, {**SETTINGS, "affine_shape": True})
    sink.write("a", features, (200, 200))
    sink.close()
    if name == "folder":
        again = npz.load(tmp_path / name / "a.npz")
    else:
        ((_, _, again),) = (hdf5.read if name == "out.h5" else read)(tmp_path / name)
    np.testing.assert_allclose(again.affine_shapes, features.affine_shapes, rtol=0, atol=0)
    assert again.affine_shapes.shape == (len(features), 2, 2)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return sorted(line for line in database.iterdump() if line.startswith("INSERT"))


def test_colmap_matches_and_verifies_it(tmp_path):
    picture = np.ascontiguousarray(data.camera()[100:400, 100:400])
    sift = SIFT(**colmap.SIFT_PARAMETERS, device="cpu")
    settings = {"descriptor_layout": "ubc", "normalization": "root", "exif_orientation": False}
    sink = open_sink(tmp_path / "c.db", settings)
    for name, image in (("a.png", picture), ("b/turned.png", np.rot90(picture, 2))):
        sink.write(name, sift.compute(image), image.shape)
    sink.close()
    options = pycolmap.FeatureMatchingOptions(use_gpu=False)
    pycolmap.match_exhaustive(tmp_path / "c.db", matching_options=options)
    with pycolmap.Database.open(tmp_path / "c.db") as database:
        assert database.num_verified_image_pairs() == 1
        pairs, geometries = database.read_two_view_geometries()
        assert len(pairs) == 1
        matches = geometries[0].inlier_matches
        here, there = (database.read_keypoints(i)[matches[:, i - 1]] for i in (1, 2))
    assert len(matches) > 200
    assert np.median(np.abs(here[:, :2] + there[:, :2] - 300)) < 0.5
    assert "a.png" in open_sink(tmp_path / "c.db", settings)


def test_colmap_log_of_a_database_that_is_gone_counts_for_nothing(tmp_path):
    sink = open_sink(tmp_path / "c.db", SETTINGS)
    sink.write("a", features_of("a"), SHAPE)
    sink.commit()
    log = (tmp_path / "c.db-wal").read_bytes()
    sink.close()
    (tmp_path / "c.db").unlink()
    (tmp_path / "c.db-wal").write_bytes(log)
    sink = open_sink(tmp_path / "c.db", SETTINGS)
    assert "a" not in sink
    sink.write("b", features_of("b"), SHAPE)
    sink.close()
    assert set(check(tmp_path / "c.db")) == {"b"}


def test_colmap_that_another_program_writes_into(tmp_path):
    fill(tmp_path / "c.db")
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match="SQLite says: database is locked"):
            open_sink(tmp_path / "c.db", SETTINGS)
    assert set(check(tmp_path / "c.db")) == set(NAMES)


@pytest.mark.parametrize(("name", "value"), [("descriptor_layout", "vlfeat"), ("exif_orientation", True)])
def test_colmap_takes_its_own_conventions_only(tmp_path, name, value):
    fill(tmp_path / "c.db")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=f"{name} of a COLMAP database must be"):
            open_sink(tmp_path / "c.db", {**SETTINGS, name: value}, overwrite=overwrite)
    assert set(check(tmp_path / "c.db")) == set(NAMES)


def test_colmap_takes_descriptors_of_128_bytes_only(tmp_path):
    sink = open_sink(tmp_path / "c.db", SETTINGS)
    features = features_of("a")
    for descriptors in (None, features.descriptors[:, :32]):
        with pytest.raises(ValueError, match="descriptors must be of 128 bytes"):
            sink.write("a", features.with_descriptors(descriptors), SHAPE)
    sink.write("a", features, SHAPE)
    sink.close()
    assert set(check(tmp_path / "c.db")) == {"a"}


# Parquet.


def test_parquet_is_a_data_set(tmp_path):
    folder = fill(tmp_path / "parts.parquet")
    sink = open_sink(folder, SETTINGS)
    sink.failures.add("bad.jpg", "file:bad.jpg", "is bad")
    sink.close()
    table = dataset.dataset(folder, format="parquet").to_table()
    assert table.column("name").to_pylist() == NAMES
    assert table.schema.equals(schema_of(record_of(SETTINGS)))
    assert settings_in(table.schema.metadata[b"gpusift"]) == SETTINGS
    for row in table.to_pylist():
        expected = features_of(row["name"])
        assert (row["image_rows"], row["image_cols"], row["n"]) == (*SHAPE, len(expected))
        np.testing.assert_array_equal(np.array(row["rows"], np.float32), expected.positions[:, 0])
        np.testing.assert_array_equal(np.array(row["sigmas"], np.float32), expected.sigmas)
        assert row["descriptors"] == expected.descriptors.tobytes()
        assert row["descriptor_size"] == 128


def test_parquet_keeps_doubles_and_features_without_descriptors(tmp_path):
    plain = features_of("a")
    features = replace(plain, positions=plain.positions + np.float64(1e-9), descriptors=None)
    sink = open_sink(f"parquet:{tmp_path / 'folder'}", {"dtype": "float64"})
    sink.write("a", features, SHAPE)
    sink.close()
    [(name, shape, got)] = read(tmp_path / "folder")
    assert (name, shape, got.descriptors) == ("a", SHAPE, None)
    np.testing.assert_array_equal(got.positions, features.positions)


def test_parquet_parts_are_of_bounded_size_and_numbered_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sink_parquet, "FILE_BYTES", 12_000)
    folder = fill(tmp_path / "p.parquet", [name_of(i) for i in range(20)])
    first = sorted(path.name for path in folder.glob("*.parquet"))
    assert len(first) > 4
    assert all(parquet.read_table(folder / name).nbytes < 24_000 for name in first)
    fill(folder, [name_of(i) for i in range(20, 30)])
    parts = sorted(path.name for path in folder.glob("*.parquet"))
    assert parts == [f"part-{i:08}.parquet" for i in range(1, len(parts) + 1)]
    assert parts[: len(first)] == first
    assert sorted(check(folder)) == sorted(name_of(i) for i in range(30))


def test_parquet_is_read_while_a_run_goes_on(tmp_path):
    sink = open_sink(tmp_path / "p.parquet", SETTINGS)
    for name in NAMES:
        sink.write(name, features_of(name), SHAPE)
        sink.commit()
        assert len(check(tmp_path / "p.parquet")) == NAMES.index(name) + 1
    assert not list((tmp_path / "p.parquet").glob("*.parquet"))
    sink.close()


def test_parquet_journal_that_became_a_part_counts_once(tmp_path):
    folder = tmp_path / "p.parquet"
    sink = open_sink(folder, SETTINGS)
    for name in NAMES:
        sink.write(name, features_of(name), SHAPE)
    sink.commit()
    journal = folder / "_journal-00000001"
    kept = journal.read_bytes()
    sink.close()
    journal.write_bytes(kept)
    assert sorted(check(folder)) == sorted(NAMES)
    open_sink(folder, SETTINGS).close()
    assert not list(folder.glob("_journal*"))
    assert sorted(check(folder)) == sorted(NAMES)


def test_parquet_files_are_written_anywhere(tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install fsspec")
    sink_parquet.write_file("memory://bucket/parts", "part-x.parquet", rows_of(NAMES[:3]), SETTINGS)
    (tmp_path / "part-x.parquet").write_bytes(fsspec.filesystem("memory").cat("/bucket/parts/part-x.parquet"))
    for _ in range(2):  # the same once more replaces it
        sink_parquet.write_file(tmp_path, "part-y.parquet", rows_of(NAMES[3:]), SETTINGS)
    assert [each for each, _, _ in read(tmp_path)] == NAMES
    [(name, _, features), *_] = read(tmp_path / "part-y.parquet")
    assert name == NAMES[3]
    assert same(features, features_of(name))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="Parquet needs pyarrow: pip install pyarrow"):
        open_sink(tmp_path / "p.parquet", SETTINGS)
    assert not (tmp_path / "p.parquet").exists()
