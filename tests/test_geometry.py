"""Verification of matches: known homographies and cameras are recovered, outliers and random matches are rejected."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from gpusift import SIFT, Features
from gpusift.geometry import MODELS, verify
from gpusift.matching import match
from gpusift.matching.matches import matched_points

SIZE = 640, 480
CORNERS = np.array([[0, 0], [500, 0], [0, 450], [500, 450.0]])
HOMOGRAPHY = np.array([[0.9, -0.2, 60.0], [0.25, 0.95, -40.0], [1e-4, -5e-5, 1.0]])


def at(points: np.ndarray) -> Features:
    """Features at (N, 2) points x, y."""
    n = len(points)
    zeros = np.zeros(n)
    return Features(points[:, ::-1], zeros + 2, np.ones(n, int), np.zeros(n, int), zeros, zeros)


def through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(points[:, None], matrix)[:, 0]


def seen_by_two_cameras(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The projections (N, 2), (N, 2) of points in space, and the fundamental matrix."""
    points = np.column_stack([rng.uniform(-3, 3, (n, 2)), rng.uniform(4, 12, n)])
    camera = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    turn, _ = cv2.Rodrigues(np.array([0.05, -0.2, 0.03]))
    move = np.array([1.0, 0.1, 0.2])
    images = []
    for seen in (points @ camera.T, (points @ turn.T + move) @ camera.T):
        images.append(seen[:, :2] / seen[:, 2:])
    cross = np.cross(np.eye(3), move)
    inverse = np.linalg.inv(camera)
    return *images, inverse.T @ cross.T @ turn @ inverse


def pairs(n: int) -> np.ndarray:
    return np.column_stack([np.arange(n)] * 2)


def same_up_to_scale(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return min(np.abs(a - b).max(), np.abs(a + b).max()) < tolerance


def planted(model: str, n: int = 200, n_wrong: int = 60) -> tuple[Features, Features, np.ndarray, np.ndarray]:
    """Features of two views, the first `n_wrong` matches wrong by 20 px and more, and the true matrix."""
    rng = np.random.default_rng(5)
    if model == "homography":
        a, matrix = rng.uniform((0, 0), SIZE, (n, 2)), HOMOGRAPHY
        b = through(matrix, a)
    else:
        a, b, matrix = seen_by_two_cameras(rng, n)
    b[:n_wrong] += rng.choice((-1, 1), (n_wrong, 2)) * rng.uniform(20, 90, (n_wrong, 2))
    b += rng.normal(scale=0.1, size=b.shape)
    return at(a), at(b), pairs(n), matrix


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("asked", ["auto", "itself"])
def test_what_was_planted_is_found(model, asked):
    a, b, matches, matrix = planted(model)
    geometry = verify(a, b, matches, model=model if asked == "itself" else asked)
    assert geometry.model == model
    assert geometry.reason == ""
    assert geometry.inliers[60:].all()
    assert geometry.inliers[:60].sum() <= (0 if model == "homography" else 6)  # some wrong ones lie on their line
    if model == "homography":
        np.testing.assert_allclose(through(geometry.matrix, CORNERS), through(matrix, CORNERS), atol=0.2)
    else:
        assert same_up_to_scale(geometry.matrix, matrix, 2e-3)


def test_the_matrix_takes_x_y_of_the_first_image_to_the_second():
    a, b, matches, _ = planted("homography", n_wrong=0)
    matrix = verify(a, b, matches).matrix
    x, y = a.positions[7, ::-1]
    image = matrix @ (x, y, 1)
    np.testing.assert_allclose(image[:2] / image[2], b.positions[7, ::-1], atol=1)


@pytest.mark.parametrize("threshold", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("model", MODELS)
def test_inliers_are_within_the_threshold(model, threshold):
    a, b, matches, _ = planted(model)
    rng = np.random.default_rng(0)
    b = at(b.positions[:, ::-1] + rng.normal(scale=threshold / 2, size=(200, 2)))
    geometry = verify(a, b, matches, model=model, threshold=threshold)
    points_a, points_b = matched_points(a, b, matches)
    if model == "homography":
        off = np.linalg.norm(through(geometry.matrix, points_a) - points_b, axis=1)
    else:
        off = np.array(
            [
                cv2.sampsonDistance(np.array([*p, 1]), np.array([*q, 1]), geometry.matrix) ** 0.5
                for p, q in zip(points_a, points_b)
            ]
        )
    assert off[geometry.inliers].max() < threshold
    assert off[~geometry.inliers].min() > 0.9 * threshold


@given(st.integers(0, 2**32 - 1))
def test_the_same_matches_give_the_same_result(seed):
    a, b, matches, _ = planted("fundamental")
    cv2.setRNGSeed(seed % 2**31)
    first = verify(a, b, matches)
    again = verify(a, b, matches)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    np.testing.assert_array_equal(first.inliers, again.inliers)


@pytest.mark.parametrize("n", range(9))
@pytest.mark.parametrize("model", ["auto", *MODELS])
def test_few_matches_are_no_geometry(n, model):
    a = np.random.default_rng(1).uniform((0, 0), SIZE, (9, 2))
    geometry = verify(at(a), at(through(HOMOGRAPHY, a)), pairs(n), model=model)
    assert geometry.model is geometry.matrix is None
    assert geometry.inliers.shape == (n,)
    assert not geometry.inliers.any()
    assert f"got {n}" in geometry.reason or "15 are needed" in geometry.reason


def test_few_matches_suffice_on_request():
    a = np.random.default_rng(1).uniform((0, 0), SIZE, (9, 2))
    geometry = verify(at(a), at(through(HOMOGRAPHY, a)), pairs(9), min_inliers=9)
    assert geometry.model == "homography"
    np.testing.assert_allclose(through(geometry.matrix, CORNERS), through(HOMOGRAPHY, CORNERS), atol=0.01)


@pytest.mark.parametrize("model", ["auto", *MODELS])
@pytest.mark.parametrize("shape", ["a point", "a line", "noise"])
def test_degenerate_matches_do_not_crash(model, shape):
    rng = np.random.default_rng(2)
    a = rng.uniform((0, 0), SIZE, (40, 2))
    b = rng.uniform((0, 0), SIZE, (40, 2))
    if shape == "a point":
        a[:], b[:] = (5, 6), (7, 8)
    elif shape == "a line":
        a[:, 1] = b[:, 1] = 2 * a[:, 0]
    geometry = verify(at(a), at(b), pairs(40), model=model, threshold=1)
    assert (geometry.model is None) == (geometry.matrix is None) == bool(geometry.reason)
    if shape == "noise":
        assert geometry.model is None


@pytest.mark.parametrize("model", ["auto", *MODELS])
def test_equal_images_are_related_by_the_identity(model):
    a = np.random.default_rng(3).uniform((0, 0), SIZE, (100, 2))
    geometry = verify(at(a), at(a), pairs(100), model=model)
    assert geometry.inliers.all()
    if model != "fundamental":
        np.testing.assert_allclose(geometry.matrix, np.eye(3), atol=1e-9)


def test_a_photograph_and_its_warp(device):
    image = skimage.data.camera()
    warp = np.array([[0.8, 0.15, 30.0], [-0.1, 0.9, 60.0], [1e-4, 0, 1.0]])
    sift = SIFT(device=device)
    a, b = sift.compute(image), sift.compute(cv2.warpPerspective(image, warp, image.shape[::-1]))
    matches = match(a, b)
    geometry = verify(a, b, matches)
    assert geometry.model == "homography"
    assert geometry.inliers.mean() > 0.8
    np.testing.assert_allclose(through(geometry.matrix, CORNERS), through(warp, CORNERS), atol=1)


def test_a_stereo_pair_is_no_plane():
    left, right, _ = skimage.data.stereo_motorcycle()
    sift = SIFT(device="cpu")
    a, b = (sift.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (left, right))
    matches = match(a, b)
    geometry = verify(a, b, matches, threshold=2)
    assert geometry.model == "fundamental"
    assert geometry.inliers.sum() > 900
    # The pair is rectified: a point's line is its row.
    lines = np.column_stack([a.positions[:, ::-1], np.ones(len(a))]) @ geometry.matrix.T
    rows = -(lines[:, 0] * 370 + lines[:, 2]) / lines[:, 1]
    assert np.abs(rows - a.positions[:, 0]).max() < 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "affine"}, "model must be one of 'auto', 'homography', 'fundamental', got 'affine'"),
        ({"threshold": 0}, "threshold must be a positive number of pixels, got 0"),
        ({"threshold": float("nan")}, "threshold must be a positive number of pixels, got nan"),
        ({"matches": np.zeros((3, 3), int)}, r"matches must be \(Q, 2\) integers, got shape \(3, 3\)"),
        ({"matches": np.zeros((3, 2))}, r"matches must be \(Q, 2\) integers, got shape \(3, 2\) of float64"),
        ({"matches": np.array([[0, 200]])}, "features of 200 and 200 keypoints, got .* pass the features"),
        ({"matches": np.array([[-1, 2]])}, "features of 200 and 200 keypoints"),
    ],
)
def test_wrong_arguments(change, message):
    a, b, matches, _ = planted("homography")
    with pytest.raises(ValueError, match=message):
        verify(a, b, **({"matches": matches} | change))


def test_no_matches_at_all():
    empty = at(np.empty((0, 2)))
    for nothing in (np.empty((0, 2), int), np.empty((0, 2))):
        assert verify(empty, empty, nothing).model is None
