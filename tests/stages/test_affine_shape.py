"""Affine shapes of keypoints in given levels, and the orientations and descriptors of keypoints that have them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift import Features
from gpusift.devices import get_device
from gpusift.parameters import MAX_ELONGATION, Parameters
from gpusift.stages import affine_shape, descriptor, levels, orientation
from tests.support import oracle, shapes
from tests.support.keypoints import features_of

SHAPED = Parameters(affine_shape=True)


def in_octaves(device, octaves, keypoints, dtype):
    """The device, a scale space of these levels, and the keypoints as features."""
    device = get_device(device, dtype)
    space = levels.from_octaves(device, [octave.astype(dtype) for octave in octaves])
    features = features_of(device, keypoints, dtype)
    if keypoints.orientations is not None:
        features = replace(features, orientations=device.asarray(keypoints.orientations.astype(dtype)))
    return device, space, features


def in_level(device, level, position, sigma, dtype="float32"):
    """The shape of one keypoint, whose level this is; positions and sigma in its samples."""
    device = get_device(device, dtype)
    space = levels.from_octaves(device, [np.broadcast_to(level, (SHAPED.n_levels, *level.shape)).astype(dtype)])
    at = np.array([position], dtype) * SHAPED.delta_min
    reals, integers = np.zeros(1, dtype), np.zeros(1, np.int32)
    features = Features(at, np.array([sigma * SHAPED.delta_min], dtype), integers + 1, integers, reals, reals)
    (shape,) = affine_shape.estimate(device, space, _on(device, features), SHAPED).to_host().affine_shapes
    return shape.astype(float)


def _on(device, features):
    return Features(**{name: device.asarray(array) for name, array in features.arrays().items()})


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def stretched(elongation, angle):
    """The shape whose longer axis lies at this angle from the rows' axis."""
    return rotation(angle) @ np.diag([elongation, 1]) @ rotation(angle).T


def ring(shape, position, width, size=121):
    """A level: a blob with a ring around it, circular in the normalized coordinates of a shape."""
    away = np.indices((size, size)) - np.array(position)[:, None, None]
    r = np.linalg.norm(np.einsum("ij,jrc->irc", np.linalg.inv(shape), away), axis=0) / width
    return np.exp(-(r**2) / 2) * np.cos(2 * r)


@settings(max_examples=25)
@given(st.floats(1, 3), st.floats(0, np.pi), st.floats(58, 62), st.floats(58, 62), st.floats(2, 4))
def test_the_shape_of_a_pattern_that_an_affine_map_stretches(elongation, angle, row, col, sigma):
    true = stretched(elongation, angle)
    found = in_level("cpu", ring(true, (row, col), 1.5 * sigma), (row, col), sigma)
    np.testing.assert_allclose(found, true, atol=0.12 * elongation)


@settings(max_examples=20)
@given(st.floats(58, 62), st.floats(58, 62), st.floats(2, 5))
def test_a_circular_pattern_has_the_identity(row, col, sigma):
    found = in_level("cpu", ring(np.eye(2), (row, col), sigma), (row, col), sigma)
    np.testing.assert_allclose(found, np.eye(2), atol=0.02)


@pytest.mark.parametrize("level", [np.zeros((80, 80)), np.full((80, 80), 0.7), np.eye(80)[:1].repeat(80, 0) * 0 + 0.2])
def test_a_flat_level_has_the_identity(device, level):
    np.testing.assert_array_equal(in_level(device, level, (40.3, 39.8), 3), np.eye(2))


def test_an_edge_has_the_identity(device):
    """Any length of it looks the same."""
    edge = np.broadcast_to(1 / (1 + np.exp(-(np.arange(90) - 44.6) / 2)), (90, 90))
    np.testing.assert_array_equal(in_level(device, edge, (45.2, 44.6), 3), np.eye(2))
    np.testing.assert_array_equal(in_level(device, edge.T, (44.6, 45.2), 3), np.eye(2))


@pytest.mark.parametrize("place", [(0.2, 0.4), (119.9, 60), (3, 118), (-30, 60), (60, 500)])
def test_windows_beyond_the_borders(device, place):
    rng = np.random.default_rng(3)
    found = in_level(device, rng.random((121, 121)), place, 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.eigvalsh(found)[0], 1, rtol=1e-5)
    assert np.linalg.eigvalsh(found)[1] <= MAX_ELONGATION * (1 + 1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["camera", "brick", "text"])
def test_photographs(device, name, dtype):
    run = oracle.run(oracle.photograph(name)).rounded(dtype)
    device, space, features = in_octaves(device, run.octaves, run.refined, dtype)
    found = affine_shape.estimate(device, space, features, SHAPED).to_host().affine_shapes
    expected = shapes.estimate(run.octaves, run.refined, SHAPED)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    wrong = np.abs(found - expected).max(axis=(1, 2)) > (1e-6 if dtype == "float64" else 5e-3)
    assert wrong.mean() <= (0 if dtype == "float64" else 0.01)  # at the limit of the elongation, rounding decides
    elongations = np.linalg.eigvalsh(expected)[:, 1]
    assert np.median(elongations) > 1.2
    assert (elongations > 3).any()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", [{}, {"pooling": (0.5, 1, 2)}, {"normalization": "root", "n_hist": 3, "n_ori": 5}])
def test_descriptors(device, options, dtype):
    parameters = Parameters(affine_shape=True, **options)
    run = oracle.run(oracle.photograph("coins")[:140, :160]).rounded(dtype)
    device, space, features = in_octaves(device, run.octaves, run.oriented, dtype)
    features = affine_shape.estimate(device, space, features, parameters)
    ours = device.to_host(descriptor.describe(device, space, features, parameters))
    given_shapes = features.to_host().affine_shapes.astype(float)
    off = np.abs(ours.astype(int) - shapes.describe(run.octaves, run.oriented, given_shapes, parameters))
    limits = oracle.LIMITS["bytes", dtype]
    assert len(off) > 50
    assert (off > 0).mean() <= limits.descriptor_differs
    assert (off > 1).mean() <= limits.descriptor_off


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_circles_give_what_keypoints_without_shapes_have(device, dtype):
    run = oracle.run(oracle.photograph("coins")).rounded(dtype)
    device, space, features = in_octaves(device, run.octaves, run.refined, dtype)
    circles = device.asarray(np.broadcast_to(np.eye(2, dtype=dtype), (len(features), 2, 2)).copy())
    plain, shaped = (
        orientation.assign(device, space, replace(features, affine_shapes=some), parameters)
        for some, parameters in ((None, Parameters()), (circles, SHAPED))
    )
    # a patch without a shape is rounded to whole samples
    np.testing.assert_allclose(plain.to_host().orientations, shaped.to_host().orientations, atol=0.03)
    same = replace(shaped, orientations=plain.orientations)
    off = np.abs(
        device.to_host(descriptor.describe(device, space, plain, Parameters())).astype(int)
        - device.to_host(descriptor.describe(device, space, same, SHAPED))
    )
    assert off.max() <= 1
    assert (off > 0).mean() < 0.005


def test_orientations_are_those_of_normalized_coordinates(device):
    """A pattern that is turned in normalized coordinates has orientations that are turned as much."""
    true, angles = stretched(1.8, 0.4), np.linspace(-2.5, 2.5, 6)
    found = []
    for angle in angles:
        u = rotation(angle).T @ np.linalg.inv(true) @ (np.indices((121, 121)).reshape(2, -1) - 60)
        level = (np.exp(-(u**2).sum(axis=0) / 72) * (1 + 0.3 * u[0])).reshape(121, 121)
        levels_of_octave = np.broadcast_to(level, (SHAPED.n_levels, 121, 121))
        keypoint = oracle.Keypoints.of(
            Features(
                np.full((1, 2), 30.0), np.full(1, 2.0), np.ones(1, int), np.zeros(1, int), np.zeros(1), np.zeros(1)
            )
        )
        used, space, features = in_octaves(device, [levels_of_octave], keypoint, "float32")
        features = replace(features, affine_shapes=used.asarray(true[None].astype(np.float32)))
        oriented = orientation.assign(
            used, space, features, replace(SHAPED, max_orientations=1, descriptor_layout="ubc")
        )
        found.append(oriented.to_host().orientations[0])
    turned = np.angle(np.exp(1j * (np.array(found) - found[0] - (angles - angles[0]))))
    assert np.abs(turned).max() < 0.02


def test_no_keypoints(device):
    nothing = oracle.run(oracle.photograph("coins")).refined[:0]
    device, space, features = in_octaves(device, [np.zeros((SHAPED.n_levels, 20, 20))], nothing, "float32")
    assert affine_shape.estimate(device, space, features, SHAPED).to_host().affine_shapes.shape == (0, 2, 2)
