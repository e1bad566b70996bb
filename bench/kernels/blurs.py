#!/usr/bin/env python
"""Measure the two blurs on a device: seconds of the scale space, and the error of its levels.

    python -m bench.kernels.blurs [--device cpu|cuda] [--data DIR] [--out DIR]

`blur="auto"` stands for "kernel", the faster one in these rows. Seconds are of the stage with synchronization; the two
blurs take turns. Errors are the largest of all levels, for intensities of 0 to 1, against SciPy's filter in float64.
Keypoints are compared with scikit-image's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import machine, photographs, rows
from bench.common.rows import say, spread
from gpusift import SIFT
from gpusift.devices import get_device
from gpusift.pipeline.key import Key
from gpusift.stages.intensities import Image
from gpusift.stages.scale_space import build
from tests.support import oracle

BLURS = ("kernel", "ndimage")
CALLS = 15
WARM_UP = 3


def seconds(image: np.ndarray, device: str) -> dict[str, list[float]]:
    """Return the seconds of the scale space by each blur, call by call in turn."""
    sifts = {blur: SIFT(device=device, blur=blur) for blur in BLURS}
    found: dict[str, list[float]] = {blur: [] for blur in BLURS}
    for call in range(WARM_UP + CALLS):
        for blur, sift in sifts.items():
            images = [Image(image)]
            key = Key.of(images)
            with sift.device.active(), sift.plans.memory(key) as memory:
                plan = memory.plan(key)
                memory.load_batch(plan, images)
                plan.run("intensities")
                sift.device.synchronize()
                start = time.perf_counter()
                plan.run("scale space")
                sift.device.synchronize()
            if call >= WARM_UP:
                found[blur].append(time.perf_counter() - start)
    return found


def error(image: np.ndarray, device: str, blur: str) -> float:
    """Return the largest error of a level in float32."""
    parameters = SIFT(device="cpu").parameters
    exact_on, on = get_device("cpu", "float64"), get_device(device)
    exact = build(exact_on, image / 255, parameters, "ndimage")
    space = build(on, on.asarray(np.float32(image) / 255), parameters, blur)
    pairs = ((exact.octave(o), on.to_host(space.octave(o))) for o in range(len(exact.shapes)))
    return max(float(np.abs(theirs - ours).max()) for theirs, ours in pairs)


def agreement(image: np.ndarray, device: str, blur: str) -> dict[str, Any]:
    """Return the agreement of float32 keypoints with scikit-image's."""
    sift = SIFT(device=device, blur=blur)
    sift.detect_and_extract(image)
    found = oracle.compare(oracle.Keypoints.of(sift), oracle.run(image).described)
    names = ("position", "sigma", "orientation", "descriptor_differs", "descriptor_off", "misplaced")
    return {"alone": len(found.alone), **{name: getattr(found, name) for name in names}}


def main() -> None:
    """Measure, print, and append a row for each photograph and blur."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    photographs.add_data_option(parser)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    options = parser.parse_args()
    common = rows.provenance()
    cases = [case for case in photographs.standard(options.data) if not case.dense]
    for number, case in enumerate(cases):
        image = case.load()
        taken = seconds(image, options.device)
        for blur in BLURS:
            row = {"case": case.name, "shape": list(image.shape), "device": options.device, "blur": blur}
            row |= {"seconds": spread(taken[blur]), "largest_error": error(image, options.device, blur)}
            if number == 0:  # only once, as scikit-image is slow
                row["agreement"] = agreement(image, options.device, blur)
            say(f"{case.name}: {blur} {row['seconds']['median'] * 1e3:.2f} ms, error {row['largest_error']:.1e}")
            rows.append(options.out / "blurs.jsonl", {**common, **row})


if __name__ == "__main__":
    main()
