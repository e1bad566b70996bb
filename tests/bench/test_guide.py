"""The pictures and times of the page that says which options to use."""

import cv2
import numpy as np

from bench.accuracy import guide
from bench.accuracy.plot import newest
from bench.common.machine import RESULTS
from bench.common.rows import read
from gpusift.parameters import Parameters


def test_the_pictures_are_drawn_from_kept_rows(tmp_path):
    rows = read(RESULTS / guide.RESIDUALS)
    for row in rows:
        assert len(row["before"]) == len(row["after"]) == len(guide.EDGES) - 1
        assert row["median after"] < row["median before"]
    guide.draw_residuals(rows, tmp_path / "residuals.png")
    guide.draw_budgets(newest(read(RESULTS / "accuracy.jsonl")), tmp_path / "budgets.png")
    for picture in tmp_path.iterdir():
        assert np.std(cv2.imread(str(picture))) > 10


def test_costs_are_of_valid_options_and_kept():
    kept = {row["option"]: row["ms"] for row in read(RESULTS / guide.COSTS)}
    assert kept.keys() == {*guide.OPTIONS, "match", "refine_matches"}
    for options in guide.OPTIONS.values():
        Parameters(**options)
    assert 0 <= guide.fastest(sorted, range(1000)) < 1000
