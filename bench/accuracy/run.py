#!/usr/bin/env python
"""Measure how good features are: gpusift, scikit-image, OpenCV and COLMAP on planes seen twice.

    python -m bench.accuracy.run [--data DIR] [--out DIR] [--engines "a,b"] [--budgets N,M] [--quick] [--resume]

The first image of each sequence is matched with every other, whose homography is known. One JSON row for each engine,
sequence and budget is appended to accuracy.jsonl; `bench.accuracy.plot` makes accuracy.md and accuracy.png of it.
``--resume`` adds the rows that the newest run of the file lacks; each row says of which commit it is. The measures, and
the papers that they come from, are in `bench.accuracy.measures`:

- repeatability: keypoints with a counterpart, one to one, within 3 px, as a fraction of the fewer that both images show
  (Mikolajczyk et al. 2005); also by the overlap of their regions;
- matching score: correct matches (3 px) as a fraction of the same number (ibid.);
- mean matching accuracy: the fraction of matches within 1 to 10 px, the mean over pairs (Dusmanu et al. 2019);
- the area under the curve of the homography's error at the image's corners, up to 1, 3 and 5 px (DeTone et al. 2018,
  Sun et al. 2021).

All engines have the same matcher, which is COLMAP's: brute force, mutual nearest neighbours, nearer than 0.8 times the
second nearest (Lowe 2004) in both directions. Engines called "refined" then refine the matches, and those called "only
refined" drop the matches that cannot be refined. Accuracy without that ratio, and without refinement, is kept too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy import engines, measures, plot
from bench.accuracy.sequences import Sequence, standard
from bench.common import machine, photographs, rows
from bench.common.engines import UnavailableError

BUDGETS = (2000, 1000)  # features; most images have 1000 for every engine
ROWS = "accuracy.jsonl"


def measure(
    sequence: Sequence, name: str, engine: engines.Engine, budgets: list[int | None]
) -> Iterator[dict[str, Any]]:
    """Measure an engine on a sequence, once for each budget.

    Yields
    ------
    dict
        The mean over the pairs of all that `measures.pair` gives, ``pair_accuracies`` and ``corner_errors`` of
        each pair, and ``keypoints``, the mean over the images.
    """
    images = sequence.images
    found = [engine(image, budgets) for image in images]
    for number, budget in enumerate(budgets):
        each = [features[number] for features in found]
        pairs = [
            measures.pair(
                each[0],
                each[k],
                sequence.homographies[k],
                (images[0].shape, images[k].shape),
                engines.refiner(name, images[0], images[k], budget),
            )
            for k in range(1, len(images))
        ]
        means = {key: np.mean([pair[key] for pair in pairs], axis=0) for key in pairs[0] if key != "corner_errors"}
        yield {
            "budget": budget,
            "pairs": len(pairs),
            "keypoints": float(np.mean([len(features) for features in each])),
            **{key: np.round(mean, 6).tolist() for key, mean in means.items()},
            "pair_accuracies": [[round(share, 4) for share in pair["accuracy"]] for pair in pairs],
            "corner_errors": [round(error, 4) for pair in pairs for error in pair["corner_errors"]],
        }


def study(
    names: list[str],
    sequences: dict[str, Sequence],
    budgets: list[int | None],
    done: Collection[tuple[str, str, int | None]] = (),
) -> Iterator[dict[str, Any]]:
    """Measure engines on sequences; yield rows, without what is the same for the whole run.

    Engines, sequences and budgets that are `done` are left out.
    """
    for name in names:
        about = {"engine": name, "settings": engines.SETTINGS[name]}
        try:
            engine = engines.make(name)
        except UnavailableError as error:
            yield {**about, "skipped": str(error)}
            continue
        for title, sequence in sequences.items():
            missing = [budget for budget in budgets if (name, title, budget) not in done]
            for row in measure(sequence, name, engine, missing) if missing else ():
                yield {"sequence": title, **about, **row}


def summary(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    if "skipped" in row:
        return f"{row['engine']:17} skipped: {row['skipped']}"
    accuracies = " ".join(f"{row['accuracy'][threshold - 1]:.3f}" for threshold in (1, 3, 5))
    return (
        f"{row['engine']:17} {row['sequence']:24} {row['budget'] or 'all':>5}  {row['keypoints']:6.0f} keypoints  "
        f"{row['matches']:5.0f} matches  repeatability {row['repeatability']:.3f}  accuracy at 1, 3, 5 px {accuracies}"
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    photographs.add_data_option(parser)
    parser.add_argument("--out", type=Path, default=machine.RESULTS, metavar="DIR")
    parser.add_argument("--engines", default=",".join(engines.SETTINGS), help="comma-separated")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="features, beside all; comma-separated")
    parser.add_argument("--quick", action="store_true", help="two sequences, for a first look")
    parser.add_argument("--resume", action="store_true", help="add what the newest run of the file lacks")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    unknown = sorted(set(options.engines) - set(engines.SETTINGS))
    if unknown:
        parser.error(f"--engines must be among {', '.join(engines.SETTINGS)}; got {unknown[0]!r}")
    options.budgets = [int(budget) if budget.isdecimal() else 0 for budget in options.budgets.split(",")]
    if min(options.budgets) < 1:
        parser.error("--budgets must be integers of at least 1 with commas between them")
    if options.data and not options.data.is_dir():
        parser.error(f"--data must be a folder; got {options.data}")
    return options


def main() -> None:
    """Measure, append the rows, and draw those of this run."""
    options = arguments()
    makers = standard(options.data)
    if options.quick:
        names = list(makers)
        makers = {name: makers[name] for name in (names[0], names[-1])}
    complete = bool(options.data and not options.quick) and options.engines == list(engines.SETTINGS)
    common, measured = rows.provenance(standard=complete), []
    if options.resume and (options.out / ROWS).exists():
        measured = plot.newest(rows.read(options.out / ROWS))
        common |= {key: measured[0][key] for key in ("run", "standard")}
    begun = time.monotonic()
    sequences = {name: make() for name, make in makers.items()}
    done = {(row["engine"], row["sequence"], row["budget"]) for row in measured if "skipped" not in row}
    for row in study(options.engines, sequences, [None, *options.budgets], done):
        measured.append({**common, **row})
        rows.append(options.out / ROWS, measured[-1])
        rows.say(f"{time.monotonic() - begun:4.0f} s  {summary(row)}")
    if any("skipped" not in row for row in measured):
        plot.write(plot.newest(measured), options.out)


if __name__ == "__main__":
    main()
