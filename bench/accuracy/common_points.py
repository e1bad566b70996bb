"""Points that two reconstructions of the same photographs have in common, to compare their tracks one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

MAX_DISTANCE = 1.0  # pixels between two observations of the same point


class Observations(NamedTuple):
    """What an image sees of a model's points.

    Attributes
    ----------
    positions : (N, 2) float array
        Pixels.
    points : (N,) int array
        Identifiers of the points.
    """

    positions: NDArray[Any]
    points: NDArray[Any]


def observations(model: Any) -> dict[str, Observations]:
    """Return the observations of a pycolmap.Reconstruction, by the names of its images."""
    found = {}
    for image in model.images.values():
        seen = [point for point in image.points2D if point.has_point3D()]
        positions = np.array([point.xy for point in seen]).reshape(-1, 2)
        found[image.name] = Observations(positions, np.array([point.point3D_id for point in seen], int))
    return found


def common_points(first: Mapping[str, Observations], second: Mapping[str, Observations]) -> list[tuple[int, int]]:
    """Return the pairs of points that two models have in common.

    Two observations in an image agree if they are mutual nearest neighbours, less than `MAX_DISTANCE` apart. Two points
    are the same if each has its largest number of agreeing observations with the other.
    """
    votes: Counter[tuple[int, int]] = Counter()
    for name in first.keys() & second.keys():
        a, b = first[name], second[name]
        if len(a.points) and len(b.points):
            distances, nearest = cKDTree(b.positions).query(a.positions)
            back = cKDTree(a.positions).query(b.positions)[1]
            agree = (back[nearest] == np.arange(len(nearest))) & (distances < MAX_DISTANCE)
            votes.update(zip(a.points[agree].tolist(), b.points[nearest[agree]].tolist()))
    best_of_first: dict[int, int] = {}
    best_of_second: dict[int, int] = {}
    for (i, j), _ in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
        best_of_first.setdefault(i, j)
        best_of_second.setdefault(j, i)
    return [(i, j) for i, j in best_of_first.items() if best_of_second[j] == i]


def compare_tracks(first: Mapping[str, Observations], second: Mapping[str, Observations]) -> dict[str, float]:
    """Return how many points two models have in common, and by how many images the first one's tracks are longer.

    Returns
    -------
    measures : dict
        ``common_points``, ``common_difference`` and its standard error ``common_difference_se``; empty if no point is
        common.
    """
    pairs = common_points(first, second)
    if not pairs:
        return {}
    lengths = [Counter(np.concatenate([each.points for each in model.values()]).tolist()) for model in (first, second)]
    differences = np.array([lengths[0][i] - lengths[1][j] for i, j in pairs])
    return {
        "common_points": len(pairs),
        "common_difference": float(differences.mean()),
        "common_difference_se": float(differences.std() / np.sqrt(len(pairs))),
    }
