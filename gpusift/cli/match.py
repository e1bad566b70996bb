"""`gpusift match`: the matches of two photographs, and the geometry that they obey."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from gpusift.cli.match_file import is_features_file, match_file
from gpusift.cli.options import (
    check_new,
    check_png,
    compute,
    given_parameters,
    make_sift,
    report,
    sift_options,
    writing,
)
from gpusift.errors import escaped, reason_of
from gpusift.geometry import NAMES, Geometry, verify
from gpusift.matching.matches import matched_points
from gpusift.storage.atomic import write_whole

COORDINATES = "x (column), y (row), the centre of the upper left pixel at (0, 0)"
MEANING = {
    "homography": "b ~ matrix a, for homogeneous points a = (x, y, 1) of the first image, b of the second",
    "fundamental": "b^T matrix a = 0, for homogeneous points a = (x, y, 1) of the first image, b of the second",
}


@click.command(short_help="Match two photographs and draw the matches; or match features of hloc's files.")
@click.argument("image_a", type=click.Path())
@click.argument("image_b", type=click.Path())
@click.option("-o", "--output", required=True, metavar="PNG|H5", help="The picture, or the file of matches, to write.")
@click.option("--json", "json_file", metavar="FILE", help="Also write counts, matrix and inliers to this file.")
@click.option(
    "--model",
    type=click.Choice(["auto", "homography", "fundamental"]),
    default="auto",
    show_default=True,
    help="The geometry; auto is a homography if it explains the matches as well.",
)
@click.option(
    "--max-ratio",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Largest ratio of the distances to the nearest and the second nearest.",
)
@click.option("--symmetric-ratio", is_flag=True, help="Apply --max-ratio in both directions, as COLMAP does.")
@click.option("--refine", is_flag=True, help="Refine matches to a tenth of a pixel by aligning their surroundings.")
@click.option("--only-refined", is_flag=True, help="With --refine: drop matches that cannot be refined.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="PIXELS",
    help="Largest distance of a match from the geometry.",
)
@click.option(
    "--min-inliers",
    type=click.IntRange(0),
    default=15,
    show_default=True,
    help="With fewer matches, a geometry counts as chance.",
)
@click.option("--overwrite", is_flag=True, help="Replace the files if they exist.")
@sift_options
@click.pass_context
def match(
    context: click.Context,
    /,
    image_a: str,
    image_b: str,
    output: str,
    json_file: str | None,
    model: str,
    max_ratio: float,
    symmetric_ratio: bool,
    refine: bool,
    only_refined: bool,
    threshold: float,
    min_inliers: int,
    overwrite: bool,
    no_exif: bool,
    **options: Any,
) -> None:
    """Match the features of IMAGE_A and IMAGE_B and draw both, with lines between matches.

    Matches are verified if they obey one homography, or one epipolar geometry (a fundamental matrix), which is printed.
    If no geometry is found, a line says so, and the exit code is still 0.

    gpusift match FEATURES.h5 PAIRS.txt -o MATCHES.h5 matches features that gpusift extract or hloc wrote: mutual
    nearest neighbours that pass --max-ratio, for each line of PAIRS.txt, two names of images. MATCHES.h5 is a file of
    hloc's.
    """
    if is_features_file(image_a):
        rule = {"max_ratio": max_ratio, "symmetric_ratio": symmetric_ratio, "device": options["device"]}
        match_file(context, image_a, image_b, output, overwrite, **rule)
        return
    from gpusift.matching import match as match_features
    from gpusift.plot import draw_matches, write_png
    from gpusift.refine import refine_matches

    if only_refined and not refine:
        raise click.UsageError("--only-refined needs --refine")
    check_png(output)
    for file in filter(None, (output, json_file)):
        check_new(file, overwrite)
    if json_file and Path(json_file).resolve() == Path(output).resolve():
        raise click.UsageError(f"picture and --json must be two files, got {escaped(output)} for both")
    sift = make_sift(given_parameters(context, options))
    computed = []
    for path in (image_a, image_b):
        try:
            computed.append(compute(sift, Path(path), not no_exif))
        except Exception as error:
            raise click.ClickException(f"{escaped(str(path))}: {reason_of(error)}") from None
    (pixels_a, features_a), (pixels_b, features_b) = computed
    try:
        matches = match_features(
            features_a,
            features_b,
            max_ratio=max_ratio,
            symmetric_ratio=symmetric_ratio,
            device=sift.device.name,
        )
        if refine:
            refined = refine_matches(pixels_a, pixels_b, features_a, features_b, matches, sift=sift)
            matches = refined[refined.refined] if only_refined else refined
        geometry = verify(features_a, features_b, matches, model=model, threshold=threshold, min_inliers=min_inliers)
    except (MemoryError, RuntimeError, ValueError) as error:  # NaN, which click lets pass; too little memory
        raise click.ClickException(str(error)) from None

    with writing(output):
        write_png(output, draw_matches(pixels_a, pixels_b, features_a, features_b, matches, geometry.inliers))
    if json_file:
        record = {
            "images": [image_a, image_b],
            "image_sizes": [[p.shape[1], p.shape[0]] for p in (pixels_a, pixels_b)],
            "keypoints": [len(features_a), len(features_b)],
            "max_ratio": max_ratio,
            "symmetric_ratio": symmetric_ratio,
            "refined": refine,
            **_record(geometry, *matched_points(features_a, features_b, matches)),
        }
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
        with writing(json_file):
            write_whole(json_file, ("{\n " + ",\n ".join(lines) + "\n}\n").encode())
    report(f"{len(features_a)} and {len(features_b)} keypoints on {sift.device.name}, {len(matches)} matches")
    for line in _in_words(geometry):
        report(line)
    report(f"-> {output}" + (f", {json_file}" if json_file else ""))


def _record(geometry: Geometry, points_a: np.ndarray, points_b: np.ndarray) -> dict[str, Any]:
    """Return what --json records of the geometry of matches between (Q, 2) points x, y."""
    points = np.concatenate([points_a, points_b], axis=1)[geometry.inliers]
    return {
        "matches": len(points_a),
        "inliers": len(points),
        "model": geometry.model,
        "matrix": None if geometry.matrix is None else geometry.matrix.tolist(),
        "meaning": MEANING[geometry.model] if geometry.model else geometry.reason,
        "threshold": geometry.threshold,
        "coordinates": COORDINATES,
        "points": points.round(4).tolist(),
    }


def _in_words(geometry: Geometry) -> list[str]:
    """Return lines that describe a geometry."""
    if geometry.model is None or geometry.matrix is None:
        return [f"no geometry: {geometry.reason}"]
    inliers, n = int(geometry.inliers.sum()), len(geometry.inliers)
    return [
        f"{inliers} verified ({inliers / n:.0%}), within {geometry.threshold:g} px of a {NAMES[geometry.model]}:",
        *("  " + " ".join(f"{value:14.6e}" for value in row) for row in geometry.matrix),
    ]
