#!/usr/bin/env python
"""Draw the tables (peers.md) and the plot (peers.png) of kept rows of peer runs.

    python -m bench.peers.plot [FILE.jsonl ...] [--out DIR]

The newest run of each machine counts, as in `bench.speed.plot`. Ratios are between rows of one run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.common import tables
from bench.common.machine import RESULTS
from bench.common.rows import Row, read
from bench.common.tables import (
    FLOOR_BYTES_PER_PIXEL,
    Run,
    factor,
    machine_name,
    milliseconds,
    newest_runs,
    provenance_line,
    skip_list,
    table,
)

COLOURS = {
    **tables.COLOURS,
    "cvcuda": "#6a994e",
    "kornia-rs-cuda": "#7b2cbf",
    "kornia-rs-cpu": "#b185db",
    "kornia-cuda": "#bc4749",
    "kornia-cpu": "#e5989b",
    "pysift": "#3a0ca3",
    "pycolmap-cuda": "#582f0e",
    "pycolmap-cpu": "#b6895b",
    "silx": "#1b1b1b",
}
OURS = ("gpusift-cuda", "gpusift-cpu")
MARKS = ("o", "|", "x", "+", "1", "2")  # of batches, small to large
NOTE = (
    "Median time of an image, from host memory to features in host memory, and on the device for engines that support "
    'it; "gpusift x" is how many times as fast gpusift is on the same photographs, upsampling and batch, on the GPU if '
    "it ran there. The programs find different keypoints; their settings are in the rows. The load is the machine's at "
    "the start of a measurement, the bench's own included; above the number of cores, other programs were running."
)


def measured(run: Run) -> list[Row]:
    """Return the rows with times."""
    return [row for row in run if "seconds" in row]


def group(row: Row) -> tuple[Any, ...]:
    """Return the keys that rows must share to be compared."""
    return row["case"], row["upsampling"], row["batch"]


def ours(run: Run) -> dict[tuple[Any, ...], Row]:
    """Return gpusift's row of each group, on CUDA if it ran there."""
    found: dict[tuple[Any, ...], Row] = {}
    for engine in reversed(OURS):
        found |= {group(row): row for row in measured(run) if row["engine"] == engine}
    return found


def of_an_image(row: Row, name: str = "seconds", which: str = "median") -> float:
    """Return the seconds of one image of a row's batch."""
    return float(row[name][which]) / int(row["batch"])


def times_floor(row: Row) -> str:
    """Return a row's device time as a multiple of its floor; "" without a device time or copy bandwidth."""
    if "device_seconds" not in row or "copy_bytes_per_s" not in row:
        return ""
    pixels = row["shape"][0] * row["shape"][1]
    floor = FLOOR_BYTES_PER_PIXEL * (row["upsampling"] / 2) ** 2 * pixels / row["copy_bytes_per_s"]
    return f"{of_an_image(row, 'device_seconds') / floor:.1f}"


def time_table(run: Run) -> list[str]:
    """Return the table of times, keypoints, memory and energy."""
    header = ["photograph", "upsampling", "batch", "engine", "ms", "quartiles", "n", "images/s", "device ms", "x floor"]
    header += ["gpusift x", "keypoints", "host MB", "device MB", "J", "load"]
    base = ours(run)
    lines = []
    for row in measured(run):
        low, high = (milliseconds(of_an_image(row, which=which)) for which in ("q1", "q3"))
        memory, compared = row["memory"], base.get(group(row))
        on_device = memory.get("device_peak_bytes", memory.get("device_used_bytes"))
        lines.append(
            [
                f"{row['case']}, {row['shape'][0]} x {row['shape'][1]}",
                str(row["upsampling"]),
                str(row["batch"]),
                row["engine"],
                milliseconds(of_an_image(row)),
                f"{low} to {high}" if row["seconds"]["n"] > 1 else "",
                str(row["seconds"]["n"]),
                f"{1 / of_an_image(row):,.1f}",
                milliseconds(of_an_image(row, "device_seconds")) if "device_seconds" in row else "",
                times_floor(row),
                factor(of_an_image(row) / of_an_image(compared)) if compared not in (None, row) else "",
                f"{row['keypoints']:,.0f}",
                f"{memory['host_peak_bytes'] / 1e6:.0f}",
                f"{on_device / 1e6:.0f}" if on_device is not None else "",
                f"{row['joules']:.2f}" if "joules" in row else "",
                f"{row['load']:.1f}",
            ]
        )
    return table(header, lines, words=1)


def cold_table(run: Run) -> list[str]:
    """Return the table of first calls in fresh processes."""
    lines = []
    for row in run:
        if "cold_start" not in row:
            continue
        starts = [row["cold_start"][caches] for caches in ("empty", "filled")]
        cells = [f"{start[key]:.2f}" for start in starts for key in ("process_seconds", "first_call_seconds")]
        lines.append([row["engine"], row["case"], str(row["upsampling"]), *cells])
    header = [
        "engine",
        "photograph",
        "upsampling",
        "s",
        "first call, s",
        "s, caches filled",
        "first call, caches filled",
    ]
    if not lines:
        return []
    about = "From a process's start to its first features, with kernel caches empty and filled:"
    return [about, "", *table(header, lines, words=2)]


def markdown(runs: list[Run]) -> str:
    """Return the tables of all machines."""
    lines = ["<!-- written by python -m bench.peers.plot from kept rows; do not edit -->", "", NOTE, ""]
    for run in runs:
        first = run[0]
        lines += [f"### {machine_name(first)}", ""]
        copied = {row["copy_bytes_per_s"] for row in run if "copy_bytes_per_s" in row}
        lines += [f"Copies on the device: {max(copied) / 1e12:.2f} TB/s.", ""] if copied else []
        lines += time_table(run) + cold_table(run) + skip_list([labelled(row) for row in run])
        lines += [provenance_line(first), ""]
    return "\n".join(lines)


def labelled(row: Row) -> Row:
    """Return a row whose case names its upsampling and batch too, if it has them."""
    if "batch" not in row:
        return {**row, "case": "all"} if row.get("unavailable") else {**row, "case": f"{row['case']}, cold start"}
    return {**row, "case": f"{row['case']}, upsampling {row['upsampling']}, batch {row['batch']}"}


def draw(runs: list[Run], path: Path) -> None:
    """Draw the time of an image, one row of axes for each machine and photograph, one column for each upsampling."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [(run, case) for run in runs for case in dict.fromkeys(row["case"] for row in measured(run))]
    upsamplings = sorted({row["upsampling"] for run in runs for row in measured(run)})
    heights = [len({row["engine"] for row in measured(run) if row["case"] == case}) for run, case in panels]
    figure, axes = plt.subplots(
        len(panels),
        len(upsamplings),
        figsize=(5 * len(upsamplings), sum(0.22 * height + 0.8 for height in heights)),
        height_ratios=heights,
        squeeze=False,
        sharex="row",
        layout="constrained",
    )
    for row_of_axes, (run, case) in zip(axes, panels, strict=True):
        for each, upsampling in zip(row_of_axes, upsamplings, strict=True):
            rows = [row for row in measured(run) if (row["case"], row["upsampling"]) == (case, upsampling)]
            draw_panel(each, rows)
            each.set_title(f"{case}, upsampling {upsampling}", loc="left", fontsize=8, fontweight="bold")
        row_of_axes[0].set_ylabel(machine_name(run[0]).replace("; ", "\n").replace(", ", "\n", 1), fontsize=5)
    figure.savefig(path, dpi=150)


def draw_panel(axes: Any, rows: list[Row]) -> None:
    """Draw one photograph at one upsampling: a line for each engine, a mark for each batch."""
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    batches = sorted({row["batch"] for row in rows})
    for row in rows:
        place, colour = engines.index(row["engine"]), COLOURS[row["engine"]]
        low, median, high = (of_an_image(row, which=which) * 1e3 for which in ("q1", "median", "q3"))
        axes.plot([low, high], [place, place], color=colour, lw=1.5)
        mark = MARKS[min(batches.index(row["batch"]), len(MARKS) - 1)]
        axes.plot(median, place, mark, ms=6, mew=1.5, color=colour)
    marks = ", ".join(f"{mark} {batch}" for mark, batch in zip(MARKS, batches))
    axes.set_xlabel(f"ms an image, host to host (log); line: quartiles; at once: {marks}", fontsize=7)
    axes.set_yticks(range(len(engines)), engines)
    axes.set_ylim(max(len(engines), 1) - 0.4, -0.6)
    if rows:
        axes.set_xscale("log")
    axes.grid(axis="x", lw=0.4, alpha=0.5)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def write(files: list[Path], out: Path) -> None:
    """Write peers.md and, if there are measurements, peers.png of these rows."""
    runs = newest_runs(read(*files))
    out.mkdir(parents=True, exist_ok=True)
    (out / "peers.md").write_text(markdown(runs))
    if runs := [run for run in runs if measured(run)]:
        draw(runs, out / "peers.png")
    print(f"{out / 'peers.md'}, {out / 'peers.png'}")


def main() -> None:
    """Read the rows, write tables and plot beside them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=Path, nargs="*", help="default: peers-*.jsonl of bench/results")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    options = parser.parse_args()
    files = options.files or sorted(RESULTS.glob("peers-*.jsonl"))
    if not files:
        parser.error("there are no rows to draw: run python -m bench.peers.run first")
    write(files, options.out)


if __name__ == "__main__":
    main()
