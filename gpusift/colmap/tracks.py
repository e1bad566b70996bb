"""Refinement over tracks: every keypoint of a point of the scene is aligned with the track's best connected one.

A track is a set of keypoints, in several images, that verified matches connect. Its best connected keypoint keeps its
position; the others go to where the alignment finds it in their images (`gpusift.refine`).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
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
from gpusift.sinks.colmap.conventions import PIXEL_CENTRE

MARK = "CREATE TABLE IF NOT EXISTS gpusift_refined (record TEXT)"


def refine_tracks(pycolmap: Any, path: Path, files: Mapping[str, str | os.PathLike[str]], sift: SIFT) -> int:
    """Refine the keypoints of a database's tracks, in one transaction, which also removes the verified geometries.

    Parameters
    ----------
    pycolmap : module
    path : Path
        A database with verified matches, which no other process writes to.
    files : mapping
        Name of each image -> its file. Keypoints of images that are missing keep their positions.
    sift : SIFT
        That which made the features.

    Returns
    -------
    refined : int
        Number of keypoints that were refined. 0 if these matches have been used for it before; nothing changes then.

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
        n_matches = database.num_matches()
    firsts = np.concatenate(([0], np.cumsum([len(each) for each in rows])))
    pairs, matches = _tasks(edges, firsts)
    readable = [all(images[number].name in files for number in pair) for pair in pairs]
    pairs, matches = list(compress(pairs, readable)), list(compress(matches, readable))
    record = json.dumps({"matches": n_matches, "aligned": sum(map(len, matches))})
    if not pairs or _is_refined(path, record):
        return 0
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
    sigmas = rows[:, 2].astype(np.float32)
    octaves, scales = parameters.levels_of(sigmas, parameters.n_octaves_of(shape))
    return Features(
        positions=(rows[:, 1::-1] - PIXEL_CENTRE).astype(np.float32),
        sigmas=sigmas,
        scales=scales,
        octaves=octaves,
        orientations=(np.pi / 2 - rows[:, 3]).astype(np.float32),
        responses=np.zeros(len(rows), np.float32),
    )


def _is_refined(path: Path, record: str) -> bool:
    with as_os_error(path), closing(sqlite3.connect(path)) as database, database:
        database.execute(MARK)
        return (record,) in database.execute("SELECT record FROM gpusift_refined").fetchall()


def _write(path: Path, ids: Sequence[int], rows: Sequence[NDArray[Any]], record: str) -> None:
    with as_os_error(path), closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "UPDATE keypoints SET data = ? WHERE image_id = ?",
            ((np.ascontiguousarray(each, np.float32).tobytes(), number) for number, each in zip(ids, rows)),
        )
        database.execute("DELETE FROM two_view_geometries")
        database.execute("DELETE FROM gpusift_refined")
        database.execute("INSERT INTO gpusift_refined VALUES (?)", (record,))
