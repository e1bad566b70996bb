"""Affine shapes, and what follows from them, in NumPy from given levels: the oracle of `SIFT(affine_shape=True)`."""

import numpy as np

from gpusift.parameters import MAX_ELONGATION, SHAPE_TURNS, SHAPE_WINDOW, Parameters
from tests.support import pooling


def estimate(octaves, keypoints, parameters: Parameters) -> np.ndarray:
    """(N, 2, 2) the shapes of keypoints.

    Parameters
    ----------
    octaves : list of (n_levels, rows, cols) arrays
        The levels.
    keypoints : oracle.Keypoints
        Their orientations are not used.
    """
    slopes = [[np.gradient(level) for level in levels] for levels in octaves]
    deltas = parameters.delta_min * 2.0**keypoints.octaves
    return np.array(
        [
            _estimate(slopes[octave][scale], *(position / delta), sigma / delta)
            for octave, scale, position, sigma, delta in zip(
                keypoints.octaves, keypoints.scales, keypoints.positions, keypoints.sigmas, deltas, strict=True
            )
        ]
    ).reshape(-1, 2, 2)


def _estimate(slope, row, col, sigma) -> np.ndarray:
    shape, spread = np.eye(2), SHAPE_WINDOW * sigma
    for _ in range(SHAPE_TURNS):
        u, by_row, by_col = samples(slope, row, col, shape, 3 * spread, includes_end=True)
        slopes, weights = np.stack([by_row, by_col]), np.exp(-(u**2).sum(axis=0) / (2 * spread**2))
        values, vectors = np.linalg.eigh((weights * slopes) @ slopes.T)
        if not values[1] > 0:
            return shape
        if values[1] > MAX_ELONGATION**2 * values[0]:
            break
        axes = np.sqrt(values[1] / values)  # of the eigenvectors
        shape = (vectors * axes) @ vectors.T
    return shape


def samples(slope, row, col, shape, half, turn=0.0, includes_end=False):
    """The samples of a window: (2, n) normalized coordinates, turned back by `turn`, and gradients by row and col."""
    cosine, sine = np.cos(turn), np.sin(turn)
    turned = shape @ np.array([[cosine, -sine], [sine, cosine]])
    ranges = []
    for centre, reach, side in zip((row, col), half * np.abs(turned).sum(axis=1) + 1, slope[0].shape):
        first, last = np.trunc(np.array([centre - reach, centre + reach]) + 0.5)
        ranges.append(np.arange(max(0, first), min(last, side - 1) + includes_end).astype(int))
    rows, cols = (axis.ravel() for axis in np.meshgrid(*ranges, indexing="ij"))
    u = np.linalg.inv(turned) @ np.stack([rows - row, cols - col])
    inside = np.abs(u).max(axis=0) < half
    rows, cols = rows[inside], cols[inside]
    return u[:, inside], slope[0][rows, cols], slope[1][rows, cols]


def describe(octaves, keypoints, shapes, parameters: Parameters) -> np.ndarray:
    """The descriptors of keypoints with shapes and orientations, in scikit-image's layout."""
    slopes_of = [[np.gradient(level) for level in levels] for levels in octaves]
    descriptors = []
    for i, shape in enumerate(shapes):
        total = np.zeros(parameters.n_values)
        for octave, scale, row, col, sigma, turn in pooling.windows(keypoints, i, len(octaves), parameters):
            half = parameters.lambda_descr * (1 + 1 / parameters.n_hist) * sigma
            u, *slopes = samples(slopes_of[octave][scale], row, col, shape, half, turn)
            window = pooling.histograms_of(*(shape @ np.array(slopes)), *u, sigma, turn, parameters)
            total += window / (window.sum() or 1)
        descriptors.append(pooling.quantized(total, parameters))
    return np.array(descriptors, np.uint8).reshape(-1, parameters.n_values)
