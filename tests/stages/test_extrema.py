"""Extrema of the oracle's scale space: the same candidates in the same order."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skimage.feature._sift import _local_max

from gpusift.devices import get_device
from gpusift.parameters import EXTREMUM_FRACTION, Parameters
from gpusift.stages import extrema, levels
from tests.support import oracle


def found(device, octaves, parameters, capacity=None):
    """Rows of octave, row, col, scale; keys are checked to come sorted."""
    device = get_device(device, octaves[0].dtype.name)
    space = levels.from_octaves(device, octaves)
    keys = device.to_host(extrema.find(device, space, parameters, capacity))
    assert keys.dtype == np.int64
    assert (np.diff(keys) > 0).all()
    return np.stack(extrema.unpack(keys), axis=-1).reshape(-1, 4)


def expected(octaves, parameters):
    """The oracle's, on the differences taken in the octaves' own precision."""
    rows = []
    for o, octave in enumerate(octaves):
        dog = np.ascontiguousarray(np.moveaxis(np.diff(octave, axis=0), 0, -1))
        keys = _local_max(dog, EXTREMUM_FRACTION * parameters.final_c_dog).reshape(-1, 3)
        rows.append(np.insert(keys, 0, o, axis=1))
    return np.concatenate(rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["camera", "brick", "grass", "text", "retina"])
def test_photographs(device, name, dtype):
    """In float32 too: both sides compare the same differences, exactly."""
    octaves = [octave.astype(dtype) for octave in oracle.run(oracle.photograph(name)).octaves]
    parameters = Parameters()
    theirs = expected(octaves, parameters)
    assert len(theirs) > 0
    assert_array_equal(found(device, octaves, parameters), theirs)


@pytest.mark.parametrize("n_scales", [1, 2, 3, 4, 5, 6, 12])
def test_n_scales(device, n_scales):
    image = oracle.photograph("coins")[:90, :110]
    run = oracle.run(image, n_scales=n_scales)
    parameters = Parameters(n_scales=n_scales)
    assert_array_equal(found(device, run.octaves, parameters), run.extrema)
    assert set(run.extrema[:, 3]) == set(range(1, n_scales + 1))


@pytest.mark.parametrize("capacity", [0, 1, 1000, None])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_full_list_is_made_longer(device, dtype, capacity):
    """In noise nearly one sample in 30 is an extremum, far more than in any photograph."""
    rng = np.random.default_rng(0)
    octaves = [rng.random((6, 150, 170)).astype(dtype), rng.random((6, 75, 85)).astype(dtype)]
    parameters = Parameters(c_dog=0)
    theirs = expected(octaves, parameters)
    assert len(theirs) > 3000
    assert_array_equal(found(device, octaves, parameters, capacity), theirs)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    shape=st.tuples(st.integers(4, 7), st.integers(1, 40), st.integers(1, 40)),
    levels=st.sampled_from([2, 3, 5, 1000]),
    c_dog=st.sampled_from([0.0, 0.04, 0.5]),
    seed=st.integers(0, 99),
)
def test_shapes_and_ties(device, dtype, shape, levels, c_dog, seed):
    """Any shape; few different values, so that neighbours are often equal: no extremum then."""
    rng = np.random.default_rng(seed)
    octave = (rng.integers(0, levels, shape) / (levels - 1)).astype(dtype)
    parameters = Parameters(n_scales=shape[0] - 3, c_dog=c_dog)
    assert_array_equal(found(device, [octave], parameters), expected([octave], parameters))


@given(
    hnp.arrays(
        np.int64,
        (8,),
        elements=st.integers(0, 2**26 - 1),
    )
)
def test_unpack(values):
    """Every coordinate up to its largest comes back."""
    rows, cols = values[:4], values[4:]
    octaves, scales = np.array([0, 1, 7, 24]), np.array([1, 3, 60, 2])
    keys = octaves << 58 | rows << 32 | cols << 6 | scales
    for ours, theirs in zip(extrema.unpack(keys), (octaves, rows, cols, scales), strict=True):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("factor", "kept"), [(1 - 1e-7, True), (1 + 1e-7, False)])
def test_threshold(device, factor, kept):
    """A sample just above 0.8 c_dog is a candidate, one just below is not."""
    parameters = Parameters()
    octave = np.zeros((6, 15, 15))
    octave[3:, 7, 7] = EXTREMUM_FRACTION * parameters.final_c_dog / factor
    rows = found(device, [octave], parameters)
    assert_array_equal(rows, [[0, 7, 7, 2]] if kept else np.empty((0, 4)))
    assert_array_equal(found(device, [-octave], parameters), rows)
