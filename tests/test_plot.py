"""Drawing: circles and ellipses at the keypoints, with their size and orientation; lines between matches."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from gpusift import SIFT, Features
from gpusift.plot import (
    BACKGROUND,
    CAPTION_HEIGHT,
    GAP,
    OCTAVE_COLOURS,
    RADIUS,
    draw_keypoints,
    draw_matches,
    write_png,
)


def keypoints(*rows: tuple[float, float, float, float, int]) -> Features:
    """Features from (row, column, sigma, orientation, octave)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    octaves = table[:, 4].astype(np.int32)
    return Features(table[:, :2], table[:, 2], octaves + 1, octaves, table[:, 3], np.zeros(len(table)))


def is_drawn(picture: np.ndarray, row: float, col: float, octave: int) -> bool:
    """Whether the nearest pixel has (nearly) the octave's colour."""
    pixel = picture[round(row), round(col)].astype(int)
    return bool(np.abs(pixel - OCTAVE_COLOURS[octave]).max() < 60)


@pytest.mark.parametrize("zoom", [1, 3])
@pytest.mark.parametrize("orientation", np.deg2rad([0, 90, -135, 30]))
def test_circle_and_line(zoom, orientation):
    row, col, sigma = 40.25, 70.5, 20 / RADIUS
    features = keypoints((row, col, sigma, orientation, 2))
    picture = draw_keypoints(np.full((100, 150), 50, np.uint8), features, zoom=zoom)
    assert picture.shape == (100 * zoom, 150 * zoom, 3)
    assert picture.dtype == np.uint8
    # Pixel centres of the photograph and of the enlarged picture.
    centre = (np.array([row, col]) + 0.5) * zoom - 0.5
    for angle in np.arange(0, 2 * np.pi, 0.3):
        direction = np.array([np.cos(angle), np.sin(angle)])
        assert is_drawn(picture, *(centre + 20 * zoom * direction), octave=2)
        assert not is_drawn(picture, *(centre + 24 * zoom * direction), octave=2)
    direction = np.array([np.cos(orientation), np.sin(orientation)])
    assert is_drawn(picture, *(centre + 10 * zoom * direction), octave=2)
    assert not is_drawn(picture, *(centre - 10 * zoom * direction), octave=2)


def test_an_affine_shape_is_an_ellipse():
    shape = np.array([[1.6, 0.8], [0.8, 1.9]])
    orientation = 0.7
    features = replace(keypoints((60.25, 70.5, 15 / RADIUS, orientation, 2)), affine_shapes=shape[None])
    picture = draw_keypoints(np.full((120, 150), 50, np.uint8), features)
    for angle in np.arange(0, 2 * np.pi, 0.3):
        direction = shape @ [np.cos(angle), np.sin(angle)]
        assert is_drawn(picture, *([60.25, 70.5] + 15 * direction), octave=2)
        assert not is_drawn(picture, *([60.25, 70.5] + 19 * direction), octave=2)
    direction = shape @ [np.cos(orientation), np.sin(orientation)]
    assert is_drawn(picture, *([60.25, 70.5] + 8 * direction), octave=2)
    assert not is_drawn(picture, *([60.25, 70.5] - 8 * direction), octave=2)


def test_small_circles_are_drawn_over_large_ones():
    features = keypoints((50, 50, 2, 0, 0), (50, 50 - 30 + 2 * RADIUS, 30 / RADIUS, 0, 5))
    picture = draw_keypoints(np.zeros((100, 100), np.uint8), features)
    small_alone = draw_keypoints(np.zeros((100, 100), np.uint8), features[:1])
    brightest = np.unravel_index(small_alone[..., 2].argmax(), small_alone.shape[:2])
    np.testing.assert_array_equal(picture[brightest] >= 0.9 * small_alone[brightest], [True, True, True])


def test_a_circle_may_leave_the_picture():
    picture = draw_keypoints(np.zeros((40, 50), np.uint8), keypoints((2, 3, 30, 1, 0), (-5, 60, 9, 1, 1)))
    assert picture.shape == (40, 50, 3)
    assert picture.any()


def test_no_keypoints():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = draw_keypoints(image, keypoints(), dim=1)
    np.testing.assert_array_equal(picture, np.stack([image] * 3, axis=-1))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 32768, 65535]], np.uint16), [0, 127, 255]),
        (np.array([[-5, 0, 32767]], np.int16), [0, 0, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
        (np.array([[-1.0, 0.0, 3.0]], np.float32), [0, 63, 255]),
        (np.array([[7.0, 7.0, 7.0]]), [0, 0, 0]),
    ],
)
def test_grey_of_any_depth(image, expected):
    picture = draw_keypoints(image, keypoints(), dim=1)
    np.testing.assert_allclose(picture[0, :, 0], expected, atol=1)


def at(*points: tuple[float, float]) -> Features:
    """Features at (row, column)."""
    return keypoints(*((*point, 2, 0, 0) for point in points))


def is_coloured(picture: np.ndarray, row: float, col: float) -> bool:
    pixel = picture[round(row), round(col)].astype(int)
    return bool(np.ptp(pixel) > 60)


# A wide photograph of 60 x 100 and a high one of 90 x 40, shown twice as large.
WIDE, HIGH = np.full((60, 100), 90, np.uint8), np.full((90, 40), 200, np.uint8)
WIDTH = 2 * 140 + GAP


def test_photographs_are_side_by_side():
    picture = draw_matches(WIDE, HIGH, at(), at(), np.empty((0, 2), int), width=WIDTH, dim=1)
    assert picture.shape == (180 + CAPTION_HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert (picture[:120, :200] == 90).all()
    assert (picture[:180, 200 + GAP :] == 200).all()
    assert (picture[120:180, : 200 + GAP] == BACKGROUND).all()
    assert (picture[:120, 200 : 200 + GAP] == BACKGROUND).all()
    assert (picture[180:] > 200).any()  # the caption


@pytest.mark.parametrize("width", [WIDTH, GAP + 70])
def test_lines_join_what_matches(width):
    a, b = at((10.25, 20), (50, 80)), at((30, 5), (80, 30), (70, 10))
    picture = draw_matches(WIDE, HIGH, a, b, np.array([[0, 2], [1, 1]]), width=width)
    scale = (width - GAP) / 140
    for start, end in (((10.25, 20), (70, 10)), ((50, 80), (80, 30))):
        start = (np.array(start) + 0.5) * scale - 0.5
        end = (np.array(end) + 0.5) * scale - 0.5 + (0, 100 * scale + GAP)
        for share in (0, 0.3, 0.5, 0.8, 1):
            assert is_coloured(picture, *(start + share * (end - start)))
    unmatched = picture[round(30.5 * scale - 0.5), round(5.5 * scale - 0.5 + 100 * scale + GAP)].astype(int)
    assert np.ptp(unmatched) < 5
    assert unmatched[0] > 0.7 * 200 + 15  # a faint point
    assert not is_coloured(picture, 5, 5)


def test_colour_shows_the_displacement():
    a, b = at((10, 10), (20, 10), (30, 10), (40, 10)), at((10, 10), (20, 20), (30, 20), (40, 30))
    picture = draw_matches(WIDE, WIDE, a, b, np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), width=GAP + 200)
    colours = np.array([picture[row, 10] for row in (10, 20, 30, 40)]).astype(int)
    assert colours[0].argmax() == 2  # blue: not displaced
    np.testing.assert_array_equal(colours[1], colours[2])
    assert colours[3].argmax() == 0  # red: displaced the most
    np.testing.assert_array_equal(picture[40, 100 + GAP + 30], colours[3])


def test_outliers_are_faint():
    a, b = at((10, 10), (30, 10)), at((10, 10), (30, 10))
    matches = np.array([[0, 0], [1, 1]])
    picture = draw_matches(WIDE, WIDE, a, b, matches, np.array([True, False]), width=GAP + 200)
    middle = [picture[row, 70].astype(int) for row in (10, 30)]
    assert np.ptp(middle[0]) > 60
    assert np.ptp(middle[1]) < 5
    assert 0.7 * 90 + 10 < middle[1][0] < 160


def test_the_number_of_lines_is_limited_and_they_are_evenly_chosen():
    rows, cols = (grid.ravel() for grid in np.mgrid[5:95:30j, 5:45:10j])
    crowded = at(*zip(rows.tolist(), cols.tolist()), *[(50.0, 20.0 + i / 100) for i in range(300)])
    image = np.zeros((100, 50), np.uint8)
    matches = np.column_stack([np.arange(len(crowded))] * 2)
    few, none = (draw_matches(image, image, crowded, crowded, matches, width=400 + GAP, max_lines=n) for n in (10, 0))
    in_gap = [(picture[:400, 200 : 200 + GAP].max(axis=2) > BACKGROUND + 20).any(axis=1) for picture in (few, none)]
    starts = np.flatnonzero(np.diff(in_gap[0].astype(int)) == 1)
    assert 5 <= len(starts) <= 10
    assert starts.min() < 100
    assert starts.max() > 300
    assert not in_gap[1].any()


def test_small_and_narrow_photographs():
    thin, dot = np.zeros((1, 3000), np.uint8), np.zeros((1, 1), np.uint8)
    assert draw_matches(thin, thin, at(), at(), np.empty((0, 2), int), width=500).shape[1] <= 502
    assert draw_matches(dot, dot, at((0, 0)), at((0, 0)), np.array([[0, 0]])).shape == (4 + CAPTION_HEIGHT, 8 + GAP, 3)


def test_matches_on_the_device_are_drawn_too(device):
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    features = SIFT(device=device).compute(image)
    matches = np.column_stack([np.arange(len(features))] * 2)
    pictures = [draw_matches(image, image, f, f, matches) for f in (features, features.to_host())]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize("inliers", [np.ones(3, bool), np.ones(2, int), np.ones((2, 1), bool)])
def test_inliers_are_one_bool_a_match(inliers):
    with pytest.raises(ValueError, match="inliers must be 2 bools, one a match, got "):
        draw_matches(WIDE, HIGH, at((1, 1), (2, 2)), at((1, 1), (2, 2)), np.array([[0, 0], [1, 1]]), inliers)


def test_matches_must_be_of_these_features():
    with pytest.raises(ValueError, match="features of 1 and 1 keypoints"):
        draw_matches(WIDE, HIGH, at((1, 1)), at((1, 1)), np.array([[0, 1]]))


def test_photographs_are_grey():
    colour = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match=r"image must be \(M, N\) grey values, got shape \(20, 30, 3\)"):
        draw_keypoints(colour, at())
    with pytest.raises(ValueError, match=r"image must be \(M, N\) grey values"):
        draw_matches(WIDE, colour, at(), at(), np.empty((0, 2), int))


def test_a_picture_has_some_width():
    with pytest.raises(ValueError, match="width must be at least 64 pixels, got 12"):
        draw_matches(WIDE, HIGH, at(), at(), np.empty((0, 2), int), width=12)


def test_png(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    write_png(tmp_path / "s" / "ü.png", picture)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["ü.png"]
    read = cv2.imdecode(np.fromfile(tmp_path / "s" / "ü.png", np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[..., ::-1], picture)
