"""Compare a script with `cv2.SIFT_create` to the same with `gpusift.opencv.SIFT_create` on the Oxford sequences.

    python -m bench.accuracy.opencv_inliers --data DIR [--device cpu|cuda] [--out DIR]

The script calls `SIFT_create`, `detectAndCompute` of image 1 and image k, `BFMatcher.knnMatch`, Lowe's ratio 0.8 and
`findHomography` with USAC_MAGSAC. A row counts its matches, the inliers of `findHomography`, and of these the verified
ones: within 3 pixels of the point of image 1 mapped by the true homography. All images are read as grey.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import gpusift.opencv
from bench.common import machine

SEQUENCES = ("graf", "boat", "bikes", "leuven")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "nfeatures=2000": {"nfeatures": 2000},
    "enable_precise_upscale": {"enable_precise_upscale": True},
}
RATIO = 0.8
VERIFIED = 3.0  # pixels of image k
THRESHOLD = 3.0  # of findHomography, pixels of image k
ROUNDS = 3  # the row has their median time

COUNTS = ("matches", "inliers", "verified")


def script(found_1: tuple, found_k: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matched points of both images, (N, 2) each, and which of them are inliers."""
    (keypoints_1, descriptors_1), (keypoints_k, descriptors_k) = found_1, found_k
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors_1, descriptors_k, k=2)
    matches = [best for best, second in pairs if best.distance < RATIO * second.distance]
    points_1 = np.array([keypoints_1[match.queryIdx].pt for match in matches]).reshape(-1, 2)
    points_k = np.array([keypoints_k[match.trainIdx].pt for match in matches]).reshape(-1, 2)
    inliers = None
    if len(matches) >= 4:
        _, inliers = cv2.findHomography(points_1, points_k, cv2.USAC_MAGSAC, THRESHOLD)
    return points_1, points_k, np.zeros(len(matches), bool) if inliers is None else inliers.ravel() > 0


def counts(found_1: tuple, found_k: tuple, homography: np.ndarray) -> dict[str, int]:
    """Return the `COUNTS` of the script on a pair."""
    points_1, points_k, inliers = script(found_1, found_k)
    mapped = np.concatenate([points_1, np.ones((len(points_1), 1))], axis=1) @ homography.T
    near = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - points_k, axis=1) <= VERIFIED
    return {"matches": len(near), "inliers": int(inliers.sum()), "verified": int((inliers & near).sum())}


def rows_of(folder: Path, makers: dict[str, Callable[..., Any]]) -> Iterator[dict[str, Any]]:
    """Measure one sequence: a row for each pair, setting and engine."""
    images = [cv2.imread(str(next(folder.glob(f"img{k}.p*"))), cv2.IMREAD_GRAYSCALE) for k in range(1, 7)]
    homographies = {k: np.loadtxt(folder / f"H1to{k}p") for k in range(2, 7)}
    for setting, parameters in SETTINGS.items():
        for engine, make in makers.items():
            sift = make(**parameters)
            timed = [_timed(sift.detectAndCompute, image) for image in images]
            for k, homography in homographies.items():
                yield {
                    "sequence": folder.name,
                    "pair": f"1-{k}",
                    "setting": setting,
                    "engine": engine,
                    "keypoints": [len(timed[0][0][0]), len(timed[k - 1][0][0])],
                    "seconds": timed[k - 1][1],
                    **counts(timed[0][0], timed[k - 1][0], homography),
                }


def _timed(detect: Callable[..., Any], image: np.ndarray) -> tuple[Any, float]:
    """Return the result of `detect`, and the median of its seconds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = detect(image, None)
        seconds.append(time.perf_counter() - start)
    return found, statistics.median(seconds)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of verified inliers and keypoints of both engines, for each pair and sequence and for all."""
    lines = [
        "| setting | sequence | pair | keypoints of image k | verified, OpenCV | verified, gpusift | ratio |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for setting in SETTINGS:
        chosen = [row for row in rows if row["setting"] == setting]
        for sequence in SEQUENCES:
            own = [row for row in chosen if row["sequence"] == sequence]
            for pair in dict.fromkeys(row["pair"] for row in own):
                lines.append(_line([row for row in own if row["pair"] == pair], setting, sequence, pair))
            lines.append(_line(own, setting, f"**{sequence}**", "sum"))
        lines.append(_line(chosen, setting, "**all**", "sum"))
        lines.append(f"| {setting} | **all** | ms an image | | {_ms(chosen, 'opencv')} | {_ms(chosen, 'gpusift')} | |")
    return "\n".join(lines) + "\n"


def _line(rows: list[dict[str, Any]], setting: str, sequence: str, pair: str) -> str:
    theirs, ours = ([row for row in rows if row["engine"] == engine] for engine in ("opencv", "gpusift"))
    keypoints = " / ".join(f"{sum(row['keypoints'][1] for row in side):,}" for side in (theirs, ours))
    verified = [sum(row["verified"] for row in side) for side in (theirs, ours)]
    ratio = f"{verified[1] / verified[0]:.3f}" if verified[0] else "-"
    return f"| {setting} | {sequence} | {pair} | {keypoints} | {verified[0]:,} | {verified[1]:,} | {ratio} |"


def _ms(rows: list[dict[str, Any]], engine: str) -> str:
    return f"{1e3 * statistics.median(row['seconds'] for row in rows if row['engine'] == engine):.0f}"


def main() -> None:
    """Measure, print the table, and write opencv_inliers.jsonl and opencv_inliers.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds homography/")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    arguments = parser.parse_args()

    def ours(**parameters: Any) -> gpusift.opencv.SIFT:
        return gpusift.opencv.SIFT_create(**parameters, device=arguments.device)

    about = {
        "date": datetime.date.today().isoformat(),
        "device": arguments.device,
        **machine.commit(),
        "hardware": machine.hardware(),
        "versions": machine.versions(),
    }
    makers = {"opencv": cv2.SIFT_create, "gpusift": ours}
    folders = [arguments.data / "homography" / name for name in SEQUENCES]
    rows = [row for folder in folders for row in rows_of(folder, makers)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row | about) + "\n" for row in rows)
    (arguments.out / "opencv_inliers.jsonl").write_text(text, encoding="utf-8")
    (arguments.out / "opencv_inliers.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
