"""The tables of the study of reconstructions, from its rows: one row for each scene, engine and seed."""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np

from bench.common.rows import Row
from bench.common.tables import provenance_line, table

PEER = "pycolmap"  # what all engines are compared with
LENGTHS = (4, 5, 6)  # images of a point
COLUMNS = (  # title, key, format
    ("keypoints", "keypoints", "{:,.0f}"),
    ("verified matches", "inliers", "{:,.0f}"),
    ("registered", "registered", "{:.0f}"),
    ("points", "points", "{:,.0f}"),
    ("observations", "observations", "{:,.0f}"),
    ("track length", "track_length", "{:.3f}"),
    ("reprojection error, px", "reprojection_error", "{:.4f}"),
    ("centre error, mm: median", "centre_median_mm", "{:.2f}"),
    ("worst", "centre_worst_mm", "{:.2f}"),
    ("features, s", "features_seconds", "{:.1f}"),
    ("matching, s", "matching_seconds", "{:.1f}"),
    ("mapping, s", "mapping_seconds", "{:.1f}"),
)
SPREAD = ("track_length", "reprojection_error")  # shown with the standard deviation over the seeds
COUNTS = ("points", *(f"points_{length}" for length in LENGTHS), "observations")


def markdown(rows: list[Row]) -> str:
    """Return both tables; the rows of a scene and engine follow each other."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row["scene"], row["engine"]))]
    seeds = max(len(group) for group in groups)
    lines = [
        "<!-- written by python -m bench.accuracy.reconstruction; do not edit -->",
        "",
        f"Means over {seeds} seeds of COLMAP's verification and mapper, +- their standard deviation. Registered: the "
        "least number of images.",
        "",
        *models(groups),
        f"Compared with {PEER} and its defaults: ratios of the numbers of points, of points in at least 4, 5 and 6 "
        "images, and observations; the difference of the mean track length, +- the standard error over the points as "
        "if those of two engines were independent; the number of points that both models have, and the difference of "
        "their track lengths, point by point; the ratio of the mean reprojection error.",
        "",
        *comparison(groups),
        provenance_line(rows[-1], machine=True),
    ]
    return "\n".join(lines) + "\n"


def models(groups: list[list[Row]]) -> list[str]:
    """Return the table of the models' measures."""
    shown = [column for column in COLUMNS if any(column[1] in row for group in groups for row in group)]
    cells = []
    for group in groups:
        first = group[0]
        values = [shown_value(group, key, form) for _, key, form in shown]
        cells.append([f"{first['scene']}, {first['images']} images", first["engine"], *values])
    return table(["scene", "engine", *(title for title, *_ in shown)], cells, words=2)


def shown_value(group: list[Row], key: str, form: str) -> str:
    """Return the mean of a measure over the seeds; of registered images the least."""
    values = [row[key] for row in group if key in row]
    if not values:
        return ""
    text = form.format(min(values) if key == "registered" else np.mean(values))
    return f"{text} +- {form.format(np.std(values, ddof=1))}" if key in SPREAD and len(values) > 1 else text


def comparison(groups: list[list[Row]]) -> list[str]:
    """Return the table of what engines differ in from `PEER`, on the same scene."""
    reconstructed = [group for group in groups if all("track_length" in row for row in group)]
    peers = {group[0]["scene"]: group for group in reconstructed if group[0]["engine"] == PEER}
    lengths = [f"in {length} images" for length in LENGTHS]
    titles = ["points", *lengths, "observations", "track length", "common points", "their track length", "error"]
    cells = []
    for group in reconstructed:
        scene, engine = group[0]["scene"], group[0]["engine"]
        if engine != PEER and scene in peers:
            cells.append([scene, engine, *differences(group, peers[scene])])
    return table(["scene", "engine", *titles], cells, words=2)


def differences(group: list[Row], peer: list[Row]) -> list[str]:
    """Return the cells of one engine."""

    def mean(rows: list[Row], key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    ratios = [f"{mean(group, key) / mean(peer, key):.3f}" if mean(peer, key) else "" for key in COUNTS]
    length = mean(group, "track_length") - mean(peer, "track_length")
    length_se = math.hypot(mean(group, "track_length_se"), mean(peer, "track_length_se"))
    error = mean(group, "reprojection_error") / mean(peer, "reprojection_error")
    relative = [mean(rows, "reprojection_error_se") / mean(rows, "reprojection_error") for rows in (group, peer)]
    common = ["", ""]
    if all("common_points" in row for row in group):
        longer = f"{mean(group, 'common_difference'):+.3f} +- {mean(group, 'common_difference_se'):.3f}"
        common = [f"{mean(group, 'common_points'):,.0f}", longer]
    return [
        *ratios,
        f"{length:+.3f} +- {length_se:.3f}",
        *common,
        f"{error:.3f} +- {error * math.hypot(*relative):.3f}",
    ]
