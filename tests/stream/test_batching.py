"""Pictures of several shapes in any order: how they make batches, and that each has its own features."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift import SIFT
from gpusift.devices import Copy, CpuDevice
from gpusift.pipeline.outcomes import Unfit
from gpusift.stages.intensities import image_of
from gpusift.stream.batching import WINDOW, Batching, Window
from tests.support.same_bytes import digest, synthetic

SHAPES = [(30, 40), (40, 30), (33, 33)]
IMAGES = [synthetic(*shape) for shape in SHAPES]
PARAMETERS = {"n_octaves": 1, "c_dog": 0.004}


class Busy(CpuDevice):
    """A device with three streams, whose work has ended when the host waits for it and not before."""

    n_streams = 3
    uses_host_cores = False

    def batch_size(self, bytes_of_image):
        """Many."""
        return 64

    def download(self, array, staging):
        """A copy that takes until it is waited for."""
        return Copy(lambda: False, lambda: array)


def windowed(shapes, size, at_once=1):
    """The numbers of the pictures of each batch, when no device is ever idle and some pictures come at once."""
    window, batches = Window(lambda image: size), []
    for number, shape in enumerate(shapes):
        window.add(image_of(np.zeros(shape, np.uint8)), number)
        while number % at_once == 0 and (group := window.ready()):
            batches.append([waiting.item for waiting in group])
    while window:
        batches.append([waiting.item for waiting in window.oldest()])
    return batches


def test_pictures_of_shapes_that_alternate_make_whole_batches():
    assert windowed(SHAPES * 4, 4) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert windowed([SHAPES[0]] * 5, 2) == [[0, 1], [2, 3], [4]]


def test_a_picture_of_a_rare_shape_waits_for_no_more_than_a_window_of_others():
    batches = windowed([SHAPES[1], *[SHAPES[0]] * 100], 4)
    (when,) = [number for number, batch in enumerate(batches) if batch == [0]]
    assert batches[when - 1][-1] <= 4 * WINDOW


@settings(max_examples=50)
@given(st.lists(st.sampled_from(SHAPES), max_size=40), st.integers(1, 5), st.integers(1, 7))
def test_every_picture_is_in_one_batch_of_its_shape(shapes, size, at_once):
    batches = windowed(shapes, size, at_once)
    assert sorted(number for batch in batches for number in batch) == list(range(len(shapes)))
    assert all(len({shapes[number] for number in batch}) == 1 and len(batch) <= size for batch in batches)
    assert all(batch == sorted(batch) for batch in batches)


def computed(sift, order, batch_size):
    """The outcomes of pictures, and the largest number of batches that were in flight."""
    found, most = {}, 0
    with Batching(sift, batch_size) as batching:
        for number, which in enumerate(order):
            batching.add(IMAGES[which] if which is not None else np.zeros((2, 2, 2)), number)
            found |= {each.item: each.outcome for each in batching.advance(is_last=False)}
            most = max(most, batching._in_flight.n)
        while not batching.has_nothing_to_do:
            found |= {each.item: each.outcome for each in batching.advance(is_last=True)}
    return found, most


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0, 1, 2, None]), max_size=25), st.sampled_from([None, 1, 2, 4]), st.booleans())
def test_each_picture_has_its_own_features(order, batch_size, is_busy):
    sift = SIFT(device="cpu", **PARAMETERS)
    expected = [digest(sift.compute(image)) for image in IMAGES]
    if is_busy:
        sift._device = sift.plans.device = Busy()
    found, _ = computed(sift, order, batch_size)
    assert sorted(found) == list(range(len(order)))
    for number, which in enumerate(order):
        if which is None:
            assert isinstance(found[number], Unfit)
        else:
            assert digest(found[number]) == expected[which]


def test_batches_overlap_while_the_device_is_busy():
    sift = SIFT(device="cpu", **PARAMETERS)
    sift._device = sift.plans.device = Busy()
    assert computed(sift, [0, 1] * 20, 4)[1] == 3
    assert computed(SIFT(device="cpu", **PARAMETERS), [0, 1] * 20, 4)[1] == 1


def test_batches_on_every_device(device):
    sift = SIFT(device=device, **PARAMETERS)
    found, _ = computed(sift, [0, 1, 2, 0, 0, 1, 2, 1, 0], 3)
    expected = [digest(sift.compute(image)) for image in IMAGES]
    assert [digest(found[n]) for n in range(9)] == [expected[which] for which in [0, 1, 2, 0, 0, 1, 2, 1, 0]]
