#!/usr/bin/env python
"""Draw the tables (accuracy.md) and the plot (accuracy.png) of the accuracy study from its kept rows.

    python -m bench.accuracy.plot [FILE.jsonl] [--out DIR]

The newest run is drawn: the newest of all engines on the standard sequences, if there is one.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.measures import AREA_THRESHOLDS, CORRECT, MAX_OVERLAP_ERROR, MAX_RATIO, THRESHOLDS, area_under_curve
from bench.common.machine import RESULTS
from bench.common.rows import Row, read
from bench.common.tables import provenance_line, table

STYLES: dict[str, dict[str, Any]] = {  # colour-blind safe; a library has one colour
    "gpusift": {"color": "#0a9396", "ls": "-"},
    "gpusift precise": {"color": "#0a9396", "ls": "--"},
    "gpusift root": {"color": "#003d4d", "ls": "-"},
    "gpusift root refined": {"color": "#5f0f40", "ls": "-"},
    "gpusift root only refined": {"color": "#5f0f40", "ls": (0, (5, 1, 1, 1, 1, 1))},
    "gpusift root pooled": {"color": "#003d4d", "ls": ":"},
    "gpusift root pooled refined": {"color": "#5f0f40", "ls": ":"},
    "gpusift root affine": {"color": "#003d4d", "ls": (0, (3, 1, 1, 1))},
    "gpusift root affine refined": {"color": "#5f0f40", "ls": (0, (3, 1, 1, 1))},
    "gpusift as COLMAP": {"color": "#003d4d", "ls": "--"},
    "gpusift as COLMAP refined": {"color": "#5f0f40", "ls": "--"},
    "gpusift as COLMAP pooled": {"color": "#003d4d", "ls": "-."},
    "gpusift as COLMAP pooled refined": {"color": "#5f0f40", "ls": "-."},
    "scikit-image": {"color": "#9b9b9b", "ls": (0, (1, 1.5)), "lw": 2.5, "zorder": 3},
    "OpenCV": {"color": "#ee9b00", "ls": "-"},
    "OpenCV precise": {"color": "#ee9b00", "ls": "--"},
    "pycolmap": {"color": "#ae2012", "ls": "-"},
    "pycolmap pooled": {"color": "#ae2012", "ls": ":"},
    "pycolmap affine": {"color": "#ae2012", "ls": "--"},
}
COLUMNS = 3  # of panels
OURS = tuple(engine for engine in STYLES if engine.startswith(("gpusift root", "gpusift as COLMAP")))
THEIRS = ("OpenCV", "pycolmap", "pycolmap pooled", "pycolmap affine")  # compared pair by pair
BY_PAIR = ("pair_accuracies", "corner_errors")


def newest(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the run to draw: engines as in `STYLES`, sequences in the order of the run's first rows."""
    runs: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["standard"], row["run"]), []).append(row)
    chosen, engines = runs[max(runs)], list(STYLES)
    places = {title: place for place, title in enumerate(titles(chosen))}

    def order(row: Row) -> tuple[int, int, float]:
        budget = row.get("budget")
        return (
            engines.index(row["engine"]),
            places.get(row.get("sequence", ""), 0),
            -math.inf if budget is None else -budget,
        )

    return sorted(chosen, key=order)


def mean(rows: list[Row]) -> Row:
    """Return the mean over the pairs of several sequences, and the areas under the curve of all their errors.

    ``pair_accuracies``, (pairs, thresholds), are those of all pairs.
    """
    pairs = [row["pairs"] for row in rows]
    keys = [key for key in rows[0] if isinstance(rows[0][key], (float, list)) and key not in BY_PAIR]
    found: Row = {key: np.average([row[key] for row in rows], axis=0, weights=pairs) for key in keys}
    errors = [error for row in rows for error in row["corner_errors"]]
    found["areas"] = [area_under_curve(errors, threshold) for threshold in AREA_THRESHOLDS]
    return found | {"pair_accuracies": np.concatenate([row["pair_accuracies"] for row in rows])}


def by_engine(rows: list[Row], budget: int | None, sequence: str | None = None) -> dict[str, Row]:
    """Return the means of the engines that ran, of one sequence, or of all if the engine has rows of all."""
    chosen: dict[str, list[Row]] = {}
    for row in rows:
        if "skipped" not in row and row["budget"] == budget and sequence in (None, row["sequence"]):
            chosen.setdefault(row["engine"], []).append(row)
    needed = 1 if sequence else len(titles(rows))
    return {engine: mean(several) for engine, several in chosen.items() if len(several) == needed}


def budgets(rows: list[Row]) -> list[int | None]:
    """Return the budgets of a run, in its order."""
    return list(dict.fromkeys(row["budget"] for row in rows if "skipped" not in row))


def titles(rows: list[Row]) -> list[str]:
    """Return the sequences of a run, in its order."""
    return list(dict.fromkeys(row["sequence"] for row in rows if "skipped" not in row))


def summary_table(rows: list[Row], budget: int | None) -> list[str]:
    """Return the table of the means over all pairs; the best of a column in bold."""
    engines = by_engine(rows, budget)
    header = ["", "features", "matches", "repeatability", "by overlap", "matching score"]
    header += [f"accuracy, {threshold} px" for threshold in AREA_THRESHOLDS]
    header += ["3 px, any ratio", *(f"AUC, {threshold} px" for threshold in AREA_THRESHOLDS)]
    values = {
        engine: [
            row["repeatability"],
            row["overlap_repeatability"],
            row["matching_score"],
            *(row["accuracy"][threshold - 1] for threshold in AREA_THRESHOLDS),
            row["mutual_accuracy"][2],
            *row["areas"],
        ]
        for engine, row in engines.items()
    }
    lines = [
        [engine, f"{row['keypoints']:,.0f}", f"{row['matches']:,.0f}", *cells]
        for (engine, row), cells in zip(engines.items(), emphasized(list(values.values())), strict=True)
    ]
    return table(header, lines)


def sequence_table(rows: list[Row], budget: int | None) -> list[str]:
    """Return the table of the accuracies of each sequence; the best of each threshold in bold."""
    engines = list(by_engine(rows, budget))
    lines = []
    for title in titles(rows):
        found = by_engine(rows, budget, title)
        values = [[found[engine]["accuracy"][threshold - 1] for threshold in AREA_THRESHOLDS] for engine in engines]
        lines.append([title, *(" / ".join(cells) for cells in emphasized(values))])
    return table(["", *engines], lines)


def difference_table(rows: list[Row]) -> list[str]:
    """Return the table of differences of accuracy, pair by pair: mean and standard error; [] without such engines."""
    lines = []
    for budget in budgets(rows):
        engines = by_engine(rows, budget)
        for ours, theirs in itertools.product(OURS, THEIRS):
            if ours in engines and theirs in engines:
                difference = engines[ours]["pair_accuracies"] - engines[theirs]["pair_accuracies"]
                means, errors = difference.mean(axis=0), difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
                cells = [f"{means[t - 1]:+.3f} ± {errors[t - 1]:.3f}" for t in AREA_THRESHOLDS]
                lines.append([f"{title_of(budget)}: {ours} - {theirs}", *cells])
    if not lines:
        return []
    header = ["", *(f"{threshold} px" for threshold in AREA_THRESHOLDS)]
    return ["#### Differences in accuracy: mean over the pairs ± its standard error", "", *table(header, lines)]


def emphasized(values: list[list[float]]) -> list[list[str]]:
    """Return rows of numbers as text, the largest of each column in bold."""
    shown = [[f"{value:.3f}" for value in line] for line in values]
    best = [max(column) for column in zip(*shown, strict=True)]
    return [[f"**{cell}**" if cell == top else cell for cell, top in zip(line, best, strict=True)] for line in shown]


def engine_list(rows: list[Row]) -> list[str]:
    """Return the list of engines with their settings, and the reasons of skipped ones."""
    by_name = {row["engine"]: row for row in rows}
    lines = []
    for engine, row in by_name.items():
        settings_text = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}"
            for name, value in row["settings"].items()
        )
        lines.append(
            f"- {engine}: {settings_text or 'its defaults'}"
            + (f"; skipped: {row['skipped']}" if "skipped" in row else "")
        )
    return [*lines, ""]


def markdown(rows: list[Row]) -> str:
    """Return the tables of a run."""
    first, names = rows[0], titles(rows)
    pairs = sum({row["sequence"]: row["pairs"] for row in rows if "skipped" not in row}.values())
    lines = [
        "<!-- written by python -m bench.accuracy.plot from kept rows; do not edit -->",
        "",
        f"{pairs} pairs of images, of {len(names)} sequences; each number is the mean over the pairs. Repeatability "
        f"and matching score: within {CORRECT:g} px, or by an overlap error of at most {MAX_OVERLAP_ERROR:.0%}. "
        f"Accuracy: the fraction of the matches (mutual nearest neighbours, nearer than {MAX_RATIO} times the second "
        "nearest, or at any ratio) within the given pixels. AUC: of the homography's error at the corners. Bold: the "
        "best.",
        "",
    ]
    for budget in budgets(rows):
        lines += [f"#### {title_of(budget)}", "", *summary_table(rows, budget)]
    for budget in budgets(rows):
        lines += [f"#### {title_of(budget)}, by sequence: accuracy at 1 / 3 / 5 px", "", *sequence_table(rows, budget)]
    lines += difference_table(rows)
    lines += ["Engines:", "", *engine_list(rows)]
    if len(budgets(rows)) > 1:
        lines += [
            "A budget keeps the largest responses; for pycolmap, gpusift as COLMAP and scikit-image (which has no "
            "responses) the largest sigmas.",
            "",
        ]
    return "\n".join([*lines, provenance_line(first, machine=True), ""])


def title_of(budget: int | None) -> str:
    """Return a budget in words."""
    return "All features" if budget is None else f"At most {budget:,} features"


def draw(rows: list[Row], path: Path) -> None:
    """Draw accuracy against threshold: a panel for all pairs at each budget, and one for each sequence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [(f"All pairs. {title_of(budget)}", by_engine(rows, budget)) for budget in budgets(rows)]
    panels += [(title, by_engine(rows, budgets(rows)[0], title)) for title in titles(rows)]
    height = math.ceil(len(panels) / COLUMNS)
    figure, grid = plt.subplots(
        height, COLUMNS, figsize=(10, 2.6 * height + 0.7), sharex=True, squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for number, (axes, (title, engines)) in enumerate(zip(grid.flat, panels, strict=False)):
        for engine, row in engines.items():
            axes.plot(THRESHOLDS, row["accuracy"], label=engine, **{"lw": 1.4, **STYLES[engine]})
        bold = "bold" if number < len(budgets(rows)) else "normal"
        axes.set_title(title, loc="left", fontsize=9, fontweight=bold)
        axes.grid(lw=0.4, alpha=0.5)
        axes.tick_params(labelsize=8, labelbottom=True)
        axes.set_xticks(THRESHOLDS)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False, handlelength=3)
    figure.supxlabel("threshold, px", fontsize=9)
    figure.supylabel("share of the matches within it (each panel has its own range)", fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write(rows: list[Row], out: Path) -> None:
    """Write accuracy.md and accuracy.png of a run."""
    (out / "accuracy.md").write_text(markdown(rows), encoding="utf-8")
    draw(rows, out / "accuracy.png")
    print(f"{out / 'accuracy.md'}, {out / 'accuracy.png'}")


def main() -> None:
    """Read the rows, write accuracy.md and accuracy.png."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=RESULTS / "accuracy.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    options = parser.parse_args()
    if not options.file.exists():
        parser.error(
            f"there must be rows to draw and {options.file} is not there: run python -m bench.accuracy.run first"
        )
    rows = newest(read(options.file))
    if not titles(rows):
        parser.error(f"the newest run of {options.file} must have rows of an engine that ran; it has none")
    options.out.mkdir(parents=True, exist_ok=True)
    write(rows, options.out)


if __name__ == "__main__":
    main()
