"""The same bytes whatever floating-point mode another library has left in the thread, which keeps its mode."""

import numpy as np
import pytest

from gpusift import SIFT, match_descriptors
from gpusift.parameters import Parameters, gaussian_taps
from tests.support.floating_point import MODES, mode, set_mode
from tests.support.same_bytes import digest, synthetic

in_each_mode = pytest.mark.parametrize("mxcsr", MODES.values(), ids=MODES)


@in_each_mode
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("blur", ["kernel", "ndimage"])
def test_features_are_the_same_in_any_mode(device, mxcsr, dtype, blur):
    image = synthetic(70, 90)
    expected = digest(SIFT(device=device, dtype=dtype, blur=blur).compute(image))
    with set_mode(mxcsr):
        found = digest(SIFT(device=device, dtype=dtype, blur=blur).compute(image))
        assert mode() == mxcsr
    assert found == expected


@in_each_mode
def test_threads_of_a_team_do_not_take_the_mode_over(mxcsr):
    image = synthetic(600, 700)  # large enough that launches call for help
    sift = SIFT(device="cpu", num_threads=3)
    expected = digest(sift.compute(image))
    with set_mode(mxcsr):
        assert digest(sift.compute(image)) == expected


@in_each_mode
def test_matches_are_the_same_in_any_mode(device, mxcsr):
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 60, 24)).astype(np.float32)
    expected = match_descriptors(first, second, max_ratio=0.9, device=device)
    with set_mode(mxcsr):
        found = match_descriptors(first, second, max_ratio=0.9, device=device)
        assert mode() == mxcsr
    np.testing.assert_array_equal(found, expected)


@in_each_mode
def test_parameters_are_the_same_in_any_mode(mxcsr):
    parameters = Parameters(n_scales=5, sigma_min=1.7)
    taps, sigmas = gaussian_taps(1.3), parameters.scalespace_sigmas(3)
    with set_mode(mxcsr):
        others = Parameters(n_scales=5, sigma_min=1.7)
        other_taps, other_sigmas = gaussian_taps(1.3), others.scalespace_sigmas(3)
    assert (other_taps.tobytes(), other_sigmas.tobytes()) == (taps.tobytes(), sigmas.tobytes())
    assert vars(others) == vars(parameters)
