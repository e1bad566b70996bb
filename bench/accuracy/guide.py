#!/usr/bin/env python
"""Draw the pictures of docs/which-to-use.md, and measure what options cost.

    python -m bench.accuracy.guide [--data FOLDER] [--costs]

The pictures show errors against the number of features, and residuals of refined matches. With a data folder, as for
`bench.accuracy.run`, the residuals are measured again and kept in results/residuals.jsonl. With --costs, times are
measured again and kept in results/costs.jsonl: processor time of one thread, so that other programs hardly matter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.accuracy.engines import SETTINGS
from bench.accuracy.measures import MAX_RATIO, project
from bench.accuracy.plot import STYLES, budgets, by_engine, newest
from bench.accuracy.sequences import standard
from bench.common.machine import RESULTS
from bench.common.photographs import carried, grey
from bench.common.rows import Row, append, provenance, read
from gpusift.profiles import arguments_of

RESIDUALS, COSTS = "residuals.jsonl", "costs.jsonl"
REPEATS = 5  # of which the fastest counts
SIZES = (0.5, 0.71, 1, 1.41, 2)  # of pooled windows

# What a call of `SIFT` is made with, by the words of the page.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "RootSIFT, no bias": SETTINGS["gpusift root"],
    "colmap": arguments_of("colmap"),
    "lightglue": arguments_of("lightglue"),
    "opencv": arguments_of("opencv"),
    "at most 1,000": {"max_keypoints": 1000},
    "upsampling 1": {"upsampling": 1},
    "upright": {"upright": True},
    "pooled over 5 sizes": {"pooling": SIZES},
    "affine shapes": {"affine_shape": True},
}
EDGES = np.arange(0, 3.05, 0.1)  # of the histogram of residuals, pixels
SECOND = 1  # the image that the first one of a sequence is matched with

# Lines of the first picture, and what the page calls them.
SHOWN = {
    "gpusift": "default",
    "gpusift root": "RootSIFT, no bias",
    "gpusift root refined": "RootSIFT, no bias, matches refined",
    "gpusift root affine refined": "with affine shapes, matches refined",
    "gpusift as COLMAP": "COLMAP's thresholds",
    "gpusift as COLMAP refined": "COLMAP's thresholds, matches refined",
    "OpenCV precise": "OpenCV, precise",
    "pycolmap": "pycolmap",
}


def measure(data: Path) -> list[Row]:
    """Return the residuals of matches before and after refinement, a row for each sequence.

    A residual is the distance of a match's second point from where the known homography takes the first. Residuals are
    counted in bins between `EDGES`.
    """
    from gpusift import SIFT, match, refine_matches

    sift, common, rows = SIFT(**SETTINGS["gpusift root"]), provenance(), []
    for title, sequence in standard(data).items():
        images, homography = (load := sequence()).images, load.homographies[SECOND]
        several = [sift.compute(image).to_host() for image in (images[0], images[SECOND])]
        matches = match(*several, max_ratio=MAX_RATIO, symmetric_ratio=True)
        refined = refine_matches(images[0], images[SECOND], *several, matches, sift=sift).to_host()
        expected = project(several[0].positions[matches.indices[:, 0], ::-1].astype(float), homography)
        found = {"before": several[1].positions[matches.indices[:, 1]], "after": refined.positions}
        row: Row = {**common, "sequence": title, "matches": len(matches), "refined": int(refined.refined.sum())}
        for name, positions in found.items():
            errors = np.linalg.norm(positions[:, ::-1] - expected, axis=1)
            row[name] = np.histogram(errors, EDGES)[0].tolist()
            row[f"median {name}"] = round(float(np.median(errors)), 4)
        rows.append(row)
    return rows


def costs() -> list[Row]:
    """Return the times of `SIFT` with each of `OPTIONS`, and of matching and refinement, on a photograph of 0.4 MP."""
    from gpusift import SIFT, match, refine_matches

    left, right = (grey(carried(f"motorcycle_{side}.png")) for side in ("left", "right"))
    common: Row = {**provenance(), "shape": list(left.shape), "threads": 1}
    rows = []
    for name, options in OPTIONS.items():
        sift = SIFT(**options, device="cpu", num_threads=1)
        rows.append({**common, "option": name, "features": len(sift.compute(left)), "ms": fastest(sift.compute, left)})
    sift = SIFT(**SETTINGS["gpusift root"], device="cpu", num_threads=1)
    a, b = sift.compute(left), sift.compute(right)
    matches = match(a, b, symmetric_ratio=True, device="cpu")
    refine = partial(refine_matches, left, right, a, b, matches, sift=sift)
    for name, call in {"match": partial(match, a, b, symmetric_ratio=True), "refine_matches": refine}.items():
        rows.append({**common, "option": name, "matches": len(matches), "ms": fastest(call)})
    return rows


def fastest(call: Callable[..., object], *arguments: object) -> float:
    """Return the least processor time of a call, milliseconds; the first call only warms up."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        call(*arguments)
        seconds.append(time.process_time() - start)
    return round(1e3 * min(seconds[1:]), 2)


def draw_budgets(rows: list[Row], path: Path) -> None:
    """Draw the fraction of wrong matches, at 1 and 3 pixels, against the number of features of an image."""
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axes, threshold in zip(both, (1, 3), strict=True):
        for engine, label in SHOWN.items():
            found = [by_engine(rows, budget).get(engine) for budget in budgets(rows)]
            points = sorted((row["keypoints"], 1 - row["accuracy"][threshold - 1]) for row in found if row)
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=label, **{"lw": 1.4, **STYLES[engine]})
        axes.set_title(f"matches more than {threshold} px from the truth", loc="left", fontsize=10)
        axes.set_xlabel("features of an image, mean", fontsize=9)
        axes.set_ylabel("fraction of the matches", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.grid(lw=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_residuals(rows: list[Row], path: Path) -> None:
    """Draw the distribution of residuals before and after refinement; each sequence counts alike."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for name, label, colour in (
        ("before", "the keypoint of the second image", "#9b9b9b"),
        ("after", "after refine_matches", "#5f0f40"),
    ):
        density = np.mean([np.array(row[name]) / row["matches"] for row in rows], axis=0)
        median = np.mean([row[f"median {name}"] for row in rows])
        label = f"{label} (median {median:.2f} px)"
        axes.stairs(density, EDGES, fill=True, alpha=0.45, color=colour, label=label)
        axes.stairs(density, EDGES, lw=1.2, color=colour)
    axes.set_xlabel("distance of a match's second point from the true one, px (farther ones are not drawn)", fontsize=9)
    axes.set_ylabel("fraction of the matches, for each 0.1 px", fontsize=9)
    axes.legend(fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure if a folder is given, and draw both pictures."""
    import matplotlib

    matplotlib.use("Agg")
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder with homography/ and photos/")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows are, and the pictures go")
    parser.add_argument("--costs", action="store_true", help="measure times")
    options = parser.parse_args()
    if options.costs:
        append(options.out / COSTS, *costs())
    if options.data:
        append(options.out / RESIDUALS, *measure(options.data))
    residuals = read(options.out / RESIDUALS)
    draw_residuals([row for row in residuals if row["run"] == residuals[-1]["run"]], options.out / "residuals.png")
    draw_budgets(newest(read(RESULTS / "accuracy.jsonl")), options.out / "budgets.png")
    print(f"{options.out / 'residuals.png'}, {options.out / 'budgets.png'}")


if __name__ == "__main__":
    main()
