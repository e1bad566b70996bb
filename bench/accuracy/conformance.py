"""Measure conformance with scikit-image on three kinds of pictures: a row for each picture, and the tables.

    python -m bench.accuracy.conformance [--device cpu|cuda] [--out DIR]

The kinds are photographs of bytes, photographs whose greys are not rounded, and regular patterns, in which neighbours
tie exactly. The tests check the same tables on more pictures and parameters (tests/test_conformance.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from bench.common import machine
from gpusift import SIFT
from tests.support import oracle, ties

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "moon", "page", "text")
KINDS = {
    "bytes": ("photographs, bytes", PHOTOGRAPHS, oracle.photograph),
    "greys": ("photographs, greys not rounded", tuple(ties.GREYS), ties.grey),
    "patterns": ("regular patterns", tuple(ties.PATTERNS), ties.pattern),
}
DTYPES = ("float64", "float32")

ROWS = (
    ("keypoints of either side without a counterpart", "alone"),
    ("position, 99th percentile, px", "position"),
    ("sigma, relative, 99th percentile", "sigma"),
    ("orientation, 99th percentile, rad", "orientation"),
    ("descriptor elements that differ", "descriptor_differs"),
    ("descriptor elements off by more than 1", "descriptor_off"),
    ("counterparts out of scikit-image's order", "misplaced"),
)


def measure(kind: str, name: str, dtype: str, device: str) -> dict:
    """Return the row of one picture and precision."""
    image = KINDS[kind][2](name)
    with ties.atan2_of_c():
        theirs = oracle.run(image).described
    sift = SIFT(dtype=dtype, device=device)
    sift.detect_and_extract(image)
    agreement = oracle.compare(oracle.Keypoints.of(sift), theirs)
    row = {"kind": kind, "picture": name, "dtype": dtype, "device": sift.device.name, "keypoints": len(theirs)}
    row |= {key: getattr(agreement, key) for _, key in ROWS if key != "alone"}
    return row | {"alone": len(agreement.alone)}


def table(rows: list[dict], dtype: str) -> str:
    """Return the table of one precision: the worst picture of each kind in each row, and sums of counts."""
    by_kind = {kind: [row for row in rows if (row["kind"], row["dtype"]) == (kind, dtype)] for kind in KINDS}
    titles = [f"{KINDS[kind][0]} ({len(of_kind)})" for kind, of_kind in by_kind.items()]
    lines = [f"| {dtype} | {' | '.join(titles)} |", "|---" + "|--:" * len(KINDS) + "|"]
    for title, key in ROWS:
        lines.append(f"| {title} | {' | '.join(_cell(of_kind, key) for of_kind in by_kind.values())} |")
    return "\n".join(lines) + "\n"


def _cell(rows: list[dict], key: str) -> str:
    values = [row[key] for row in rows]
    if key in ("alone", "misplaced"):
        return f"{sum(values)} of {sum(row['keypoints'] for row in rows):,}"
    if key.startswith("descriptor"):
        return f"{100 * max(values):.3f} %" if max(values) else "0"
    return f"{max(values):.0e}" if max(values) else "0"


def main() -> None:
    """Measure, and write conformance.jsonl and conformance.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    arguments = parser.parse_args()
    about = {
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(),
        "hardware": machine.hardware(),
        "versions": machine.versions(),
    }
    cases = [(kind, name, dtype) for dtype in DTYPES for kind, (_, names, _) in KINDS.items() for name in names]
    rows = [measure(*case, arguments.device) | about for case in cases]
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (arguments.out / "conformance.jsonl").write_text(text, encoding="utf-8")
    tables = "\n".join(table(rows, dtype) for dtype in DTYPES)
    (arguments.out / "conformance.md").write_text(tables, encoding="utf-8")
    print(tables)


if __name__ == "__main__":
    main()
