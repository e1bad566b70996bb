"""The comparison of tracks of points that two reconstructions have in common."""

from __future__ import annotations

import numpy as np
import pytest

from bench.accuracy.common_points import Observations, common_points, compare_tracks

SCENE = {1: (10, 10), 2: (50, 50), 3: (90, 20), 4: (30, 80)}  # positions of points, the same in each image


def model(*images: tuple[int, ...], shift: float = 0, names: dict[int, int] | None = None) -> dict[str, Observations]:
    """The observations of images that see these points, each `shift` pixels to the right of where it is."""
    names = names or {point: point for point in SCENE}
    return {
        f"{number}.png": Observations(
            np.array([SCENE[point] for point in points], float).reshape(-1, 2) + np.array([shift, 0]),
            np.array([names[point] for point in points], int),
        )
        for number, points in enumerate(images)
    }


def test_common_points_are_found_whatever_their_identifiers():
    renamed = {1: 40, 2: 30, 3: 20, 4: 10}
    first = model((1, 2), (1, 2, 3), (1, 3, 4))
    second = model((1, 2), (2, 3), (3,), shift=0.5, names=renamed)
    assert sorted(common_points(first, second)) == [(1, 40), (2, 30), (3, 20)]
    measures = compare_tracks(first, second)  # tracks of 3, 2 and 2 images, and of 1, 2 and 2
    assert measures["common_points"] == 3
    assert measures["common_difference"] == pytest.approx(2 / 3)
    assert measures["common_difference_se"] == pytest.approx(np.std([2, 0, 0]) / np.sqrt(3))
    assert compare_tracks(second, first)["common_difference"] == pytest.approx(-2 / 3)


def test_a_point_that_is_in_two_parts_has_the_longer_one():
    first = model((1,), (1,), (1,), (1, 2))
    second = {**model((1,), names={1: 7}), **dict(list(model((), (1,), (1,), (1, 2)).items())[1:])}
    assert sorted(common_points(first, second)) == [(1, 1), (2, 2)]


def test_observations_too_far_apart_and_images_of_one_model_do_not_count():
    assert common_points(model((1, 2)), model((1, 2), shift=1.5)) == []
    assert compare_tracks(model((1, 2)), model((), (1, 2))) == {}
    assert compare_tracks(model(()), {}) == {}
