"""The study of reconstructions: its errors of known models, and its table."""

from __future__ import annotations

from types import SimpleNamespace

import cv2  # noqa: F401 - before pycolmap, see gpusift.sinks.colmap.cameras
import numpy as np
import pytest

pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

from bench.accuracy import reconstruction


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


def test_the_table_leaves_out_what_a_scene_does_not_have():
    hardware = {"gpu": None, "cpu": "a processor", "cores": 2}
    common = {"run": "2026-01-02T03:04:05", "hardware": hardware, "images": 3, "keypoints": 1000}
    rows = [
        common | {"scene": "one", "engine": "a", "registered": 3, "centre_median_mm": 2.345},
        common | {"scene": "two", "engine": "a", "registered": 0},
    ]
    lines = reconstruction.table(rows).splitlines()
    assert lines[2] == "| scene | engine | keypoints | registered | centre error, mm: median |"
    assert lines[4:6] == ["| one, 3 images | a | 1,000 | 3 | 2.35 |", "| two, 3 images | a | 1,000 | 0 |  |"]
    assert lines[-1] == "a processor, 2 cores; 2026-01-02."
