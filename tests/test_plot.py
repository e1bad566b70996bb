"""Drawing: circles where the keypoints are, of their size, turned as they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gpusift import Features
from gpusift.plot import OCTAVE_COLOURS, RADIUS, draw_keypoints, write_png


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


def test_png(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    write_png(tmp_path / "s" / "ü.png", picture)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["ü.png"]
    read = cv2.imdecode(np.fromfile(tmp_path / "s" / "ü.png", np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[..., ::-1], picture)
