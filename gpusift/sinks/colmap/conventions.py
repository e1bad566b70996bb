"""COLMAP's conventions: what its database holds of an image; parameters of SIFT for it.

- keypoints: (N, 4) float32: x (column), y (row), sigma, angle; or, with affine shapes, (N, 6): x, y, a11, a12, a21,
  a22. The centre of the upper left pixel is at (0.5, 0.5); lengths are in pixels of the file as it is stored, because
  COLMAP does not turn pictures as EXIF says; the angle is in radians, from the x axis towards the y axis;
- descriptors: (N, 128) uint8: 512 times RootSIFT, in Lowe's order of bins, `SIFT(descriptor_layout="ubc")`;
- every image has a row of both, even if it has no features.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.profiles import arguments_of

# COLMAP's profile with two differences. Both give reconstructions more points and a lower error (docs/which-to-use.md).
# - The areas of the enlarged image are aligned. So all samples are blurred alike; a grid of pixels leaves every fourth
#   one sharp.
# - The limit exceeds the number of features of most images of 1 to 2 megapixels. Features beyond it are the smallest
#   ones. Where one image has too many and its neighbours have not, tracks of small features lose that image.
SIFT_PARAMETERS: dict[str, Any] = {
    **arguments_of("colmap"),
    "upsampling_grid": "areas",
    "precise_upscale": True,
    "max_keypoints": 16384,
}

DESCRIPTOR_BYTES = 128
SIMILARITY_COLUMNS = 4  # of keypoints that have no matrix
COLMAPS_TABLES = {"cameras", "rigs", "frames", "frame_data", "images", "keypoints", "descriptors", "pose_priors"}
PIXEL_CENTRE = 0.5  # of the upper left pixel, in both coordinates


def keypoint_rows(features: Features) -> np.ndarray:
    """Convert keypoints to COLMAP's conventions.

    Parameters
    ----------
    features : Features
        N features, on any device; a bias of upsampling that is known is subtracted.

    Returns
    -------
    rows : (N, 4) or (N, 6) float32 array
        x and y, pixels, the centre of the upper left one at (0.5, 0.5); sigma, pixels; angle, radians in [0, 2 pi),
        from the x axis towards the y axis. Of features with affine shapes, in place of the last two, the matrix A of
        COLMAP's `FeatureKeypoint`, a11, a12, a21 and a22: sigma times the shape times the rotation by the angle.
    """
    host = features.to_host().unbiased()
    positions = host.positions[:, ::-1].astype(np.float64) + PIXEL_CENTRE
    angles = np.deg2rad(host.angles.astype(np.float64))
    if host.affine_shapes is None:
        return np.column_stack((positions, host.sigmas, angles)).astype(np.float32)
    cosines, sines = np.cos(angles), np.sin(angles)
    rotations = np.stack((cosines, -sines, sines, cosines), axis=-1).reshape(-1, 2, 2)
    by_x_and_y = host.affine_shapes[:, ::-1, ::-1].astype(np.float64)
    matrices = host.sigmas[:, None, None].astype(np.float64) * by_x_and_y @ rotations
    return np.column_stack((positions, matrices.reshape(-1, 4))).astype(np.float32)


def regions_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return sigmas, angles and affine shapes of a database's keypoints: the reverse of `keypoint_rows`.

    Parameters
    ----------
    rows : (N, 4) or (N, 6) array

    Returns
    -------
    sigmas, angles : (N,) arrays of float32
        Pixels; radians, from the x axis towards the y axis.
    shapes : (N, 2, 2) array of float32, or None
        As `Features.affine_shapes`; None of rows without a matrix.
    """
    if rows.shape[1] == SIMILARITY_COLUMNS:
        return rows[:, 2].astype(np.float32), rows[:, 3].astype(np.float32), None
    left, axes, right = np.linalg.svd(rows[:, 2:].reshape(-1, 2, 2).astype(np.float64))
    sigmas, rotations = axes[:, 1], left @ right
    angles = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    by_x_and_y = (left * (axes / sigmas[:, None])[:, None]) @ left.transpose(0, 2, 1)
    return sigmas.astype(np.float32), angles.astype(np.float32), by_x_and_y[:, ::-1, ::-1].astype(np.float32)


def check_descriptors(features: Features) -> None:
    """Raise a ValueError unless features have descriptors of 128 bytes."""
    descriptors = features.descriptors
    if descriptors is None or descriptors.dtype != np.uint8 or descriptors.shape[1] != DESCRIPTOR_BYTES:
        got = "none" if descriptors is None else f"{descriptors.shape[1]} of {descriptors.dtype}"
        raise ValueError(f"descriptors must be of 128 bytes, got {got}; use n_hist=4 and n_ori=8")


def is_colmaps_own(database: sqlite3.Connection) -> bool:
    """Whether a database is one of COLMAP's that gpusift has not written to: with features of each of its images."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "gpusift" in tables or not tables >= COLMAPS_TABLES:
        return False
    missing = "SELECT 1 FROM images WHERE image_id NOT IN (SELECT image_id FROM descriptors)"
    return database.execute(missing).fetchone() is None


def side_files(path: Path) -> list[Path]:
    """Return a database, and the files beside it in which SQLite keeps what is new while it is open."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
