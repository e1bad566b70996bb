#!/usr/bin/env python
"""Reconstruct scenes with COLMAP's mapper, from gpusift's features and matches and from COLMAP's own.

    python -m bench.accuracy.reconstruction [--data DIR] [--out DIR] [--device cpu|cuda] [--scenes a,b]

For each scene: features of all images, every image matched with every other, then pycolmap's incremental mapping, on
one thread and with a fixed seed, so that it is repeatable. reconstruction.jsonl has a row for each scene and
engine, and reconstruction.md the table.

- fountain: 11 photographs, the cameras' centres are known to millimetres (Strecha et al. 2008). The camera is known and
  not refined; centres are compared after the similarity transform that fits them best.
- brighton: 12 photographs from a drone; the camera is initialized from EXIF. There is no ground truth.

COLMAP's limit of 8192 keypoints an image is not exact on the CPU: it keeps whole levels of scale, including the one
that exceeds the limit, some 12,000 keypoints for these images. gpusift's default is as many. There are also rows with
8192 and with all.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import machine
from bench.common.rows import provenance
from gpusift import SIFT
from gpusift.colmap import PIXEL_CENTRE, SIFT_PARAMETERS, import_pycolmap, match_database, pairs
from gpusift.images import find_images, read_image
from gpusift.stream import extract

pycolmap = import_pycolmap()

SEED = 0
FEWER = 8192  # keypoints an image
COLUMNS = (  # title, key, format
    ("keypoints", "keypoints", "{:,.0f}"),
    ("verified matches", "inliers", "{:,.0f}"),
    ("registered", "registered", "{:.0f}"),
    ("points", "points", "{:,.0f}"),
    ("track length", "track_length", "{:.2f}"),
    ("reprojection error, px", "reprojection_error", "{:.3f}"),
    ("centre error, mm: median", "centre_median_mm", "{:.2f}"),
    ("worst", "centre_worst_mm", "{:.2f}"),
    ("features, s", "features_seconds", "{:.1f}"),
    ("matching, s", "matching_seconds", "{:.1f}"),
    ("mapping, s", "mapping_seconds", "{:.1f}"),
)


@dataclass(frozen=True)
class Scene:
    """Photographs to reconstruct, and the known parameters of their cameras."""

    name: str
    folder: Path
    camera_model: str = "SIMPLE_RADIAL"
    camera_params: list[float] | None = None
    centres: dict[str, list[float]] | None = None  # metres, by image

    @property
    def calibrated(self) -> bool:
        """Whether the camera is known; then all images share it and it is fixed."""
        return self.camera_params is not None


def fountain(data: Path) -> Scene:
    """Return the scene with ground truth."""
    folder = data / "sfm" / "fountain_p11_half"
    cameras = json.loads((folder / "cameras.json").read_text())["cameras"]
    k = cameras[0]["K"]
    params = [k[0][0], k[1][1], k[0][2] + PIXEL_CENTRE, k[1][2] + PIXEL_CENTRE]
    centres = {camera["image"]: camera["center"] for camera in cameras}
    return Scene("fountain", folder / "images", "PINHOLE", params, centres)


def brighton(data: Path) -> Scene:
    """Return the scene of the drone."""
    return Scene("brighton", data / "sfm" / "brighton" / "images")


SCENES: dict[str, Callable[[Path], Scene]] = {"fountain": fountain, "brighton": brighton}


def by_gpusift(scene: Scene, path: Path, device: str, refine: bool = False, **parameters: Any) -> dict[str, Any]:
    """Write a database of gpusift's features and matches; return times and settings."""
    settings = {**SIFT_PARAMETERS, **parameters}
    sift = SIFT(**settings, device=device)
    images = find_images([str(scene.folder)]).images
    sift.compute(read_image(next(iter(images.values()))))  # compiles the kernels before anything is timed
    start = time.perf_counter()
    cameras = {
        "camera_model": scene.camera_model,
        "camera_params": scene.camera_params,
        "single_camera": scene.calibrated,
    }
    extract(scene.folder, path, sift, n_decoders=1, format_settings=cameras)
    middle = time.perf_counter()
    match_database(path, pairs.exhaustive(images), device=sift.device.name, refine=images if refine else None)
    return times(start, middle) | {"settings": settings, "refine": refine, "device": sift.device.name}


def by_pycolmap(scene: Scene, path: Path) -> dict[str, Any]:
    """Write a database of COLMAP's own features and matches; return times and settings."""
    params = ",".join(map(repr, scene.camera_params or []))
    reader = pycolmap.ImageReaderOptions(camera_model=scene.camera_model, camera_params=params)
    mode = pycolmap.CameraMode.SINGLE if scene.calibrated else pycolmap.CameraMode.AUTO
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    pycolmap.Database.open(path).close()
    cpu = pycolmap.Device.cpu
    start = time.perf_counter()
    pycolmap.extract_features(path, scene.folder, camera_mode=mode, reader_options=reader, device=cpu)
    middle = time.perf_counter()
    pycolmap.match_exhaustive(path, verification_options=verification, device=cpu)
    return times(start, middle) | {"settings": {}, "device": "cpu"}


def times(start: float, middle: float) -> dict[str, float]:
    """Return the seconds of features, from start to middle, and of matching, from there to now."""
    return {"features_seconds": middle - start, "matching_seconds": time.perf_counter() - middle}


def engines(device: str) -> dict[str, Callable[[Scene, Path], dict[str, Any]]]:
    """Return the functions that write the databases to compare, by name."""
    return {
        "gpusift": lambda scene, path: by_gpusift(scene, path, device),
        "gpusift, refined": lambda scene, path: by_gpusift(scene, path, device, refine=True),
        "gpusift, COLMAP's grid": lambda scene, path: by_gpusift(scene, path, device, upsampling_grid="pixels"),
        f"gpusift, {FEWER}": lambda scene, path: by_gpusift(scene, path, device, max_keypoints=FEWER),
        "gpusift, all": lambda scene, path: by_gpusift(scene, path, device, max_keypoints=None),
        "pycolmap": by_pycolmap,
    }


def counts(path: Path) -> dict[str, int]:
    """Return the counts of a database."""
    with pycolmap.Database.open(path) as database:
        return {
            "images": database.num_images(),
            "keypoints": database.num_keypoints(),
            "matches": database.num_matches(),
            "inliers": database.num_inlier_matches(),
            "verified_pairs": database.num_verified_image_pairs(),
        }


def reconstruct(scene: Scene, path: Path) -> dict[str, Any]:
    """Map a database; return the measures of its largest model."""
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.num_threads = SEED, 1
    options.extract_colors = False
    options.ba_refine_focal_length = options.ba_refine_extra_params = not scene.calibrated
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        models = pycolmap.incremental_mapping(path, scene.folder, folder, options)
    seconds = time.perf_counter() - start
    if not models:
        return {"registered": 0, "points": 0, "mapping_seconds": seconds}
    model = max(models.values(), key=lambda each: each.num_reg_images())
    return {
        "registered": model.num_reg_images(),
        "points": model.num_points3D(),
        "track_length": model.compute_mean_track_length(),
        "reprojection_error": model.compute_mean_reprojection_error(),
        "mapping_seconds": seconds,
        **centre_errors(model, scene.centres),
    }


def centre_errors(model: Any, centres: dict[str, list[float]] | None) -> dict[str, float]:
    """Return the median and the largest distance of the cameras' centres from the true ones, millimetres."""
    found = {image.name: image.projection_center() for image in model.images.values() if image.has_pose}
    names = sorted(found.keys() & (centres or {}).keys())
    if centres is None or len(names) < 3:
        return {}
    ours, true = np.array([found[name] for name in names]), np.array([centres[name] for name in names])
    fit = pycolmap.estimate_sim3d(ours, true)
    errors = 1e3 * np.linalg.norm(np.array([fit * centre for centre in ours]) - true, axis=1)
    return {"centre_median_mm": float(np.median(errors)), "centre_worst_mm": float(errors.max())}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    shown = [column for column in COLUMNS if any(column[1] in row for row in rows)]
    lines = ["<!-- written by python -m bench.accuracy.reconstruction; do not edit -->", ""]
    lines.append("| scene | engine | " + " | ".join(title for title, *_ in shown) + " |")
    lines.append("|---|---|" + "--:|" * len(shown))
    for row in rows:
        cells = [form.format(row[key]) if key in row else "" for _, key, form in shown]
        lines.append(f"| {row['scene']}, {row['images']} images | {row['engine']} | " + " | ".join(cells) + " |")
    hardware = rows[0]["hardware"]
    device = hardware["gpu"]["name"] + ", " if hardware["gpu"] else ""
    lines += ["", f"{device}{hardware['cpu']}, {hardware['cores']} cores; {rows[0]['run'][:10]}."]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GPUSIFT_DATA"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, metavar="DIR")
    parser.add_argument("--device", default="auto", help="of gpusift")
    parser.add_argument("--scenes", default=",".join(SCENES), help="comma-separated")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "sfm").is_dir():
        parser.error(f"--data or GPUSIFT_DATA must be a folder that holds sfm/, got {options.data}")
    options.scenes = options.scenes.split(",")
    unknown = sorted(set(options.scenes) - set(SCENES))
    if unknown:
        parser.error(f"--scenes must be among {', '.join(SCENES)}; got {unknown[0]!r}")
    return options


def main() -> None:
    """Measure, and write reconstruction.jsonl and reconstruction.md."""
    options = arguments()
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    common = provenance()
    common["versions"]["pycolmap"] = pycolmap.__version__
    rows = []
    for name in options.scenes:
        scene = SCENES[name](Path(options.data))
        for engine, write in engines(options.device).items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "database.db"
                about = {"scene": name, "engine": engine, **write(scene, path), **counts(path)}
                rows.append({**common, **about, **reconstruct(scene, path)})
            print(name, engine, {key: rows[-1][key] for _, key, _ in COLUMNS if key in rows[-1]}, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (options.out / "reconstruction.jsonl").write_text(text, encoding="utf-8")
    (options.out / "reconstruction.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
