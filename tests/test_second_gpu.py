"""Calls on the second GPU while the first one is the current device, and objects that are dropped while it works."""

import gc

import numpy as np
import pytest

from gpusift import SIFT, Features, match_descriptors
from gpusift.features import on_host
from gpusift.matching import match
from gpusift.matching.matches import matched_points
from gpusift.refine import refine_pairs
from tests.support.same_bytes import digest, synthetic

pytestmark = pytest.mark.gpu

IMAGE, OTHER = synthetic(60, 80, seed=1), synthetic(60, 80, seed=2)
MASK = np.arange(60 * 80).reshape(60, 80) % 7 > 0
PARAMETERS = {"n_octaves": 2, "c_dog": 0.004}


@pytest.fixture
def cupy():
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")
    return cupy


def test_a_mask_of_the_host(cupy):
    expected = SIFT(device="cpu", **PARAMETERS).compute(IMAGE, MASK)
    assert digest(SIFT(device="cuda:1", **PARAMETERS).compute(IMAGE, MASK)) == digest(expected)


def test_matching(cupy):
    features = [SIFT(device="cpu", **PARAMETERS).compute(image).descriptors for image in (IMAGE, OTHER)]
    for function in (match_descriptors, lambda *pair, device: match(*pair, device=device, max_ratio=1).indices):
        np.testing.assert_array_equal(function(*features, device="cuda:1"), function(*features, device="cpu"))


def test_matching_of_arrays_on_it(cupy):
    sift = SIFT(device="cuda:1", **PARAMETERS)
    pair = [sift.compute(image) for image in (IMAGE, OTHER)]
    found = match(*pair, max_ratio=1)
    assert found.indices.device.id == 1
    expected = match(*(features.to_host() for features in pair), max_ratio=1, device="cpu")
    np.testing.assert_array_equal(found.to_host().indices, expected.indices)


@pytest.mark.parametrize("on_host", [True, False])
def test_refined_matches(cupy, on_host):
    """Of two pairs with the same second image, whose templates are aligned together."""
    images, pairs = [IMAGE, OTHER, np.roll(IMAGE, 1, axis=0)], [(0, 2), (1, 2)]

    def refined(device, on_host=True):
        sift = SIFT(device=device, **PARAMETERS)
        features = [sift.compute(image) for image in images]
        features = [each.to_host() for each in features] if on_host else features
        matches = [match(features[i], features[j], device=device, max_ratio=1) for i, j in pairs]
        several = refine_pairs(images, features, pairs, matches, sift=sift)
        return [part.to_host() for each in several for part in (each, each[each.refined])]

    for ours, expected in zip(refined("cuda:1", on_host), refined("cpu")):
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(getattr(ours, name), array)


@pytest.mark.standin
def test_the_first_gpu_is_left_alone(cupy):
    from standin import machine

    sift = SIFT(device="cuda:1", **PARAMETERS)
    gc.collect()  # what other tests leave there
    machine().settle()
    before = machine().null_streams[0].count
    pair = [sift.compute(image) for image in (IMAGE, OTHER)]
    on_host = [features.to_host() for features in pair]
    for several in (pair, on_host):
        matches = match(*several, max_ratio=1, device="cuda:1")
        match_descriptors(*(features.descriptors for features in several), device="cuda:1")
        refine_pairs([IMAGE, OTHER], several, [(0, 1)], [matches], sift=sift)
    list(sift.map([IMAGE, OTHER], batch_size=1))
    sift.compute_batch([IMAGE, OTHER])
    sift.describe(IMAGE, on_host[0].positions, on_host[0].sigmas, on_host[0].orientations)
    del sift
    gc.collect()
    assert machine().null_streams[0].count == before
    assert machine().null_streams[0].awaited == []


def test_what_features_on_it_compute(cupy):
    features = SIFT(device="cuda:1", **PARAMETERS).compute(IMAGE)
    host = features.to_host()
    for name in ("keypoints", "angles"):
        with cupy.cuda.Device(1):
            ours = getattr(features, name).get()
        np.testing.assert_array_equal(ours, getattr(host, name))
        assert getattr(features, name).device.id == 1
    for use in (lambda f: f.shifted(1), lambda f: f[::2], lambda f: Features.concatenate([f, f])):
        assert digest(use(features)) == digest(use(host))


def test_an_array_on_it_is_copied_to_the_host_in_order(cupy):
    with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=True):
        array = cupy.arange(5)
        with cupy.cuda.Device(0), cupy.cuda.Stream(non_blocking=True):
            assert on_host(array).tolist() == [0, 1, 2, 3, 4]


def test_features_on_it_are_copied_to_the_host_in_order(cupy):
    features = SIFT(device="cuda:1", **PARAMETERS).compute(IMAGE)
    with cupy.cuda.Device(1):
        features.positions.fill(1)
    with cupy.cuda.Stream(non_blocking=True):
        assert (features.to_host().positions == 1).all()


def test_attributes_of_an_image_on_it(cupy):
    sift, expected = SIFT(device="cuda:1", **PARAMETERS), SIFT(device="cpu", **PARAMETERS)
    with cupy.cuda.Device(1):
        image = cupy.asarray(IMAGE)
    sift.detect_and_extract(image)
    expected.detect_and_extract(IMAGE)
    for name in ("keypoints", "scales", "octaves", "descriptors"):
        assert getattr(sift, name).device.id == 1
        np.testing.assert_array_equal(on_host(getattr(sift, name)), getattr(expected, name))


def test_an_image_that_the_caller_writes_again(cupy):
    """`map` has read it before the caller's stream on that device goes on."""
    sift = SIFT(device="cuda:1", **PARAMETERS)
    with cupy.cuda.Device(1):
        image = cupy.asarray(IMAGE)
    features = sift.map([image, image], batch_size=1)
    first = next(features)
    with cupy.cuda.Device(1):
        image.fill(0)
    assert digest(first) == digest(SIFT(device="cpu", **PARAMETERS).compute(IMAGE))
    features.close()


def test_a_stage_has_ended_when_it_is_told(cupy):
    from gpusift import pipeline
    from gpusift.stages.intensities import image_of

    sift, ended = SIFT(device="cuda", **PARAMETERS), []

    def on_stage(stage):
        ended.append(stage)
        assert cupy.cuda.get_current_stream().done

    pipeline.compute(sift.plans, [image_of(IMAGE)], on_stage=on_stage)
    assert len(ended) > 3


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_stream_and_its_object_are_dropped_while_the_device_works(cupy, taken):
    sift = SIFT(device="cuda:1", **PARAMETERS)
    features = sift.map([IMAGE, OTHER] * 4, batch_size=1)
    for _ in range(taken):
        next(features)
    features.close()
    del features, sift
    cupy.zeros(3)


def test_results_are_copied_in_order_whatever_stream_is_current(cupy):
    """NumPy in, and NumPy out: a stream of the first GPU is the current one of the thread."""
    sift = SIFT(device="cuda:1", **PARAMETERS)
    expected = SIFT(device="cpu", **PARAMETERS)
    with cupy.cuda.Stream(non_blocking=True):
        pair = [sift.compute(image) for image in (IMAGE, OTHER)]
        with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=True) as stream:
            pair = [sift.compute(image) for image in (IMAGE, OTHER)]
            matches = match(*pair, max_ratio=1)
            with cupy.cuda.Device(0), cupy.cuda.Stream(non_blocking=True):
                assert digest(pair[0].to_host()) == digest(expected.compute(IMAGE))
                on_host = matches.to_host()
                described = sift.describe(IMAGE, pair[0].positions, pair[0].sigmas, pair[0].orientations)
        assert len(on_host) == len(matched_points(*pair, matches)[0])
        assert len(described) == len(pair[0])
        del stream
