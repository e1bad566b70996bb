"""Refinement over tracks: every keypoint of a point of the scene is aligned with the track's best connected one.

A track is a set of keypoints, in several images, that verified matches connect. Its best connected keypoint keeps its
position; the others go to where the alignment finds it in their images (`gpusift.refine`).

The database keeps the original keypoints in a table of its own. When matches are added, refinement begins there again:
the result is the same as if all images had been matched at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import compress
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.refine import refine_pairs
from gpusift.sift import SIFT
from gpusift.sinks.colmap import as_os_error
from gpusift.sinks.colmap.conventions import PIXEL_CENTRE, regions_of

TABLES = (
    "CREATE TABLE IF NOT EXISTS gpusift_refined (record TEXT)",  # one row: the matches and files that were used
    "CREATE TABLE IF NOT EXISTS gpusift_originals (image_id INTEGER PRIMARY KEY, data BLOB)",  # as in `keypoints`
)


def begin(pycolmap: Any, path: Path, files: Mapping[str, str | os.PathLike[str]]) -> bool:
    """Give the keypoints their original positions, unless these matches have been refined with these files.

    The verified geometries of refined positions are removed with them, in one transaction.

    Parameters
    ----------
    pycolmap, path, files
        As for `refine_tracks`.

    Returns
    -------
    wanted : bool
        Whether `refine_tracks` is to follow, after the verification of all matches.

    Raises
    ------
    OSError
        The database cannot be written.
    """
    with pycolmap.Database.open(path) as database:
        record = _record(database, files)
    with _transaction(path) as database:
        if (record,) in database.execute("SELECT record FROM gpusift_refined").fetchall():
            return False
        if database.execute("SELECT COUNT(*) FROM gpusift_originals").fetchone()[0]:
            database.execute(
                "UPDATE keypoints SET data = (SELECT data FROM gpusift_originals AS of_image "
                "WHERE of_image.image_id = keypoints.image_id) "
                "WHERE image_id IN (SELECT image_id FROM gpusift_originals)"
            )
            for table in ("two_view_geometries", "gpusift_originals", "gpusift_refined"):
                database.execute(f"DELETE FROM {table}")
    return True


def refine_tracks(pycolmap: Any, path: Path, files: Mapping[str, str | os.PathLike[str]], sift: SIFT) -> int:
    """Refine the keypoints of a database's tracks, in one transaction, which also removes the verified geometries.

    Parameters
    ----------
    pycolmap : module
    path : Path
        A database with original keypoints (see `begin`) and verified matches, which no other process writes to.
    files : mapping
        Name of each image -> its file. Keypoints of images that are missing keep their positions.
    sift : SIFT
        That which made the features.

    Returns
    -------
    refined : int
        Number of keypoints that were refined. If it is 0, nothing has changed.

    Raises
    ------
    OSError
        The database cannot be written.
    ValueError
        A file is not the image that the features are of, or cannot be read.
    """
    with pycolmap.Database.open(path) as database:
        images = sorted(database.read_all_images(), key=lambda image: image.name)
        rows = [np.array(database.read_keypoints(image.image_id)) for image in images]
        cameras = [database.read_camera(image.camera_id) for image in images]
        edges = _edges(pycolmap, database, [image.image_id for image in images], rows)
        record = _record(database, files)
    firsts = np.concatenate(([0], np.cumsum([len(each) for each in rows])))
    pairs, matches = _tasks(edges, firsts)
    readable = [all(images[number].name in files for number in pair) for pair in pairs]
    pairs, matches = list(compress(pairs, readable)), list(compress(matches, readable))
    shapes = [(camera.height, camera.width) for camera in cameras]
    pictures = _Pictures([files.get(image.name, "") for image in images], shapes)
    features = [_features(each, sift.plans.parameters, shape) for each, shape in zip(rows, shapes)]
    refined = np.zeros(firsts[-1], bool)
    for (_, image), some, result in zip(pairs, matches, refine_pairs(pictures, features, pairs, matches, sift=sift)):
        host = result.to_host()
        chosen = some[host.refined, 1]
        rows[image][chosen, :2] = host.positions[host.refined, ::-1] + PIXEL_CENTRE
        refined[firsts[image] + chosen] = True
    if not refined.any():
        return 0
    _write(path, [image.image_id for image in images], rows, record)
    return int(refined.sum())


def _edges(pycolmap: Any, database: Any, ids: Sequence[int], rows: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """(E, 2): verified matches, as numbers of keypoints of all images, one image after the other."""
    place = {number: index for index, number in enumerate(ids)}
    firsts = np.concatenate(([0], np.cumsum([len(each) for each in rows])))
    edges = [np.empty((0, 2), np.int64)]
    for pair, geometry in zip(*database.read_two_view_geometries()):
        images = np.array([place[number] for number in pycolmap.pair_id_to_image_pair(pair)])
        edges.append(np.asarray(geometry.inlier_matches, np.int64).reshape(-1, 2) + firsts[images])
    return np.concatenate(edges)


def _tasks(
    edges: NDArray[np.int64], firsts: NDArray[np.int64]
) -> tuple[list[tuple[int, int]], list[NDArray[np.int64]]]:
    """What is aligned: pairs of images, and for each the best connected keypoints and those of their tracks."""
    n = int(firsts[-1])
    graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
    n_tracks, track = connected_components(graph, directed=False)
    degree = np.bincount(edges.reshape(-1), minlength=n)
    order = np.lexsort((np.arange(n), -degree, track))  # of each track the best connected keypoint comes first
    is_first = np.diff(track[order], prepend=-1) > 0
    best = np.empty(n_tracks, np.int64)
    best[track[order[is_first]]] = order[is_first]
    others = np.flatnonzero((degree > 0) & (best[track] != np.arange(n)))
    tasks = np.column_stack((best[track[others]], others))
    image = np.searchsorted(firsts, tasks, side="right") - 1
    apart = image[:, 0] != image[:, 1]  # a track with two keypoints of one image
    tasks, image = tasks[apart], image[apart]
    order = np.lexsort((tasks[:, 1], image[:, 1], image[:, 0]))
    tasks, image = tasks[order], image[order]
    cuts = np.flatnonzero(np.any(np.diff(image, axis=0) != 0, axis=1)) + 1
    pairs = [(int(i), int(j)) for i, j in image[np.concatenate(([0], cuts))]] if len(image) else []
    return pairs, [part - firsts[list(pair)] for part, pair in zip(np.split(tasks, cuts), pairs)]


class _Pictures(Sequence[NDArray[Any]]):
    """Pictures of known shapes, which are read when they are taken."""

    def __init__(self, files: Sequence[str | os.PathLike[str]], shapes: Sequence[tuple[int, int]]) -> None:
        self._files, self._shapes = files, shapes

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        from gpusift.images import read_image

        if isinstance(index, slice):
            return _Pictures(self._files[index], self._shapes[index])
        picture, shape = read_image(self._files[index], exif_orientation=False), self._shapes[index]
        if picture.shape != shape:
            raise ValueError(
                f"{os.fspath(self._files[index])} must be the image of {shape[0]} x {shape[1]} pixels that the "
                f"features are of, got {picture.shape[0]} x {picture.shape[1]}"
            )
        return picture


def _features(rows: NDArray[Any], parameters: Parameters, shape: tuple[int, int]) -> Features:
    """A database's keypoints as features, with the levels nearest to their sigmas."""
    sigmas, angles, shapes = regions_of(rows)
    octaves, scales = parameters.levels_of(sigmas, parameters.n_octaves_of(shape))
    return Features(
        positions=(rows[:, 1::-1] - PIXEL_CENTRE).astype(np.float32),
        sigmas=sigmas,
        scales=scales,
        octaves=octaves,
        orientations=(np.pi / 2 - angles).astype(np.float32),
        responses=np.zeros(len(rows), np.float32),
        affine_shapes=shapes,
    )


def _record(database: Any, files: Mapping[str, str | os.PathLike[str]]) -> str:
    """What decides a refinement: the matches of a database, and the images whose files are given."""
    names = sorted(image.name for image in database.read_all_images() if image.name in files)
    used = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
    return json.dumps({"matches": database.num_matches(), "pairs": database.num_matched_image_pairs(), "images": used})


def _write(path: Path, ids: Sequence[int], rows: Sequence[NDArray[Any]], record: str) -> None:
    with _transaction(path) as database:
        database.execute("INSERT INTO gpusift_originals SELECT image_id, data FROM keypoints")
        database.executemany(
            "UPDATE keypoints SET data = ? WHERE image_id = ?",
            ((np.ascontiguousarray(each, np.float32).tobytes(), number) for number, each in zip(ids, rows)),
        )
        database.execute("DELETE FROM two_view_geometries")
        database.execute("DELETE FROM gpusift_refined")
        database.execute("INSERT INTO gpusift_refined VALUES (?)", (record,))


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction in a database that has `TABLES`."""
    with as_os_error(path), closing(sqlite3.connect(path)) as database, database:
        for table in TABLES:
            database.execute(table)
        yield database
