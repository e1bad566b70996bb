"""Orientations of the oracle's keypoints in the oracle's scale space."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpusift.parameters import Parameters
from tests.support import oracle
from tests.support.keypoints import assigned
from tests.support.oracle import Keypoints, compare


def check(device, image, dtype, **options):
    run = oracle.run(image, **options).rounded(dtype)
    features = assigned(device, run, run.refined, Parameters(**options), dtype)
    agreement = compare(Keypoints.of(features), run.oriented, options.get("upsampling", 2))
    agreement.check(dtype, run)
    # What was known of a keypoint is kept, also of those that are there again.
    rank = features.responses.astype(int)
    assert_array_equal(rank[: len(run.refined)], np.arange(len(run.refined)))
    assert_array_equal(features.positions, run.refined.positions.astype(dtype)[rank])
    assert_array_equal(features.sigmas, run.refined.sigmas.astype(dtype)[rank])
    assert_array_equal(features.scales, run.refined.scales[rank])
    assert_array_equal(features.octaves, run.refined.octaves[rank])
    assert (np.diff(rank[len(run.refined) :]) >= 0).all()
    if dtype == "float64":
        assert_allclose(features.orientations, run.oriented.orientations, atol=1e-9)
    return features, run


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["camera", "brick", "grass", "text", "coffee"])
def test_photographs(device, name, dtype):
    features, run = check(device, oracle.photograph(name), dtype)
    assert len(features) > len(run.refined) > 100


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"n_bins": 6},
        {"n_bins": 7},
        {"n_bins": 72},
        {"n_bins": 360},
        {"lambda_ori": 0.3},
        {"lambda_ori": 4},
        {"c_max": 0.0},
        {"c_max": 0.3},
        {"c_max": 1.0},
        {"upsampling": 1},
        {"upsampling": 4, "sigma_in": 0.3},
        {"n_scales": 1},
        {"n_scales": 6},
    ],
    ids=str,
)
def test_parameters(device, options, dtype):
    features, _ = check(device, oracle.photograph("coins")[:140, :160], dtype, **options)
    assert len(features) > 10


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(13, 200), (200, 12), (31, 17), (97, 61)])
def test_windows_beyond_the_borders(device, shape, dtype):
    rows, cols = shape
    image = oracle.photograph("gravel")[20 : 20 + rows, 30 : 30 + cols]
    check(device, image, dtype, c_dog=0.001, lambda_ori=3)


@pytest.mark.parametrize("angle", np.deg2rad([0, 5, 45, 90, 135, 170, -45, -90, -179]))
def test_a_ramp(device, angle):
    """In a ramp the orientation is its direction, from the row axis towards the column axis.

    scikit-image reads the histogram's peak half a bin high; so do we.
    """
    rows, cols = np.mgrid[:40, :44]
    ramp = np.cos(angle) * rows + np.sin(angle) * cols
    run = oracle.Oracle(oracle.run(np.eye(20)).sift, [np.stack([ramp] * 6)], (20, 22))
    keypoints = Keypoints(np.array([[10.0, 11.0]]), np.array([0.9]), np.array([1]), np.array([0]))
    features = assigned(device, run, keypoints, Parameters(), "float64")
    assert len(features) == 1
    turn = np.angle(np.exp(1j * (features.orientations[0] - angle)))
    assert 0 <= turn <= 2 * np.pi / 36


def reference(run, keypoint, n_bins, lambda_ori=1.5, c_max=0.8):
    """Alg. 11 for one keypoint, with a histogram that is smoothed round the circle."""
    level = run.octaves[keypoint.octaves][keypoint.scales]
    delta = run.sift.deltas[keypoint.octaves]
    centre, sigma = keypoint.positions / delta, keypoint.sigmas / delta
    radius = 3 * lambda_ori * sigma
    low = np.maximum(0, centre - radius + 0.5).astype(int)
    high = np.minimum(centre + radius + 0.5, np.array(level.shape) - 1).astype(int)
    window = slice(low[0], high[0] + 1), slice(low[1], high[1] + 1)
    rows, cols = np.mgrid[window] - centre[:, np.newaxis, np.newaxis]
    by_row, by_col = (gradient[window] for gradient in np.gradient(level))
    weight = np.exp((rows**2 + cols**2) / (-2 * (lambda_ori * sigma) ** 2))
    turn = np.mod(np.arctan2(by_col, by_row), 2 * np.pi) / (2 * np.pi)
    bins = np.floor((turn * n_bins + 0.5) % n_bins).astype(int)
    histogram = np.bincount(bins.ravel(), (weight * np.hypot(by_row, by_col)).ravel(), n_bins)
    for _ in range(6):
        histogram = (np.roll(histogram, 1) + histogram + np.roll(histogram, -1)) / 3
    before, after = np.roll(histogram, 1), np.roll(histogram, -1)
    peaks = (histogram >= c_max * histogram.max()) & (histogram >= np.maximum(before, after))
    fit = (before - after) / (2 * (before + after - 2 * histogram))
    angles = (np.flatnonzero(peaks) + fit[peaks] + 0.5) * 2 * np.pi / n_bins
    return np.where(angles > np.pi, angles - 2 * np.pi, angles)


@pytest.mark.parametrize("n_bins", [4, 5, 6, 36])
def test_few_bins(device, n_bins):
    """Below 6 bins scikit-image's padding breaks; the formula goes on."""
    run = oracle.run(oracle.photograph("coins")[:140, :160])
    features = assigned(device, run, run.refined, Parameters(n_bins=n_bins), "float64")
    rank = features.responses.astype(int)
    for i in range(len(run.refined)):
        angles = reference(run, run.refined[i], n_bins)
        assert_allclose(features.orientations[rank == i], angles, atol=1e-6)


def test_no_keypoints(device):
    run = oracle.run(np.eye(20))
    none = Keypoints(np.empty((0, 2)), np.empty(0), np.empty(0, int), np.empty(0, int))
    features = assigned(device, run, none, Parameters(), "float64")
    assert len(features) == 0
    assert features.positions.shape == (0, 2)


@pytest.mark.parametrize("most", [1, 2])
def test_the_highest_peaks_are_kept(device, most):
    """As many orientations of each keypoint as allowed, those of the highest peaks, in the order of their bins."""
    run = oracle.run(oracle.photograph("coins")[:140, :160]).rounded("float64")
    few = assigned(device, run, run.refined, Parameters(max_orientations=most, c_max=0.3), "float64")
    every = assigned(device, run, run.refined, Parameters(c_max=0.3), "float64")
    of_few, of_every = few.responses.astype(int), every.responses.astype(int)
    assert_array_equal(np.bincount(of_few), np.minimum(np.bincount(of_every), most))
    assert np.bincount(of_every).max() > most
    for keypoint in np.flatnonzero(np.bincount(of_every) > most):
        heights = {c: assigned(device, run, run.refined, Parameters(c_max=c), "float64") for c in (1.0, 0.8)}
        highest = heights[1.0].orientations[heights[1.0].responses.astype(int) == keypoint]
        kept, all_of_it = few.orientations[of_few == keypoint], every.orientations[of_every == keypoint]
        assert set(highest) <= set(kept) <= set(all_of_it)
        assert list(kept) == [angle for angle in all_of_it if angle in set(kept)]
        break
