"""Tables of kept rows: which run of a machine counts, and how numbers are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.common.rows import Row

Run = list[Row]

COLOURS = {  # they differ in lightness too, for colour-blind readers
    "gpusift-cuda": "#005f73",
    "gpusift-cpu": "#0a9396",
    "opencv": "#ee9b00",
    "scikit-image": "#9b9b9b",
}
FLOOR_BYTES_PER_PIXEL = 17 * 16 * 4 / 3  # least bytes moved for a scale space at upsampling 2


def newest_runs(rows: Iterable[Row]) -> list[Run]:
    """Return the newest run of each machine, a standard one if there is one; machines with a GPU come first."""
    machines: dict[str, dict[tuple[bool, str], Run]] = {}
    for row in rows:
        runs = machines.setdefault(machine_name(row), {})
        runs.setdefault((row["standard"], row["run"]), []).append(row)
    chosen = [runs[max(runs)] for runs in machines.values()]
    return sorted(chosen, key=lambda run: (run[0]["hardware"]["gpu"] is None, machine_name(run[0])))


def machine_name(row: Row) -> str:
    """Return the hardware of a row in words."""
    hardware = row["hardware"]
    name = f"{hardware['cpu']}, {hardware['cores']} cores"
    if hardware["instruction_set"]:
        name += f", {hardware['instruction_set']}"
    return f"{hardware['gpu']['name']}; {name}" if hardware["gpu"] else name


def provenance_line(row: Row, *, machine: bool = False) -> str:
    """Return a line with the date, commit and versions of a run, and its machine where no title names it."""
    versions = ", ".join(f"{name} {value}" for name, value in row["versions"].items() if value)
    commit = (row["commit"] or "unknown")[:10] + (" with changes" if row["dirty"] else "")
    where = f"{machine_name(row)}, " if machine else ""
    return f"{row['run'][:10]}, {where}commit {commit}; {versions}."


def table(header: list[str], lines: list[list[str]], words: int = 1) -> list[str]:
    """Return the lines of a Markdown table; the first `words` columns are flush left, the others flush right."""
    rule = ["---" if column < words else "--:" for column in range(len(header))]
    return ["| " + " | ".join(cells) + " |" for cells in [header, rule, *lines]] + [""]


def skip_list(run: Run) -> list[str]:
    """Return the list of what was not measured, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in run:
        if "skipped" in row:
            reasons.setdefault((row["engine"], row["skipped"]), []).append(row["case"])
    total = len({row["case"] for row in run})
    lines = [
        f"- {engine}: {'all photographs' if len(cases) == total else '; '.join(cases)}: {reason}"
        for (engine, reason), cases in reasons.items()
    ]
    return ["Not measured:", "", *lines, ""] if lines else []


def quartiles(times: dict[str, Any]) -> str:
    """Return the quartiles of a row's times in ms; nothing for a single time."""
    return f"{milliseconds(times['q1'])} to {milliseconds(times['q3'])}" if times["n"] > 1 else ""


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds with three figures."""
    value = seconds * 1e3
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def factor(value: float) -> str:
    """Return a ratio with two figures."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
