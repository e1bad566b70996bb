"""The study of reconstructions: its errors of known models, and its table."""

from __future__ import annotations

from types import SimpleNamespace

import cv2  # noqa: F401 - before pycolmap, see gpusift.sinks.colmap.cameras
import numpy as np
import pytest

pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

from bench.accuracy import reconstruction, reconstruction_tables
from bench.common.rows import read


def model_of(centres: dict[str, np.ndarray]) -> SimpleNamespace:
    """A model of cameras at these places, and of one without a pose."""
    images = [
        SimpleNamespace(name=name, has_pose=True, projection_center=lambda centre=centre: centre)
        for name, centre in centres.items()
    ]
    images.append(SimpleNamespace(name="lost", has_pose=False))
    return SimpleNamespace(images=dict(enumerate(images)))


def test_errors_are_those_left_by_the_best_similarity():
    rng = np.random.default_rng(0)
    true = {f"{i}": centre for i, centre in enumerate(rng.normal(size=(8, 3)))} | {"lost": np.zeros(3)}
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = {name: 3 * turn @ centre + 5 for name, centre in true.items() if name != "lost"}
    errors = reconstruction.centre_errors(model_of(moved), true)
    assert max(errors.values()) < 1e-6
    true["3"] = true["3"] + [0, 0, 1e-2]  # 10 mm off
    errors = reconstruction.centre_errors(model_of(moved), true)
    assert 5 < errors["centre_worst_mm"] < 10
    assert 0 < errors["centre_median_mm"] < 5
    assert reconstruction.centre_errors(model_of(moved), None) == {}


def test_points_are_counted_by_the_images_that_see_them():
    measures = reconstruction.measures_of_points([2, 3, 4, 6, 6], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert [measures[key] for key in ("points", "points_4", "points_5", "points_6", "observations")] == [5, 3, 2, 2, 21]
    assert measures["track_length"] == 21 / 5
    assert measures["reprojection_error"] == pytest.approx(0.3)
    assert measures["reprojection_error_se"] == pytest.approx(np.sqrt(0.02 / 5))


def rows_of(scene: str, engine: str, lengths: list[list[int]], **more: object) -> list[dict[str, object]]:
    """The rows of an engine, with these track lengths for each seed, and errors of 0.1 pixels an image."""
    hardware = {"gpu": None, "cpu": "a processor", "cores": 2, "instruction_set": None}
    common = {"run": "2026-01-02T03:04:05", "commit": "c" * 40, "dirty": False, "versions": {}, "hardware": hardware}
    about = {"scene": scene, "engine": engine, "images": 3, "keypoints": 1000, "registered": 3}
    return [
        {**common, **about, "seed": seed, **reconstruction.measures_of_points(each, [x / 10 for x in each]), **more}
        for seed, each in enumerate(lengths)
    ]


def test_the_tables_have_means_over_seeds_and_differences_from_the_peer():
    common = {"common_points": 7, "common_difference": 0.5, "common_difference_se": 0.1}
    ours = rows_of("one", "gpusift", [[4, 4, 5, 5], [4, 5, 6, 6]], centre_median_mm=2.345, **common)
    theirs = rows_of("one", "pycolmap", [[4, 4], [4, 4]])
    failed = [ours[0] | {"engine": "pycolmap affine", "registered": 0, "points": 0}]
    for key in ("observations", "track_length", "track_length_se", "reprojection_error", "centre_median_mm"):
        del failed[0][key]
    lines = reconstruction_tables.markdown(ours + theirs + failed).splitlines()
    titles = "| scene | engine | keypoints | registered | points | observations | track length | "
    assert titles + "reprojection error, px | centre error, mm: median |" in lines
    assert "| one, 3 images | gpusift | 1,000 | 3 | 4 | 20 | 4.875 +- 0.530 | 0.4875 +- 0.0530 | 2.35 |" in lines
    assert "| one, 3 images | pycolmap affine | 1,000 | 0 | 0 |  |  |  |  |" in lines
    compared = [line for line in lines if line.startswith("| one | ")]
    cells = "| one | gpusift | 2.000 | 2.000 |  |  | 2.438 | +0.875 +- 0.332 | 7 | +0.500 +- 0.100 | 1.219 +- 0.083 |"
    assert compared == [cells]  # the peer has no point in 5 images
    assert lines[-1].startswith("2026-01-02, a processor, 2 cores, commit cccccccccc; ")


def test_rows_of_other_scenes_and_engines_are_kept(tmp_path):
    reconstruction.keep(tmp_path, rows_of("brighton", "pycolmap", [[3], [4]]) + rows_of("brighton", "gpusift", [[3]]))
    reconstruction.keep(tmp_path, rows_of("fountain", "pycolmap", [[3]]))
    reconstruction.keep(tmp_path, rows_of("brighton", "pycolmap", [[5]]))
    kept = [(row["scene"], row["engine"], row["points_5"]) for row in read(tmp_path / "reconstruction.jsonl")]
    assert kept == [("fountain", "pycolmap", 0), ("brighton", "pycolmap", 1), ("brighton", "gpusift", 0)]
    assert (tmp_path / "reconstruction.md").read_text().count("| brighton | gpusift |") == 1
