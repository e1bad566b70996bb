"""The alignment of templates in NumPy and float64, as kernels/alignment.cu does it; and an alignment to be hashed."""

import hashlib
from dataclasses import replace

import numpy as np

from gpusift.features import Features
from gpusift.matching import alignment
from gpusift.parameters import Parameters
from gpusift.stages import scale_space
from tests.support.same_bytes import synthetic

SIDE = 17
MARGIN = 0.5  # sigmas
OFFSETS = (np.arange(SIDE) - SIDE // 2) * alignment.SPACING
U = np.stack(np.meshgrid(OFFSETS, OFFSETS, indexing="ij"), axis=-1).reshape(-1, 2)  # row, column; sigmas
GAUSSIAN = np.exp(-((U / alignment.SPACING) ** 2).sum(axis=1) / (2 * 4.0**2))
CIRCLES = (np.eye(2), np.eye(2))


def interpolated(level, points):
    """Values of a level at (N, 2) points, and their derivatives by row and column, by bilinear interpolation."""
    points = np.clip(points, 0, np.array(level.shape) - 1)
    row, col = np.minimum(points.astype(int), np.array(level.shape) - 2).T
    down, right = points.T - (row, col)
    a, b, c, d = level[row, col], level[row, col + 1], level[row + 1, col], level[row + 1, col + 1]
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper), np.stack((lower - upper, b - a + down * (d - c - b + a)), axis=-1)


def inside(level, points, margin):
    """Whether (N, 2) points lie within a level, a margin away from its border."""
    return ((points >= margin) & (points <= np.array(level.shape) - 1 - margin)).all(axis=1)


def normalized(values, weights):
    """Values with weighted mean 0 and variance 1, and the standard deviation that they had."""
    values = values - weights @ values
    deviation = np.sqrt(weights @ values**2)
    return values / deviation, deviation


def align(level_a, level_b, first, second, shapes=CIRCLES):
    """Aligns one keypoint's surroundings with another's.

    Each keypoint is (row, column, sigma, orientation), in samples of its level and radians. `shapes` are their affine
    shapes.

    Returns the row and column of the first keypoint in the second level, the matrix from sigmas of the first to samples
    of the second, and the correlation.
    """
    turn = second[3] - first[3]
    matrix = second[2] * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = shapes[1] @ matrix @ np.linalg.inv(shapes[0])
    position = np.array(second[:2], float)
    weights = GAUSSIAN * inside(level_a, first[:2] + first[2] * U, MARGIN * first[2])
    weights = weights * inside(level_b, position + U @ matrix.T, MARGIN * second[2])
    weights /= weights.sum()
    values, gradients = interpolated(level_a, first[:2] + first[2] * U)
    pattern, deviation = normalized(values, weights)
    gradients = gradients * first[2] / deviation
    jacobian = np.column_stack((gradients, gradients[:, :1] * U, gradients[:, 1:] * U))
    jacobian = jacobian - weights @ jacobian - np.outer(pattern, (weights * pattern) @ jacobian)
    hessian = jacobian.T @ (weights[:, None] * jacobian)
    for _ in range(alignment.N_STEPS):
        patch, _ = normalized(interpolated(level_b, position + U @ matrix.T)[0], weights)
        step = np.linalg.solve(hessian, jacobian.T @ (weights * (patch - pattern)))
        matrix = matrix @ np.linalg.inv(np.eye(2) + step[2:].reshape(2, 2))
        position = position - matrix @ step[:2]
    patch, _ = normalized(interpolated(level_b, position + U @ matrix.T)[0], weights)
    return position, matrix, weights @ (patch * pattern)


def keypoints(rows, cols, sigmas, orientations, scales, dtype):
    """Features of one octave without descriptors."""
    positions = np.column_stack((rows, cols)).astype(dtype)
    octaves = np.ones(len(positions), np.int32)
    reals = (np.asarray(each, dtype) for each in (sigmas, orientations, np.ones(len(positions))))
    sigmas, orientations, responses = reals
    return Features(positions, sigmas, np.asarray(scales, np.int32), octaves, orientations, responses)


def digest(device, *, shaped: bool = False) -> str:
    """SHA-256 of the alignment of a small image with itself, from keypoints that are moved and turned a little.

    With `shaped` they have affine shapes, which differ a little too.
    """
    image, parameters = synthetic(40, 52, seed=5), Parameters(n_octaves=2)
    sigmas, scales = [1.5, 1.25, 1.5, 1.5], [1, 2, 1, 1]
    first = keypoints([18, 20.5, 2, 4], [24, 30.25, 3, 20], sigmas, [0.5, -1, 0, 0], scales, device.dtype)
    sigmas = [1.6, 1.2, 1.5, 1.5]
    second = keypoints([18.5, 20, 2, 4.25], [24.25, 30.5, 3, 20], sigmas, [0.6, -1.1, 0, 0], scales, device.dtype)
    if shaped:
        shapes = np.broadcast_to([[1.2, 0.1], [0.1, 1.05]], (4, 2, 2)), np.broadcast_to([[1.3, 0], [0, 1]], (4, 2, 2))
        first, second = (replace(each, affine_shapes=some) for each, some in zip((first, second), shapes, strict=True))
    with device.active():
        space = scale_space.build(device, device.asarray(image), parameters)
        templates = alignment.sample(device, space, on_device(device, first), parameters)
        found = alignment.align(device, space, templates, on_device(device, second), parameters)
        arrays = [device.to_host(each) for each in (found.positions, found.maps, found.correlations, found.aligned)]
    assert list(arrays[3]) == [True, True, False, True]  # a corner, and near a side
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def on_device(device, features):
    """The same features as arrays of a device, reals in its precision."""
    return features._map(lambda array: device.asarray(array, device.dtype if array.dtype.kind == "f" else array.dtype))
