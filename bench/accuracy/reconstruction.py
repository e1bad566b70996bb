#!/usr/bin/env python
"""Reconstruct scenes with COLMAP's mapper, from gpusift's features and matches and from COLMAP's own.

    python -m bench.accuracy.reconstruction [--data DIR] [--scenes a,b] [--engines a,b] [--seeds N]

For each scene: features of all images, every image matched with every other; then, for each seed, verification of the
matches and pycolmap's incremental mapping, on one thread, so that it is repeatable. reconstruction.jsonl has a row
for each scene, engine and seed; those of other scenes and engines are kept. reconstruction.md has the tables.

- fountain: 11 photographs, the cameras' centres are known to millimetres (Strecha et al. 2008). The camera is known and
  not refined; centres are compared after the similarity transform that fits them best.
- brighton: 12 photographs from a drone; the camera is initialized from EXIF. There is no ground truth.

COLMAP's limit of 8192 keypoints an image is not exact on the CPU: it keeps whole levels of scale, including the one
that exceeds the limit, some 12,000 keypoints for these images. There are rows of gpusift with as many, 12288.
"gpusift" is what `gpusift colmap` does, "gpusift profile" is `SIFT.colmap()`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.common_points import Observations, compare_tracks, observations
from bench.accuracy.engines import SIZES
from bench.accuracy.reconstruction_tables import LENGTHS, PEER, markdown, models
from bench.common import machine, photographs
from bench.common.rows import Row, provenance, read
from gpusift import SIFT
from gpusift.colmap import PIXEL_CENTRE, SIFT_PARAMETERS, import_pycolmap, match_database, pairs
from gpusift.images import find_images, read_image
from gpusift.profiles import arguments_of
from gpusift.stream import extract

pycolmap = import_pycolmap()

SEEDS = 3
AS_MANY = 12288  # keypoints an image, about what COLMAP's limit amounts to


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


Write = Callable[[Scene, Path], dict[str, Any]]  # writes a database; times and settings
SCENES: dict[str, Callable[[Path], Scene]] = {"fountain": fountain, "brighton": brighton}


def by_gpusift(scene: Scene, path: Path, *, device: str, refine: bool = False, **parameters: Any) -> dict[str, Any]:
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


def by_pycolmap(scene: Scene, path: Path, **parameters: Any) -> dict[str, Any]:
    """Write a database of COLMAP's own features, with these options of SIFT, and matches; return times and settings."""
    params = ",".join(map(repr, scene.camera_params or []))
    reader = pycolmap.ImageReaderOptions(camera_model=scene.camera_model, camera_params=params)
    mode = pycolmap.CameraMode.SINGLE if scene.calibrated else pycolmap.CameraMode.AUTO
    extraction = pycolmap.FeatureExtractionOptions()
    for name, value in parameters.items():
        setattr(extraction.sift, name, value)
    pycolmap.Database.open(path).close()
    cpu = pycolmap.Device.cpu
    start = time.perf_counter()
    pycolmap.extract_features(
        path,
        scene.folder,
        camera_mode=mode,
        reader_options=reader,
        extraction_options=extraction,
        device=cpu,
    )
    middle = time.perf_counter()
    pycolmap.match_exhaustive(path, device=cpu)
    return times(start, middle) | {"settings": parameters, "device": "cpu"}


def times(start: float, middle: float) -> dict[str, float]:
    """Return the seconds of features, from start to middle, and of matching, from there to now."""
    return {"features_seconds": middle - start, "matching_seconds": time.perf_counter() - middle}


def engines(device: str) -> dict[str, Write]:
    """Return the functions that write the databases to compare, by name."""
    gpusift = partial(by_gpusift, device=device)
    colmap = arguments_of("colmap")
    return {
        PEER: by_pycolmap,
        "pycolmap pooled": partial(by_pycolmap, domain_size_pooling=True),
        "pycolmap affine": partial(by_pycolmap, estimate_affine_shape=True),
        "gpusift": gpusift,
        "gpusift refined": partial(gpusift, refine=True),
        "gpusift pooled": partial(gpusift, pooling=SIZES),
        f"gpusift {AS_MANY}": partial(gpusift, max_keypoints=AS_MANY),
        "gpusift all": partial(gpusift, max_keypoints=None),
        "gpusift profile": partial(gpusift, **colmap),
        "gpusift profile refined": partial(gpusift, refine=True, **colmap),
    }


def verify(path: Path, seed: int) -> None:
    """Verify all matches of a database again, with another seed."""
    with pycolmap.Database.open(path) as database:
        database.clear_two_view_geometries()
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    pycolmap.geometric_verification(path, two_view_geometry_options=options)


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


def reconstruct(scene: Scene, path: Path, seed: int) -> tuple[dict[str, Any], dict[str, Observations]]:
    """Map a database; return the measures of its largest model, and what each image sees of it."""
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.num_threads = seed, 1
    options.extract_colors = False
    options.ba_refine_focal_length = options.ba_refine_extra_params = not scene.calibrated
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        models = pycolmap.incremental_mapping(path, scene.folder, folder, options)
    seconds = time.perf_counter() - start
    if not models:
        return {"registered": 0, "points": 0, "mapping_seconds": seconds}, {}
    model = max(models.values(), key=lambda each: each.num_reg_images())
    points = model.points3D.values()
    measures = {
        "registered": model.num_reg_images(),
        **measures_of_points([point.track.length() for point in points], [point.error for point in points]),
        "mapping_seconds": seconds,
        **centre_errors(model, scene.centres),
    }
    return measures, observations(model)


def measures_of_points(lengths: Sequence[int], errors: Sequence[float]) -> dict[str, float]:
    """Return the measures of a model's points, from the images and the mean reprojection error of each.

    Parameters
    ----------
    lengths : (N,) sequence of int
        Images of each point.
    errors : (N,) sequence of float
        Mean reprojection error of each point, pixels.

    Returns
    -------
    measures : dict
        Numbers of points, of points in at least so many images, and of observations; the means over the points with
        their standard errors.
    """
    images, root = np.asarray(lengths), np.sqrt(len(lengths))
    return {
        "points": len(images),
        **{f"points_{length}": int(np.count_nonzero(images >= length)) for length in LENGTHS},
        "observations": int(images.sum()),
        "track_length": float(images.mean()),
        "track_length_se": float(images.std() / root),
        "reprojection_error": float(np.mean(errors)),
        "reprojection_error_se": float(np.std(errors) / root),
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


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = list(engines("auto"))
    photographs.add_data_option(parser)
    parser.add_argument("--out", type=Path, default=machine.RESULTS, metavar="DIR")
    parser.add_argument("--device", default="auto", help="of gpusift")
    parser.add_argument("--scenes", default=",".join(SCENES), help="comma-separated")
    parser.add_argument("--engines", default=",".join(names), help=f"beside {PEER}, comma-separated")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of verification and mapping")
    options = parser.parse_args()
    if not options.data or not (options.data / "sfm").is_dir():
        parser.error(f"--data or GPUSIFT_DATA must be a folder that holds sfm/, got {options.data}")
    options.scenes, options.engines = options.scenes.split(","), options.engines.split(",")
    for name, given, known in (("scenes", options.scenes, list(SCENES)), ("engines", options.engines, names)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser.error(f"--{name} must be among {', '.join(known)}; got {unknown[0]!r}")
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    return options


def measure(scene: Scene, write: Write, n_seeds: int) -> tuple[list[dict[str, Any]], list[dict[str, Observations]]]:
    """Return, for each seed, the measures of one engine, and what each image sees of its model."""
    measures, seen = [], []
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "database.db", Path(folder) / "copy.db"
        about = write(scene, path)
        for seed in range(n_seeds):
            shutil.copy(path, copy)
            verify(copy, seed)
            of_model, of_images = reconstruct(scene, copy, seed)
            measures.append({**about, "seed": seed, **counts(copy), **of_model})
            seen.append(of_images)
    return measures, seen


def keep(out: Path, rows: list[Row]) -> None:
    """Write the rows and the tables; rows of other scenes and engines that the files hold are kept."""
    path, order = out / "reconstruction.jsonl", [(scene, engine) for scene in SCENES for engine in engines("auto")]
    new = {(row["scene"], row["engine"]) for row in rows}
    old = read(path) if path.exists() else []
    both = rows + [row for row in old if (row["scene"], row["engine"]) in set(order) - new]
    both.sort(key=lambda row: (order.index((row["scene"], row["engine"])), row["seed"]))
    out.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in both), encoding="utf-8")
    (out / "reconstruction.md").write_text(markdown(both), encoding="utf-8")


def main() -> None:
    """Measure, and write reconstruction.jsonl and reconstruction.md."""
    options = arguments()
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    common = provenance()
    common["versions"]["pycolmap"] = pycolmap.__version__
    every = engines(options.device)
    for name in options.scenes:
        scene = SCENES[name](options.data)
        measures, peers = measure(scene, every[PEER], options.seeds)
        keep(options.out, [{**common, "scene": name, "engine": PEER, **each} for each in measures])
        for engine in options.engines:
            if engine == PEER:
                continue
            measures, seen = measure(scene, every[engine], options.seeds)
            compared = [each | compare_tracks(*both) for each, *both in zip(measures, seen, peers)]
            rows = [{**common, "scene": name, "engine": engine, **each} for each in compared]
            keep(options.out, rows)
            print("\n".join(models([rows])[2:-1]), flush=True)


if __name__ == "__main__":
    main()
