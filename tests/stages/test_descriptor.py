"""Descriptors of the oracle's keypoints in the oracle's scale space."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.devices import get_device
from gpusift.parameters import Parameters
from gpusift.stages import descriptor, levels
from tests.support import oracle, pooling
from tests.support.keypoints import assigned, features_of
from tests.support.oracle import Keypoints, compare


def described(device, run, keypoints, parameters, dtype):
    device = get_device(device, dtype)
    space = levels.from_octaves(device, [octave.astype(dtype) for octave in run.octaves])
    features = replace(
        features_of(device, keypoints, dtype),
        orientations=device.asarray(keypoints.orientations.astype(dtype)),
    )
    descriptors = device.to_host(descriptor.describe(device, space, features, parameters))
    assert descriptors.dtype == np.uint8
    assert descriptors.shape == (len(keypoints), parameters.n_hist**2 * parameters.n_ori)
    return descriptors


def check(device, image, dtype, **options):
    run = oracle.run(image, **options).rounded(dtype)
    descriptors = described(device, run, run.oriented, Parameters(**options), dtype)
    ours = replace(run.oriented, descriptors=descriptors)
    compare(ours, run.described, options.get("upsampling", 2)).check(dtype, run)
    return descriptors


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["camera", "brick", "grass", "text", "coffee"])
def test_photographs(device, name, dtype):
    assert len(check(device, oracle.photograph(name), dtype)) > 100


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        *({"n_hist": n} for n in (1, 2, 3, 5, 6)),
        *({"n_ori": n} for n in (1, 2, 4, 7, 12)),
        {"n_hist": 6, "n_ori": 12},
        {"lambda_descr": 1},
        {"lambda_descr": 15},
        {"upsampling": 1},
        {"upsampling": 4, "sigma_in": 0.3},
        {"n_scales": 1},
        {"n_scales": 6},
    ],
    ids=str,
)
def test_parameters(device, options, dtype):
    assert len(check(device, oracle.photograph("coins")[:140, :160], dtype, **options)) > 10


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(13, 200), (200, 12), (31, 17), (97, 61)])
def test_patches_beyond_the_borders(device, shape, dtype):
    rows, cols = shape
    image = oracle.photograph("gravel")[20 : 20 + rows, 30 : 30 + cols]
    check(device, image, dtype, c_dog=0.001, lambda_descr=9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_direction(device, dtype):
    """One keypoint turned through a full circle, the ends of the range among the angles."""
    run = oracle.run(oracle.photograph("coins")).rounded(dtype)
    angles = np.concatenate([np.linspace(-np.pi, np.pi, 97), [0.0, np.pi / 2, -np.pi / 2]])
    keypoints = run.oriented[np.full(len(angles), 40)]
    keypoints = replace(keypoints, orientations=angles.astype(dtype).astype(float))
    ours = described(device, run, keypoints, Parameters(), dtype)
    theirs = run.describe(keypoints).descriptors
    off = np.abs(ours.astype(int) - theirs)
    limits = oracle.LIMITS["bytes", dtype]
    assert (off > 0).mean() <= limits.descriptor_differs
    assert (off > 1).mean() <= limits.descriptor_off


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("row", range(8))
def test_the_steepest_row_is_found_wherever_it_is(device, row, dtype):
    """Sums are scaled by a bound that a part of the rows gives; a steep one between them must not overflow them."""
    rows, cols = np.mgrid[:64, :60]
    level = 1e-3 * np.sin(rows / 9) * np.cos(cols / 7)  # gentle all over
    level[30 + row, 20:40] += np.linspace(0, 50, 20)  # and one row that is not
    run = oracle.Oracle(oracle.run(np.eye(20)).sift, [np.stack([level] * 6)], (32, 30)).rounded(dtype)
    keypoints = Keypoints(np.array([[16.2, 15.1]]), np.array([1.1]), np.array([1]), np.array([0]), np.array([0.4]))
    ours = described(device, run, keypoints, Parameters(), dtype)
    theirs = run.describe(keypoints).descriptors
    assert theirs.any()
    assert np.abs(ours.astype(int) - theirs).max() <= (0 if dtype == "float64" else 1)
    oriented = assigned(device, run, keypoints, Parameters(), dtype)
    np.testing.assert_allclose(oriented.orientations, run.orient(keypoints).orientations, atol=1e-4)


def test_no_keypoints(device):
    run = oracle.run(np.eye(20))
    none = Keypoints(np.empty((0, 2)), *(np.empty(0),) * 4)
    described(device, run, none, Parameters(n_hist=3, n_ori=5), "float64")


# Pooling

FIVE = (0.5, 2**-0.5, 1, 2**0.5, 2)


def check_pooled(device, image, dtype, parameters, keypoints=None, **options):
    run = oracle.run(image, **options).rounded(dtype)
    keypoints = run.oriented if keypoints is None else keypoints
    ours = described(device, run, keypoints, parameters, dtype)
    theirs = pooling.describe(run.octaves, keypoints, parameters)
    off = np.abs(ours.astype(int) - theirs)
    limits = oracle.LIMITS["bytes", dtype]
    assert (off > 0).mean() <= limits.descriptor_differs
    assert (off > 1).mean() <= limits.descriptor_off
    return ours


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_oracle_of_pooling_gives_scikit_images_plain_descriptors(device, dtype):
    check_pooled(device, oracle.photograph("coins"), dtype, Parameters())
    run = oracle.run(oracle.photograph("coins"))
    off = np.abs(pooling.describe(run.octaves, run.oriented, Parameters()).astype(int) - run.described.descriptors)
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("options", "ours"),
    [
        ({}, {"pooling": FIVE}),
        ({}, {"pooling": tuple(np.linspace(1 / 6, 3, 10)), "normalization": "root"}),
        ({}, {"pooling": (16, 1 / 16)}),
        ({"n_octaves": 1}, {"pooling": (0.5, 3)}),
        ({"n_scales": 1}, {"pooling": FIVE}),
        ({"n_scales": 2, "n_hist": 3, "n_ori": 5}, {"pooling": FIVE}),
        ({"n_scales": 5, "upsampling": 1}, {"pooling": (0.7, 1.9)}),
    ],
    ids=str,
)
def test_pooled_descriptors(device, options, ours, dtype):
    image = oracle.photograph("coins")[:140, :160]
    assert len(check_pooled(device, image, dtype, Parameters(**options, **ours), **options)) > 10


@given(
    st.lists(st.floats(1 / 16, 16), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(0, 3),
    st.floats(-3, 45),
    st.floats(-3, 45),
    st.floats(0.3, 9),
    st.floats(-np.pi, np.pi),
    st.data(),
)
def test_pooled_descriptors_of_any_keypoint(factors, n_scales, octave, row, col, sigma, orientation, data):
    options = {"n_scales": n_scales}
    image = oracle.photograph("coins")[40:82, 60:102]
    run = oracle.run(image, **options).rounded("float64")
    octave = min(octave, len(run.octaves) - 1)
    scale = data.draw(st.integers(0, n_scales + 2))
    keypoint = Keypoints(
        np.array([[row, col]]), np.array([sigma]), np.array([scale]), np.array([octave]), np.array([orientation])
    )
    parameters = Parameters(**options, pooling=tuple(factors), normalization="root")
    ours = described("cpu", run, keypoint, parameters, "float64")
    assert np.abs(ours.astype(int) - pooling.describe(run.octaves, keypoint, parameters)).max() <= 1


def test_pooled_descriptors_of_flat_windows_are_zero(device):
    run = oracle.run(np.eye(20))
    flat = oracle.Oracle(run.sift, [np.full_like(octave, 0.3) for octave in run.octaves], (20, 20))
    keypoints = Keypoints(np.array([[9.0, 8.0]]), np.array([1.1]), np.array([1]), np.array([0]), np.array([0.4]))
    assert not described(device, flat, keypoints, Parameters(pooling=FIVE), "float32").any()


@pytest.mark.parametrize("factors", [FIVE, tuple(np.linspace(0.5, 2, 5))])
@pytest.mark.parametrize("options", [{}, {"c_dog": 0.02 / 3, "n_octaves": 4}], ids=["default", "COLMAP's"])
def test_pooling_over_five_sizes_takes_at_most_three_times_the_samples(options, factors):
    run = oracle.run(oracle.photograph("motorcycle"), **options)
    counts = [pooling.n_samples(run.octaves, run.oriented, Parameters(**options, pooling=p)) for p in (None, factors)]
    assert 1.5 * counts[0] < counts[1] <= 3 * counts[0]
