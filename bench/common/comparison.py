"""What the comparisons of engines share: their options, their photographs, and a check before anything is timed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.common import machine, photographs
from bench.common.rows import Row

REFERENCE = "scikit-image"
COUNT_TOLERANCE = 1e-3  # of float32 keypoints without a counterpart: gpusift's conformance bound


def parser(description: str, budget: float) -> argparse.ArgumentParser:
    """Return a parser of the common options; `budget` is the default of ``--budget``, seconds."""
    made = argparse.ArgumentParser(description=description)
    photographs.add_data_option(made)
    made.add_argument("--images", type=Path, nargs="+", help="measure these files instead")
    made.add_argument("--cases", help="only photographs of these megapixels, comma-separated: 0.4,2,9 or 24")
    made.add_argument("--engines", help="comma-separated; by default all")
    made.add_argument("--out", type=Path, default=machine.RESULTS)
    made.add_argument("--rounds", type=int, default=11, help="timed calls of an engine")
    made.add_argument("--budget", type=float, default=budget, help="seconds of timed calls of an engine")
    made.add_argument("--quick", action="store_true", help="up to 2 MP, few calls")
    made.add_argument("--all", action="store_true", help="also measure what takes many minutes")
    return made


def parse(made: argparse.ArgumentParser, names: Sequence[str], argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the common options; `names` are the engines that there are."""
    options = made.parse_args(argv)
    options.engines = options.engines.split(",") if options.engines else list(names)
    options.standard = set(options.engines) == set(names) and not (options.images or options.cases or options.quick)
    unknown = sorted(set(options.engines) - set(names))
    if unknown:
        made.error(f"--engines must be among {', '.join(names)}; got {unknown[0]!r}")
    if options.data and not options.data.is_dir():
        made.error(f"--data must be a folder; got {options.data}")
    if options.quick:
        options.rounds, options.budget = 3, 4.0
    return options


def chosen(cases: list[photographs.Case], options: argparse.Namespace) -> list[photographs.Case]:
    """Return the photographs to measure: those of ``--images``, else those of `cases` that the options choose.

    Raises
    ------
    SystemExit
        If ``--cases`` names no megapixels of `cases`.
    """
    if options.images:
        cases = [photographs.Case(path.name, path) for path in options.images]
    elif options.cases:
        sizes = options.cases.split(",")
        named = [case for case in cases if case.name.split(" MP")[0] in sizes]
        if not named:
            names = ", ".join(case.name for case in cases)
            sys.exit(f"--cases must name megapixels among {names}; got {options.cases!r}")
        cases = named
    return cases[:2] if options.quick else cases


def check_counts(counts: dict[str, float]) -> None:
    """Compare gpusift's number of keypoints with the reference's, before anything is timed.

    Parameters
    ----------
    counts : dict
        Number of keypoints of each engine on the same photograph.

    Raises
    ------
    SystemExit
        If they differ by more than float32 may.
    """
    expected = counts.get(REFERENCE)
    for engine, count in counts.items():
        if not expected or not engine.startswith("gpusift"):
            continue
        if abs(count - expected) > COUNT_TOLERANCE * expected:
            sys.exit(
                f"{engine} must find {expected} keypoints as {REFERENCE} does, within "
                f"{COUNT_TOLERANCE:.1%}; it found {count}. Not timed: run the tests first."
            )


def about(case: photographs.Case, image: np.ndarray) -> Row:
    """Return the keys of a row that describe its photograph."""
    return {"case": case.name, "image": case.image, "shape": list(image.shape)}
