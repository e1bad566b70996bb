#!/usr/bin/env python
"""Draw the tables (speed.md) and the plot (speed.png) of kept rows.

    python -m bench.speed.plot [FILE.jsonl ...] [--out DIR]

The newest run of each machine counts; if it has runs over all engines and standard photographs, the newest of those.
Ratios are between rows of one run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.common.machine import RESULTS
from bench.common.rows import Row, read
from bench.common.tables import (
    COLOURS,
    FLOOR_BYTES_PER_PIXEL,
    Run,
    factor,
    machine_name,
    milliseconds,
    newest_runs,
    provenance_line,
    quartiles,
    skip_list,
    table,
)

BASELINES = {"opencv": "OpenCV", "scikit-image": "scikit-image"}
TIMES = ("seconds", "kept_memory_seconds")
MEMORY_GOAL = 150  # bytes per input pixel


def measured(run: Run) -> dict[str, dict[str, Row]]:
    """Return the rows with times, by case and engine, in the order of the run."""
    found: dict[str, dict[str, Row]] = {}
    for row in run:
        if "skipped" not in row:
            found.setdefault(row["case"], {})[row["engine"]] = row
    return found


def summary_table(run: Run) -> list[str]:
    """Return the table of the median times, and of gpusift's ratios, for the README."""
    cases = measured(run)
    names = [engine for engine in COLOURS if any(engine in engines for engines in cases.values())]
    ours = [engine for engine in names if engine.startswith("gpusift")]
    header = ["photograph", *(f"{engine}, ms" for engine in names)]
    header += [f"{engine} x {base}" for engine in ours for base in BASELINES.values()]
    lines = []
    for case, engines in cases.items():
        times = [milliseconds(engines[name]["seconds"]["median"]) if name in engines else "" for name in names]
        factors = [
            ratios(engines[engine], engines.get(base)) if engine in engines else ""
            for engine in ours
            for base in BASELINES
        ]
        lines.append([case, *times, *factors])
    return table(header, lines)


def speed_table(run: Run) -> list[str]:
    """Return the table of times, ratios, keypoints and memory."""
    header = ["photograph", "engine", "ms", "quartiles", "n", "first call", "ms, memory kept"]
    header += [f"x {name} (memory kept)" for name in BASELINES.values()]
    header += ["keypoints", "peak MB", "bytes/pixel"]
    lines = []
    for case, engines in measured(run).items():
        for engine, row in engines.items():
            times, memory = row["seconds"], row["memory"]
            kept = row.get("kept_memory_seconds")
            lines.append(
                [
                    f"{case}, {row['shape'][0]} x {row['shape'][1]}",
                    engine,
                    milliseconds(times["median"]),
                    quartiles(times),
                    str(times["n"]),
                    milliseconds(row["first_call_seconds"]),
                    milliseconds(kept["median"]) if kept else "",
                    *(ratios(row, engines.get(base)) for base in BASELINES),
                    f"{row['keypoints']:,}",
                    f"{memory['host_peak_bytes'] / 1e6:.0f}",
                    f"{memory['host_bytes_per_pixel']:.0f}",
                ]
            )
    return table(header, lines, words=2)


def ratios(row: Row, base: Row | None) -> str:
    """Return how many times as fast as `base` a row is; in brackets the same with memory kept."""
    if base is None or base is row:
        return ""
    pairs = [(row[key], base[key]) for key in TIMES if key in row and key in base]
    plain, *kept = [factor(theirs["median"] / ours["median"]) for ours, theirs in pairs]
    return f"{plain} ({kept[0]})" if kept else plain


def stage_table(run: Run) -> list[str]:
    """Return the table of gpusift's stages; [] if no row has them."""
    rows = [row for row in run if row.get("stages")]
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row["stages"]))
    lines = []
    for row in rows:
        stages = row["stages"]
        shown = [milliseconds(stages[name]) if name in stages else "" for name in names]
        lines.append([row["case"], row["engine"], *shown, milliseconds(sum(stages.values()))])
    return [
        "Stages, ms (the device is synchronized after each, so the sum exceeds the time of a call):",
        "",
        *table(["photograph", "engine", *names, "sum"], lines, words=2),
    ]


def device_table(run: Run) -> list[str]:
    """Return the table of times on the GPU and their floors; [] if no row has them."""
    rows = [row for row in run if "device_seconds" in row]
    lines = []
    for row in rows:
        times, bandwidth = row["device_seconds"], row["copy_bytes_per_s"]
        floor = FLOOR_BYTES_PER_PIXEL * row["shape"][0] * row["shape"][1] / bandwidth
        lines.append(
            [
                row["case"],
                milliseconds(times["median"]),
                quartiles(times),
                f"{bandwidth / 1e12:.2f}",
                milliseconds(floor),
                f"{times['median'] / floor:.1f}",
                f"{row['memory']['device_peak_bytes'] / 1e6:.0f}",
                f"{row['memory']['device_bytes_per_pixel']:.0f}",
            ]
        )
    header = ["photograph", "device ms, median", "quartiles", "copy TB/s", "floor, ms", "x floor"]
    header += ["peak device MB", "bytes/pixel"]
    if not rows:
        return []
    return ["On the GPU, with image and features in its memory, by CUDA events:", "", *table(header, lines)]


def markdown(runs: list[Run]) -> str:
    """Return the tables of all machines."""
    lines = ["<!-- written by python -m bench.speed.plot from kept rows; do not edit -->", ""]
    for run in runs:
        first = run[0]
        lines += [f"### {machine_name(first)}", ""]
        lines += ["Median, and in brackets the ratio with memory kept (bench/README.md):", ""]
        lines += summary_table(run)
        lines += speed_table(run) + stage_table(run) + device_table(run) + skip_list(run)
        lines += [provenance_line(first), ""]
    return "\n".join(lines)


def draw(runs: list[Run], path: Path) -> None:
    """Draw time and memory of each run, with one row of axes for each machine."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    bars = [sum(len(engines) + 1 for engines in measured(run).values()) for run in runs]
    figure, axes = plt.subplots(
        len(runs),
        2,
        figsize=(10, sum(0.26 * count + 0.9 for count in bars)),
        height_ratios=bars,
        width_ratios=(3, 2),
        squeeze=False,
        layout="constrained",
    )
    for (time_axes, memory_axes), run in zip(axes, runs, strict=True):
        draw_run(time_axes, memory_axes, run)
        time_axes.set_title(machine_name(run[0]), loc="left", fontsize=9, fontweight="bold")
    figure.savefig(path, dpi=150)


def draw_run(time_axes: Any, memory_axes: Any, run: Run) -> None:
    """Draw one run: a group of bars for each photograph, a bar for each engine."""
    y = 0
    ticks: dict[float, str] = {}
    for case, engines in measured(run).items():
        for engine, row in engines.items():
            times, memory = row["seconds"], row["memory"]["host_bytes_per_pixel"]
            colour = COLOURS[engine]
            low, median, high = (times[name] * 1e3 for name in ("q1", "median", "q3"))
            time_axes.plot([low, high], [y, y], color=colour, lw=1.5)
            time_axes.plot(median, y, "o", ms=6, color=colour)
            if kept := row.get("kept_memory_seconds"):
                time_axes.plot(kept["median"] * 1e3, y, "|", ms=8, mew=1.5, color=colour)
            label = f"{engine}  {milliseconds(times['median'])} ms"
            if engine.startswith("gpusift") and "opencv" in engines:
                label += f", {ratios(row, engines['opencv'])} x OpenCV"
            time_axes.annotate(label, (high, y), (6, 0), textcoords="offset points", va="center", fontsize=7)
            memory_axes.barh(y, memory, color=colour)
            memory_axes.text(memory, y, f" {memory:.0f}", va="center", fontsize=7)
            y += 1
        ticks[y - len(engines) / 2 - 0.5] = case
        y += 1
    time_axes.set_xscale("log")
    low, high = time_axes.get_xlim()
    time_axes.set_xlim(low, high * 8)  # room for the labels
    marks = "Dot: median; line: quartiles; bar: median with memory kept"
    time_axes.set_xlabel(f"milliseconds an image (log). {marks}", fontsize=8)
    time_axes.set_yticks(list(ticks), list(ticks.values()))
    memory_axes.set_yticks([])
    memory_axes.set_xlabel(f"peak host memory, bytes per input pixel; dotted: the goal, {MEMORY_GOAL}", fontsize=8)
    memory_axes.axvline(MEMORY_GOAL, color="black", lw=0.8, ls=":")
    memory_axes.set_xlim(0, memory_axes.get_xlim()[1] * 1.08)
    time_axes.grid(axis="x", lw=0.4, alpha=0.5)
    for axes in (time_axes, memory_axes):
        axes.set_ylim(y - 1.3, -0.7)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Read the rows, and write speed.md and speed.png."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=Path, nargs="*", help="default: all of bench/results")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    options = parser.parse_args()
    files = options.files or sorted(RESULTS.glob("20*.jsonl"))
    runs = [run for run in newest_runs(read(*files)) if measured(run)]
    if not runs:
        parser.error("there are no rows to draw: run python -m bench.speed.run first")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.md").write_text(markdown(runs))
    draw(runs, options.out / "speed.png")
    print(f"{options.out / 'speed.md'}, {options.out / 'speed.png'}")


if __name__ == "__main__":
    main()
