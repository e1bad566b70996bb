"""Images computed in parts, within a memory limit: the same bytes as without."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpusift import SIFT
from gpusift.devices.cpu import CpuDevice
from gpusift.pipeline import strips
from gpusift.pipeline.key import Key
from gpusift.profiles import arguments_of
from gpusift.stages import extrema
from tests.support.budget import whole_bytes
from tests.support.same_bytes import digest, synthetic

IMAGE = synthetic(420, 150, seed=21)
TALL = synthetic(900, 60, seed=22)


def least_limit(image, **parameters):
    """The smallest limit, to 2 %, that is enough."""
    low, high = 1, whole_bytes(SIFT(device="cpu", **parameters), image)
    while high - low > 0.02 * high:
        middle = (low + high) // 2
        try:
            SIFT(device="cpu", memory_limit=middle, **parameters).compute(image)
        except MemoryError:
            low = middle
        else:
            high = middle
    return high


class Watched(CpuDevice):
    """Counts the bytes that are in use."""

    largest = 0

    def memory(self, size):
        memory = super().memory(size)
        type(self).largest = max(self.largest, size)
        return memory


CASES = {
    "default": (IMAGE, {}),
    "tall": (TALL, {}),
    "odd": (IMAGE[:413, 3:], {"n_octaves": 3}),
    "upsampling 1": (synthetic(700, 140, seed=23), {"upsampling": 1}),
    "upsampling 4": (synthetic(211, 70, seed=24), {"upsampling": 4, "sigma_in": 0.3}),
    "wide windows": (TALL, {"n_scales": 2, "lambda_ori": 2.5, "n_hist": 2}),
    "strongest": (IMAGE, {"max_keypoints": 40}),
    "a grid, precise": (IMAGE, {"max_keypoints": 55, "keep": "grid", "precise_upscale": True}),
    "largest, upright": (IMAGE, {"max_keypoints": 30, "keep": "scale", "upright": True}),
    "pooled": (IMAGE, {"pooling": (0.5, 1, 2), "precise_upscale": True}),
    "pooled, strongest": (TALL, {"pooling": (0.3, 0.8, 1.6), "max_keypoints": 40, "upright": True}),
    "pooled, one octave": (TALL, {"pooling": (0.5, 2), "n_octaves": 1, "n_scales": 2, "lambda_descr": 3}),
    "affine shapes": (TALL, {"affine_shape": True, "lambda_descr": 2}),
    "affine shapes, pooled": (TALL, {"affine_shape": True, "lambda_descr": 2, "pooling": (0.7, 1.4)}),
    "booleans": (IMAGE > 120, {}),
    "16 bit": (IMAGE.astype(np.int16) * 99, {}),
    "float64": (IMAGE / 255, {"dtype": "float64"}),
    "ndimage": (IMAGE, {"blur": "ndimage"}),
    "colmap": (IMAGE, arguments_of("colmap")),
    "opencv": (IMAGE, arguments_of("opencv")),
    "a grid of pixels, 4": (
        synthetic(211, 70, seed=25),
        {"upsampling": 4, "sigma_in": 0.3, "upsampling_grid": "pixels"},
    ),
    "a wide first blur": (TALL, {"sigma_min": 3.3, "c_dog": 0.004, "n_octaves": 2}),
}


@pytest.mark.parametrize("share", [0.9, 0.6, 0.45])
@pytest.mark.parametrize("case", CASES)
def test_parts_give_the_bytes_of_the_whole(device, case, share):
    image, parameters = CASES[case]
    sift = SIFT(device=device, **parameters)
    features = sift.compute(image)
    assert len(features) > 10
    limited = SIFT(device=device, memory_limit=int(share * whole_bytes(sift, image)), **parameters)
    assert digest(limited.compute(image)) == digest(features)


@pytest.mark.parametrize("image", [IMAGE, TALL], ids=["wide", "tall"])
def test_the_smallest_limit_that_is_enough(image):
    limit = least_limit(image)
    sift = SIFT(device="cpu", memory_limit=limit)
    assert limit < 0.55 * whole_bytes(sift, image)
    assert digest(sift.compute(image)) == digest(SIFT(device="cpu").compute(image))


@settings(deadline=None, max_examples=20)
@given(
    st.integers(200, 500),
    st.integers(20, 70),
    st.sampled_from([1, 2]),
    st.integers(1, 4),
    st.floats(0.4, 1.0),
    st.none() | st.lists(st.floats(0.25, 3), min_size=1, max_size=4),
)
def test_any_shape_and_limit(rows, cols, upsampling, n_scales, share, pooling):
    image = synthetic(rows, cols, seed=rows + cols)
    parameters = {"upsampling": upsampling, "n_scales": n_scales, "device": "cpu", "lambda_descr": 3}
    parameters["pooling"] = pooling
    sift = SIFT(**parameters)
    limited = SIFT(memory_limit=max(1, int(share * whole_bytes(sift, image))), **parameters)
    try:
        found = limited.compute(image)
    except MemoryError:
        assume(False)  # too small for a strip
    assert digest(found) == digest(sift.compute(image))


def test_a_mask_in_parts(device):
    mask = np.zeros(IMAGE.shape, np.uint8)
    mask[100:333, 20:90] = 7
    sift = SIFT(device=device)
    limit = int(0.5 * whole_bytes(sift, IMAGE, mask_bytes=1))
    limited = SIFT(device=device, memory_limit=limit)
    assert 0 < len(sift.compute(IMAGE, mask)) < len(sift.compute(IMAGE))
    assert digest(limited.compute(IMAGE, mask)) == digest(sift.compute(IMAGE, mask))


@pytest.mark.parametrize("capacity", [3, 40])
def test_parts_whose_lists_fill_up(monkeypatch, capacity):
    """They are made longer while the limit allows it, then the strips smaller."""
    sift = SIFT(device="cpu", c_dog=0)
    limited = SIFT(device="cpu", c_dog=0, memory_limit=int(0.6 * whole_bytes(sift, TALL)))
    expected = digest(sift.compute(TALL))
    monkeypatch.setattr(extrema, "capacity_for", lambda shape: capacity)
    assert digest(limited.compute(TALL)) == expected


def test_an_image_whose_lists_outgrow_the_limit_is_computed_in_parts(monkeypatch):
    """It fits with lists as long as they are at first, and not with those that it needs."""
    expected = digest(SIFT(device="cpu").compute(TALL))
    monkeypatch.setattr(extrema, "capacity_for", lambda shape: 10)
    limit = whole_bytes(SIFT(device="cpu"), TALL) + 1000
    limited = SIFT(device="cpu", memory_limit=limit)
    assert not limited.plans.exceeds_limit(Key(1, TALL.shape))
    assert digest(limited.compute(TALL)) == expected
    assert [digest(features) for features in limited.map([TALL, TALL])] == [expected, expected]
    assert [digest(features) for features in limited.compute_batch([TALL, TALL])] == [expected, expected]


def test_the_limit_holds():
    sift = SIFT(device="cpu")
    limit = whole_bytes(sift, IMAGE) // 2
    sift = SIFT(device="cpu", memory_limit=limit)
    sift.plans.device = Watched()
    assert digest(sift.compute(IMAGE)) == digest(SIFT(device="cpu").compute(IMAGE))
    assert 0.3 * limit < Watched.largest <= limit


def test_several_images_within_a_limit():
    images = [IMAGE, IMAGE[:50], IMAGE]
    sift = SIFT(device="cpu")
    limited = SIFT(device="cpu", memory_limit=whole_bytes(sift, IMAGE) // 2)
    expected = [digest(features) for features in sift.compute_batch(images)]
    assert [digest(features) for features in limited.compute_batch(images, batch_size=3)] == expected
    assert [digest(features) for features in limited.map(images, batch_size=3)] == expected


def test_a_limit_that_is_too_small():
    with pytest.raises(
        MemoryError, match=r"memory_limit must be enough for a strip of \d+ of the 840 rows of octave 0"
    ):
        SIFT(device="cpu", memory_limit=1000).compute(IMAGE)


def test_unfit_images_in_parts():
    image = IMAGE / 255
    image[400, 3] = np.nan
    with pytest.raises(ValueError, match="image must be finite"):
        SIFT(device="cpu", memory_limit=whole_bytes(SIFT(device="cpu"), IMAGE) // 2).compute(image)


def test_given_keypoints_need_the_whole():
    sift = SIFT(device="cpu", memory_limit=whole_bytes(SIFT(device="cpu"), IMAGE) // 2)
    with pytest.raises(MemoryError, match="memory_limit must hold the whole scale space"):
        sift.describe(IMAGE, [[50, 50]], [2.0])


def test_limits_are_bytes_or_shares():
    device = CpuDevice()
    assert strips.limit_in_bytes(device, None) is None
    assert strips.limit_in_bytes(device, np.int64(7)) == 7
    assert strips.limit_in_bytes(device, 1) == 1
    assert strips.limit_in_bytes(device, 1.0) == device.total_memory
    assert strips.limit_in_bytes(device, 0.5) == device.total_memory // 2
    for wrong in (0, -5, 0.0, 1.5, float("nan"), -0.5):
        with pytest.raises(ValueError, match="memory_limit must be an integer of at least 1"):
            SIFT(device="cpu", memory_limit=wrong)
    for wrong in ("2GB", True, [1]):
        with pytest.raises(TypeError, match="memory_limit must be a number of bytes"):
            SIFT(device="cpu", memory_limit=wrong)
