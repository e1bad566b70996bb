"""Measure conformance with scikit-image on its photographs: a row for each, and the table of the README.

    python -m bench.accuracy.conformance [--device cpu|cuda] [--out DIR]

The tests check the same table on more kinds of images and parameters (tests/test_conformance.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from bench.common import machine
from gpusift import SIFT
from tests.support import oracle

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "moon", "page", "text")

ROWS = (
    ("keypoints of either side without a counterpart", "alone", "0", "0.1 %"),
    ("position, 99th percentile, px", "position", "1e-6", "5e-4"),
    ("sigma, relative, 99th percentile", "sigma", "1e-6", "1e-4"),
    ("orientation, 99th percentile, rad", "orientation", "1e-6", "1e-4"),
    ("descriptor elements that differ", "descriptor_differs", "0.01 %", "0.5 %"),
    ("descriptor elements off by more than 1", "descriptor_off", "0", "0.1 %"),
    ("counterparts out of scikit-image's order", "misplaced", "0", "0"),
)


def measure(name: str, dtype: str, device: str) -> dict:
    """Return the row of one photograph and precision."""
    image = oracle.photograph(name)
    theirs = oracle.run(image).described
    sift = SIFT(dtype=dtype, device=device)
    sift.detect_and_extract(image)
    agreement = oracle.compare(oracle.Keypoints.of(sift), theirs)
    row = {"photograph": name, "dtype": dtype, "device": sift.device.name, "keypoints": len(theirs)}
    row |= {key: getattr(agreement, key) for _, key, *_ in ROWS if key != "alone"}
    return row | {"alone": len(agreement.alone)}


def table(rows: list[dict]) -> str:
    """Return the table: the worst photograph in each row, and sums of counts."""
    count = sum(row["keypoints"] for row in rows if row["dtype"] == "float64")
    lines = [
        f"{len(PHOTOGRAPHS)} photographs of scikit-image, {count:,} keypoints; the worst photograph in each row.",
        "",
        "| | float64 | allowed | float32 | allowed |",
        "|---|--:|--:|--:|--:|",
    ]
    for title, key, limit_64, limit_32 in ROWS:
        cells = []
        for dtype in ("float64", "float32"):
            values = [row[key] for row in rows if row["dtype"] == dtype]
            if key in ("alone", "misplaced"):
                cells.append(f"{sum(values)} of {count:,}")
            elif key.startswith("descriptor"):
                cells.append(f"{100 * max(values):.3f} %" if max(values) else "0")
            else:
                cells.append(f"{max(values):.0e}")
        lines.append(f"| {title} | {cells[0]} | {limit_64} | {cells[1]} | {limit_32} |")
    return "\n".join(lines) + "\n"


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
    rows = [measure(name, dtype, arguments.device) | about for dtype in ("float64", "float32") for name in PHOTOGRAPHS]
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (arguments.out / "conformance.jsonl").write_text(text, encoding="utf-8")
    (arguments.out / "conformance.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
