"""Show the whole way on the photographs that scikit-image carries: `make demo`.

    python -m bench.demo [FOLDER]
    python -m bench.demo --picture      # the README's: bench/results/matches.jpg

Copies the photographs to FOLDER/images, runs `gpusift extract` on them (FOLDER/features.h5), draws
the keypoints (FOLDER/<name>.png) and prints a table: time, and agreement with scikit-image. Two
keypoints agree if they have one octave and scale index and lie within half an octave sample, one to
one. Then runs `gpusift match` on the stereo pair (FOLDER/matches.png, matches.json). Fails if
agreement is bad, or the pair is not found to be rectified: the rows of what matches are equal.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import skimage.data
import skimage.feature
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from gpusift import SIFT, Features
from gpusift.geometry import verify
from gpusift.images import read_image
from gpusift.matching import match
from gpusift.plot import draw_keypoints, draw_matches, write_png
from gpusift.storage.atomic import write_whole

PHOTOGRAPHS = (
    "motorcycle_left.png",
    "motorcycle_right.png",
    "camera.png",
    "astronaut.png",
    "coins.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "brick.png",
)
REPEATS = 5
ZOOM = 2

# Octave samples between a keypoint and its counterpart.
MAX_DISTANCE = 0.5

# In percent; the tests hold every stage to more.
LEAST_AGREEMENT = 99.0

# Of verified matches of the stereo pair, which is rectified; in pixels.
MAX_ROW_DIFFERENCE = 1.0

PICTURE = Path(__file__).with_name("results") / "matches.jpg"
PICTURE_WIDTH = 1600
PICTURE_QUALITY = 88


def agreement(ours: Features, theirs: skimage.feature.SIFT) -> tuple[float, float]:
    """Compare features of one image.

    Returns
    -------
    keypoints : float
        Percent that have a counterpart, of scikit-image's or of ours, whichever are more.
    elements : float
        Percent of the descriptor elements of these that are equal.
    """
    pairs = []
    for octave, scale in np.unique(np.stack([theirs.octaves, theirs.scales], axis=1), axis=0):
        a = np.flatnonzero((ours.octaves == octave) & (ours.scales == scale))
        b = np.flatnonzero((theirs.octaves == octave) & (theirs.scales == scale))
        samples = cdist(ours.positions[a], theirs.positions[b]) * theirs.upsampling / 2.0**octave
        turn = np.cos(ours.orientations[a][:, None] - theirs.orientations[b])
        # Who is too far is no counterpart; at one position, the orientation decides who is whose.
        rows, cols = linear_sum_assignment(np.minimum(samples, MAX_DISTANCE) + 0.01 * (1 - turn))
        near = samples[rows, cols] < MAX_DISTANCE
        pairs.append(np.stack([a[rows[near]], b[cols[near]]], axis=1))
    i, j = np.concatenate(pairs).T
    equal = ours.descriptors[i] == theirs.descriptors[j]
    return 100 * len(j) / max(len(ours), len(theirs.positions)), 100 * equal.mean()


def gpusift(*arguments: str | Path) -> None:
    """Run a command as a user does, and show it."""
    print("$ gpusift", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "gpusift", *arguments], check=True)


def match_stereo_pair(folder: Path) -> float:
    """Write FOLDER/matches.png and matches.json; return the median difference of rows of verified matches, pixels."""
    pair = [folder / "images" / name for name in PHOTOGRAPHS[:2]]
    gpusift("match", *pair, "-o", folder / "matches.png", "--json", folder / "matches.json", "--overwrite")
    points = np.array(json.loads((folder / "matches.json").read_text())["points"]).reshape(-1, 4)
    return float(np.median(np.abs(points[:, 1] - points[:, 3]))) if len(points) else np.inf


def write_picture() -> None:
    """Draw the stereo pair's matches for the README."""
    images = [read_image(Path(skimage.data.__file__).with_name(name)) for name in PHOTOGRAPHS[:2]]
    features = [SIFT().compute(image).to_host() for image in images]
    matches = match(*features)
    inliers = verify(*features, matches).inliers
    picture = draw_matches(*images, *features, matches, inliers, width=PICTURE_WIDTH)
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    write_whole(PICTURE, data.tobytes())
    print(f"{PICTURE}: {picture.shape[1]} x {picture.shape[0]}, {data.size / 1000:.0f} kB")


def main(folder: Path) -> int:
    """Run the demo; return the exit code."""
    images, features_file = folder / "images", folder / "features.h5"
    images.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copyfile(Path(skimage.data.__file__).with_name(name), images / name)
    gpusift("extract", images, "-o", features_file, "--profile", "scikit-image", "--overwrite")

    sift = SIFT()
    print(
        f"\n{'image':22}{'size':>10}{'device':>9}{'keypoints':>11}{'ms':>8}"
        f"{'scikit-image ms':>17}{'agreement':>11}{'descriptors equal':>19}"
    )
    worst = 100.0
    for name in PHOTOGRAPHS:
        image = read_image(images / name)
        times = []
        for _ in range(1 + REPEATS):  # the first warms up
            start = time.perf_counter()
            features = sift.compute(image).to_host()
            times.append(time.perf_counter() - start)
        write_png(folder / f"{Path(name).stem}.png", draw_keypoints(image, features, zoom=ZOOM))

        with h5py.File(features_file) as file:
            if not np.array_equal(file[name]["keypoints"][()][:, ::-1], features.unbiased().positions):
                print(f"{features_file} has other keypoints for {name}; it must have the same")
                return 1
        oracle = skimage.feature.SIFT()
        start = time.perf_counter()
        oracle.detect_and_extract(image)
        oracle_time = time.perf_counter() - start
        keypoints, elements = agreement(features, oracle)
        worst = min(worst, keypoints, elements)
        print(
            f"{name:22}{image.shape[1]:>5}x{image.shape[0]:<4}{sift.device.name:>9}"
            f"{len(features):>11}{1e3 * np.median(times[1:]):>8.1f}{1e3 * oracle_time:>17.0f}"
            f"{keypoints:>10.2f}%{elements:>18.2f}%",
            flush=True,
        )
    print()
    row_difference = match_stereo_pair(folder)
    print(f"\n{features_file} and {folder}/*.png are written; {folder}/matches.png is the one to look at.")
    if row_difference > MAX_ROW_DIFFERENCE:
        print(f"rows of the pair must differ by at most {MAX_ROW_DIFFERENCE} px, got {row_difference:.2f}")
        return 1
    if worst < LEAST_AGREEMENT:
        print(f"agreement must be at least {LEAST_AGREEMENT} %, got {worst:.2f} %")
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--picture"]:
        write_picture()
    else:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
