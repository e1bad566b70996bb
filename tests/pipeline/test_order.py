"""On a GPU: streams, devices and memory of the caller's and of ours, in every order that may happen.

The stand-in for CuPy (``--cuda-standin=SEED``) runs work late and reports accesses that have no order. A GPU may get
them right by luck.
"""

import threading
from contextlib import nullcontext

import numpy as np
import pytest

from gpusift import SIFT, match, pipeline
from gpusift.pipeline.outcomes import Unfit
from gpusift.stages.intensities import image_of
from tests.support.same_bytes import digest, synthetic

pytestmark = pytest.mark.gpu

SHAPES = [(40, 52), (52, 40), (64, 64)]
IMAGES = [synthetic(*shape, seed=seed) for seed in (1, 2) for shape in SHAPES]
PARAMETERS = {"n_octaves": 2, "c_dog": 0.004}


@pytest.fixture(scope="module")
def expected():
    sift = SIFT(device="cpu", **PARAMETERS)
    return [digest(sift.compute(image)) for image in IMAGES]


@pytest.fixture
def cupy():
    import cupy

    return cupy


@pytest.fixture
def sift():
    return SIFT(device="cuda", **PARAMETERS)


def several_devices(cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")


CALLS = {
    "map": lambda sift, images: list(sift.map(images, batch_size=1)),
    "map, batches": lambda sift, images: list(sift.map(images, batch_size=3)),
    "compute_batch": lambda sift, images: sift.compute_batch(images),
    "compute_batch, on host": lambda sift, images: sift.compute_batch(images, on_host=True),
    "compute": lambda sift, images: [sift.compute(image) for image in images],
}


@pytest.mark.parametrize("stream", ["null", "blocking", "non-blocking"])
@pytest.mark.parametrize("call", CALLS)
def test_images_that_the_callers_stream_is_still_writing(cupy, sift, expected, call, stream):
    streams = {"null": nullcontext(), "blocking": cupy.cuda.Stream()}
    with streams.get(stream, cupy.cuda.Stream(non_blocking=True)):
        written = [cupy.asarray(255 - image) for image in IMAGES]
        features = CALLS[call](sift, (255 - image for image in written))
        assert [digest(each) for each in features] == expected


def test_images_of_several_streams(cupy, sift, expected):
    def images():
        for image in IMAGES:
            with cupy.cuda.Stream(non_blocking=True):
                yield 255 - cupy.asarray(255 - image)

    assert [digest(features) for features in sift.map(images(), batch_size=2)] == expected


def test_a_buffer_that_is_written_again_for_each_image(cupy, sift):
    frame = cupy.empty((40, 52), np.uint8)

    def images():
        for i in (0, 3, 0, 3, 0):
            frame[...] = cupy.asarray(IMAGES[i])
            yield frame

    wanted = [digest(sift.compute(IMAGES[i])) for i in (0, 3, 0, 3, 0)]
    assert [digest(features) for features in sift.map(images(), batch_size=1)] == wanted


def test_features_are_ready_for_the_callers_stream(cupy, sift, expected):
    with cupy.cuda.Stream(non_blocking=True):
        features = sift.compute(cupy.asarray(IMAGES[0]))
        assert int(features.descriptors.max()) == features.to_host().descriptors.max() > 0
        assert digest(features) == expected[0]


def test_calls_in_different_streams_share_the_memory_in_turn(cupy, sift, expected):
    for _ in range(3):
        for image, wanted in zip(IMAGES, expected):
            with cupy.cuda.Stream(non_blocking=True):
                assert digest(sift.compute(image)) == wanted


def test_a_larger_image_frees_the_memory_of_another_stream(cupy, expected):
    for image, wanted in zip((synthetic(20, 20), synthetic(200, 150), IMAGES[0]), (None, None, expected[0])):
        sift = SIFT(device="cuda", **PARAMETERS)
        for size in (30, 60, 120):
            with cupy.cuda.Stream(non_blocking=True):
                features = sift.compute(synthetic(size, size))
        features = sift.compute(image)
        assert wanted is None or digest(features) == wanted


@pytest.mark.parametrize("n_taken", [0, 1, 4])
def test_a_stream_that_is_left_early(sift, expected, n_taken):
    stream = sift.map(IMAGES * 3, batch_size=1)
    taken = [digest(next(stream)) for _ in range(n_taken)]
    stream.close()
    assert taken == expected[:n_taken]
    assert [digest(features) for features in sift.map(IMAGES)] == expected


def test_an_object_that_goes_while_its_work_runs(expected):
    for _ in range(3):
        features = [SIFT(device="cuda", **PARAMETERS).compute(image) for image in IMAGES]
        assert [digest(each) for each in features] == expected


def test_streams_and_memories_are_kept_between_calls(sift):
    list(sift.map(IMAGES[:1] * 5, batch_size=1))
    kept = set(sift.plans._free)
    streams = {memory.stream for memory in kept}
    assert len(kept) == len(streams) == sift.device.n_streams
    list(sift.map(IMAGES[:1] * 5, batch_size=1))
    sift.compute(IMAGES[0])
    assert set(sift.plans._free) == kept
    assert {memory.stream for memory in kept} == streams


def test_threads_share_an_object(cupy, sift, expected):
    failures = []

    def work():
        try:
            with cupy.cuda.Stream(non_blocking=True):
                for _ in range(2):
                    for image, wanted in zip(IMAGES, expected):
                        assert digest(sift.compute(image)) == wanted
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(sift.plans._free) <= 3


# Another device than the current one


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, bool])
def test_another_device_than_the_current_one(cupy, dtype):
    several_devices(cupy)
    here, there = SIFT(device="cpu", **PARAMETERS), SIFT(device="cuda:1", **PARAMETERS)
    image = IMAGES[0] > 120 if dtype is bool else IMAGES[0].astype(dtype) / (1 if dtype is np.uint8 else 255)
    image = image.astype(dtype)
    with cupy.cuda.Device(1):
        on_device = cupy.asarray(image)
    here.detect_and_extract(image)
    wanted = digest(here.compute(image))
    assert digest(there.compute(image)) == digest(there.compute(on_device)) == wanted
    assert [digest(each) for each in there.map([image, on_device, image])] == 3 * [wanted]
    for given in (image, on_device):
        there.detect_and_extract(given)
        for name in ("keypoints", "scales", "octaves", "descriptors"):
            array = getattr(there, name)
            np.testing.assert_array_equal(there.device.to_host(array), getattr(here, name))
        there.extract(given)
    features = there.compute(image)
    for name in ("keypoints", "angles"):
        on_host = there.device.to_host(getattr(features, name))
        np.testing.assert_array_equal(on_host, getattr(features.to_host(), name))
    assert digest(features[::2]) == digest(features.to_host()[::2])
    assert len(there.compute(np.zeros((3, 3), dtype))) == 0
    assert digest(there.describe(image, features.positions, features.sigmas)) == digest(
        here.describe(image, features.to_host().positions, features.to_host().sigmas)
    )


def test_images_in_host_memory_while_a_stream_of_another_device_is_current(cupy, expected):
    several_devices(cupy)
    sift = SIFT(device="cuda:1", **PARAMETERS)
    with cupy.cuda.Stream(non_blocking=True):
        assert [digest(each) for each in sift.compute_batch(IMAGES, on_host=True)] == expected
        assert [digest(each) for each in sift.map(IMAGES)] == expected
        sift.detect_and_extract(IMAGES[0])
    assert digest(sift.compute(IMAGES[0])) == expected[0]


def test_matches_on_another_device_than_the_current_one(cupy):
    several_devices(cupy)
    there, here = (SIFT(device=name, **PARAMETERS) for name in ("cuda:1", "cpu"))
    pair = [IMAGES[0], np.roll(IMAGES[0], 3, axis=1)]
    found = match(*there.compute_batch(pair), device="cuda:1").to_host()
    expected = match(*here.compute_batch(pair), device="cpu")
    assert len(found) > 0
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)


# Memory that runs out


@pytest.mark.standin
@pytest.mark.parametrize("kind", ["device allocation", "pinned allocation"])
@pytest.mark.parametrize("first", range(1, 14, 3))
def test_an_allocation_that_fails_costs_no_image_of_a_batch(expected, kind, first):
    import standin

    for n_streams in (0, 3):
        sift = SIFT(device="cuda", **PARAMETERS)
        images = [image_of(image) for image in IMAGES * 2]
        standin.fail_at(kind, first)
        if n_streams:
            outcomes = list(pipeline.stream(sift.plans, images, 4, n_streams))
        else:
            outcomes = pipeline.compute(sift.plans, images, 4)
        standin.fail_at(kind)
        wrong = [outcome for outcome in outcomes if isinstance(outcome, Unfit)]
        assert all(outcome.error is MemoryError for outcome in wrong)
        assert len(wrong) <= 1  # an image that was alone
        assert [
            wanted if isinstance(outcome, Unfit) else digest(outcome) for outcome, wanted in zip(outcomes, expected * 2)
        ] == expected * 2
        assert [digest(features) for features in sift.map(IMAGES)] == expected  # the object works


@pytest.mark.standin
@pytest.mark.parametrize("kind", ["launch", "copy"])
@pytest.mark.parametrize("first", [1, 2, 7])
def test_an_error_of_the_device_is_the_one_that_is_raised(expected, kind, first):
    import standin

    for call in (lambda sift: list(sift.map(IMAGES, batch_size=2)), lambda sift: sift.compute_batch(IMAGES)):
        sift = SIFT(device="cuda", **PARAMETERS)
        standin.fail_at(kind, first)
        with pytest.raises(RuntimeError) as caught:
            call(sift)
        assert caught.type.__name__ == ("CUDADriverError" if kind == "launch" else "CUDARuntimeError")
        assert caught.value.__context__ is None
        standin.fail_at(kind)
        assert [digest(features) for features in sift.compute_batch(IMAGES)] == expected


@pytest.mark.standin
@pytest.mark.parametrize(("calls_before", "number"), [(0, 1), (0, 2), (3, 1)])
def test_an_image_may_be_written_after_a_launch_has_failed(cupy, sift, expected, calls_before, number):
    """A launch of a kernel, or of the graph that later calls use."""
    import standin

    image = cupy.asarray(IMAGES[0])
    for _ in range(calls_before):
        list(sift.map([image], batch_size=1))
    standin.fail_at("launch", number)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError if calls_before else cupy.cuda.driver.CUDADriverError):
        list(sift.map([image], batch_size=1))
    image.fill(0)
    assert (image.get() == 0).all()
    assert digest(sift.compute(IMAGES[0])) == expected[0]


@pytest.mark.standin
@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("call", [call for call in CALLS if call != "compute"])
def test_images_may_be_written_after_memory_has_run_out(cupy, sift, expected, call, number):
    import standin

    images = [cupy.asarray(image) for image in IMAGES]
    standin.fail_at("device allocation", number)
    features = CALLS[call](sift, images)
    for image in images:
        image.fill(0)
    assert [digest(each) for each in features] == expected
