"""The scale space against the oracle's, level by level."""

import platform

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpusift.devices import get_device
from gpusift.parameters import Parameters
from gpusift.stages import levels, scale_space
from tests.support import oracle

# Largest difference from the oracle, relative to the largest value. In float64 there is none where the filter is
# SciPy's or has its order of operations, and SciPy is compiled without fma (its wheels for x86-64).
# Observed worst in float32 on the CPU: 5e-7 with blur="kernel", 2e-7 with "ndimage".
TOLERANCES = {"float64": 1e-13, "float32": 1e-6}
SCIPY_HAS_NO_FMA = platform.machine() in ("x86_64", "AMD64")
PRECISIONS = [(dtype, blur) for dtype in TOLERANCES for blur in ("ndimage", "kernel")]
in_each_precision = pytest.mark.parametrize(("dtype", "blur"), PRECISIONS)


def check(device, image, dtype, blur, **options):
    device = get_device(device, dtype)
    parameters = Parameters(**options)
    theirs = oracle.run(image, **options).octaves
    exact = dtype == "float64" and SCIPY_HAS_NO_FMA and (blur == "kernel" or device.name == "cpu")
    tolerance = 0 if exact else TOLERANCES[dtype]
    space = scale_space.build(device, device.asarray(image.astype(dtype)), parameters, blur)
    for o, expected in enumerate(theirs):
        ours = device.to_host(space.octave(o))
        assert ours.dtype == dtype
        assert ours.shape == expected.shape
        error = np.abs(ours - expected).max() / np.abs(image).max()
        assert error <= tolerance, f"octave {o}: {error:.1e}"
    assert parameters.n_octaves_of(image.shape) == len(theirs)


@in_each_precision
@pytest.mark.parametrize(("upsampling", "sigma_in"), [(1, 0.5), (2, 0.5), (4, 0.3), (4, 0.4), (2, 0)])
def test_upsampling(device, upsampling, sigma_in, dtype, blur):
    image = oracle.photograph("camera")[100:203, 50:201] / 255
    check(device, image, dtype, blur, upsampling=upsampling, sigma_in=sigma_in)


@in_each_precision
@pytest.mark.parametrize("n_scales", [1, 2, 3, 4, 5, 6])
def test_n_scales(device, n_scales, dtype, blur):
    image = oracle.photograph("brick")[:80, :90] / 255
    check(device, image, dtype, blur, n_scales=n_scales)


@in_each_precision
@pytest.mark.parametrize("shape", [(12, 12), (6, 6), (13, 200), (200, 13), (31, 17), (6, 500), (301, 7), (129, 257)])
def test_shapes(device, shape, dtype, blur):
    check(device, np.random.default_rng(0).random(shape), dtype, blur)


# By device: n_scales and sigma_min. On a GPU each pair takes seconds, as it has kernels of its own.
SCALES = {
    "cpu": st.tuples(st.integers(1, 6), st.floats(0.9, 4)),
    "cuda": st.sampled_from([(1, 4.0), (6, 0.9)]),  # radii 28, 55 and 111; and 2 to 4
}


@in_each_precision
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    shape=st.tuples(st.integers(12, 70), st.integers(12, 70)),
    upsampling=st.sampled_from([1, 2, 4]),
    data=st.data(),
)
def test_any(device, dtype, blur, shape, upsampling, data):
    """Shapes and blurs at will: also Gaussians wider than the image, reflected many times."""
    image = np.random.default_rng(0).random(shape)
    n_scales, sigma_min = data.draw(SCALES[device], "n_scales, sigma_min")
    options = {"upsampling": upsampling, "n_scales": n_scales, "sigma_min": sigma_min}
    check(device, image, dtype, blur, sigma_in=0.2, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_from_octaves(device, dtype):
    """Octaves that are put in come out."""
    device = get_device(device, dtype)
    octaves = [np.random.default_rng(o).random((6, 33 - o, 21)).astype(dtype) for o in range(3)]
    space = levels.from_octaves(device, octaves)
    for o, octave in enumerate(octaves):
        assert_array_equal(device.to_host(space.octave(o)), octave)


@pytest.mark.parametrize("blur", ["ndimage", "kernel"])
def test_a_constant_image_stays_constant(device, blur):
    device = get_device(device, "float64")
    image = np.full((40, 50), 0.7)
    space = scale_space.build(device, device.asarray(image), Parameters(), blur)
    for o in range(3):
        assert np.abs(device.to_host(space.octave(o)) - 0.7).max() < 1e-14


def enlarged(image, factor):
    """The image, enlarged so that every `factor`-th sample is a pixel; the last pixel is repeated (VLFeat)."""
    for axis in (0, 1):
        at = np.arange(factor * image.shape[axis]) / factor
        first = np.floor(at).astype(int)
        after = np.minimum(first + 1, image.shape[axis] - 1)
        part = np.expand_dims(at - first, 1 - axis)
        image = np.take(image, first, axis) * (1 - part) + np.take(image, after, axis) * part
    return image


@in_each_precision
@pytest.mark.parametrize("shape", [(13, 200), (200, 13), (6, 500), (31, 17), (129, 257)])
@pytest.mark.parametrize(("factor", "sigma_min"), [(1, 1.6), (2, 1.6), (2, 3.3), (4, 1.6)])
def test_a_grid_of_pixels(device, shape, factor, sigma_min, dtype, blur):
    """The levels are those of the enlarged image, whose blur is that of the image in its samples."""
    image = np.random.default_rng(1).random(shape)
    device = get_device(device, dtype)
    given = {"sigma_min": sigma_min, "n_octaves": 2}
    parameters = Parameters(upsampling=factor, upsampling_grid="pixels", sigma_in=0.3, **given)
    space = scale_space.build(device, device.asarray(image.astype(dtype)), parameters, blur)
    alone = Parameters(upsampling=1, sigma_in=0.3 * factor, **given)
    wanted = scale_space.build(device, device.asarray(enlarged(image, factor).astype(dtype)), alone, blur)
    for o in range(len(space.shapes)):
        ours, theirs = device.to_host(space.octave(o)), device.to_host(wanted.octave(o))
        assert np.abs(ours - theirs).max() <= TOLERANCES[dtype]
