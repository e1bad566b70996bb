"""Intensities of pixels of any dtype are scikit-image's, and the lists of the batch are empty afterwards."""

import numpy as np
import pytest
from skimage.util import img_as_float

from gpusift.devices import get_device
from gpusift.parameters import Parameters
from gpusift.pipeline.key import Key
from gpusift.pipeline.plan import Plans
from gpusift.stages.intensities import DTYPES, LARGEST, image_of

SHAPE = (30, 41)


def pixels_of(dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.random(SHAPE) * 8 - 4).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    pixels = rng.integers(low, high, SHAPE, dtype, endpoint=True)
    pixels[0, :2] = low, high
    return pixels


def loaded(device, arrays):
    """The intensities of images of one batch, those that are unfit, and whether lists with entries are empty then."""
    plans, images = Plans(device, Parameters(n_octaves=1)), [image_of(array) for array in arrays]
    key = Key.of(images)
    with device.active(), plans.memory(key) as memory:
        plan = memory.plan(key)
        plan.lists.counts.fill(7)
        plan.lists.row_counts.fill(7)
        memory.load_batch(plan, images)
        plan.run("intensities")
        found = [device.to_host(plan.space.staging_of(n, arrays[0].size)).reshape(SHAPE) for n in range(len(arrays))]
        is_empty = not device.to_host(plan.lists.counts).any() and not device.to_host(plan.lists.row_counts).any()
        return found, device.to_host(plan.inputs.table.unfit) != 0, is_empty


@pytest.mark.parametrize("dtype", [*DTYPES, "bool", "float16"])
def test_intensities_are_those_of_scikit_image(device, dtype):
    pixels = pixels_of("uint8") > 99 if dtype == "bool" else pixels_of(dtype)
    (found,), unfit, is_empty = loaded(get_device(device, "float64"), [pixels])
    np.testing.assert_array_equal(found, img_as_float(pixels).astype(np.float64))
    assert not unfit.any()
    assert is_empty


def test_a_batch_may_hold_several_dtypes(device):
    arrays = [pixels_of("uint8"), pixels_of("float64"), pixels_of("int16"), pixels_of("uint8", seed=1)]
    found, unfit, is_empty = loaded(get_device(device, "float64"), arrays)
    for intensities, pixels in zip(found, arrays):
        np.testing.assert_array_equal(intensities, img_as_float(pixels))
    assert not unfit.any()
    assert is_empty


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2 * LARGEST])
def test_an_unfit_image_is_marked_and_no_other_one(device, dtype, wrong):
    arrays = [pixels_of(dtype, seed) for seed in range(3)]
    arrays[1][[3, 17], 5] = wrong
    found, unfit, _ = loaded(get_device(device, dtype), arrays)
    assert unfit.tolist() == [False, True, False]
    assert all(np.isfinite(intensities).all() for intensities in found)
