"""match and match_pairs find the matches that brute force finds, of features, descriptors, one pair or many."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skimage.data import camera
from skimage.feature import match_descriptors as skimage_match_descriptors

from gpusift import SIFT, Features
from gpusift.matching import Matches, match, match_pairs, nearest
from tests.support import brute_force
from tests.support.brute_force import descriptors

OPTIONS = {
    "max_distance": st.sampled_from([np.inf, 40.0, 300.0]),
    "rule": st.sampled_from(["one way", "mutual", "mutual, symmetric ratio"]),
    "max_ratio": st.sampled_from([1.0, 0.9, 0.6]),
}
DTYPES = ("uint8", "float32", "float64")


def assert_brute_force(found, first, second, **options):
    indices, distances = brute_force.matches(first, second, **options)
    assert_array_equal(found.indices, indices)
    assert_array_equal(found.distances, distances.astype(np.float32))
    assert (found.indices.dtype, found.distances.dtype) == (np.int64, np.float32)
    assert isinstance(found.indices, np.ndarray)


def related(m, n, width, dtype, seed, n_values=256):
    """Two sets of descriptors of which some are close."""
    first, second = (descriptors(count, width, dtype, seed + count, n_values) for count in (m, n))
    shared = min(m, n) // 2
    second[:shared] = first[:shared]
    second[:shared:2, 0] = first[0, 0]
    return first, second


def random_mask(m, n, share=0.4, seed=0):
    return np.random.default_rng(seed).random((m, n)) < share


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    *(st.integers(low, high) for low, high in ((0, 60), (0, 60), (1, 40), (0, 99))),
    st.sampled_from([2, 5, 256]),
    st.sampled_from(DTYPES),
    st.sampled_from([None, 0.1, 0.6]),
    st.fixed_dictionaries(OPTIONS),
)
def test_brute_force(device, m, n, width, seed, n_values, dtype, share, options):
    first, second = descriptors(m, width, dtype, seed), descriptors(n, width, dtype, seed + 1)
    if min(m, n) > 0:
        first, second = related(m, n, width, dtype, seed, n_values)
    mask = None if share is None else random_mask(m, n, share, seed)
    rule = options.pop("rule")
    options |= {"cross_check": rule != "one way", "symmetric_ratio": rule == "mutual, symmetric ratio"}
    found = match(first, second, mask=mask, device=device, **options)
    assert_brute_force(found, first, second, mask=mask, **options)


@pytest.mark.parametrize("options", [{}, {"max_ratio": 1.0}, {"cross_check": False}, {"max_distance": 200.0}])
def test_the_matches_are_scikit_images(device, options):
    first, second = related(300, 400, 128, "uint8", 1)
    found = match(first, second, device=device, **options)
    assert len(found) > 100
    assert_array_equal(found.indices, skimage_match_descriptors(first, second, **{"max_ratio": 0.8, **options}))


def test_a_symmetric_ratio_drops_matches_that_are_ambiguous_in_the_other_direction(device):
    first = np.array([[0, 0], [0, 9], [90, 90]], np.uint8)  # the first two are near to one of the other side
    second = np.array([[0, 4], [91, 90], [200, 0]], np.uint8)
    one_way = match(first, second, max_ratio=0.5, device=device)
    both_ways = match(first, second, max_ratio=0.5, symmetric_ratio=True, device=device)
    assert_array_equal(one_way.indices, [[0, 0], [2, 1]])
    assert_array_equal(both_ways.indices, [[2, 1]])


def test_a_symmetric_ratio_needs_a_cross_check():
    with pytest.raises(ValueError, match="symmetric_ratio must be used with cross_check=True"):
        match(*related(5, 5, 4, "uint8", 1), cross_check=False, symmetric_ratio=True, device="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_descriptors_match_the_first_of_them(device, dtype):
    first = np.repeat(descriptors(5, 16, dtype, seed=1), 3, axis=0)
    found = match(first, first[::-1].copy(), max_ratio=1.0, device=device)
    assert_array_equal(found.indices, [[0, 12], [3, 9], [6, 6], [9, 3], [12, 0]])
    assert_array_equal(found.distances, np.zeros(5))


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_ratio", [0.8, 1.0])
def test_fewer_than_two_on_a_side_are_no_matches(device, counts, dtype, max_ratio):
    found = match(*(np.zeros((count, 8), dtype) for count in counts), max_ratio=max_ratio, device=device)
    assert len(found) == 0
    assert (found.indices.shape, found.indices.dtype) == ((0, 2), np.int64)
    assert (found.distances.shape, found.distances.dtype) == ((0,), np.float32)


def test_one_rival_that_is_allowed_has_no_second(device):
    first, second = descriptors(2, 8, seed=1), descriptors(3, 8, seed=2)
    mask = np.array([[False, True, False], [False, False, False]])
    assert_array_equal(match(first, second, max_ratio=0.1, mask=mask, device=device).indices, [[0, 1]])


@pytest.mark.parametrize(
    "given",
    [
        lambda a: a.astype(np.float32),  # as OpenCV gives them
        lambda a: a.astype(np.int64),
        lambda a: a.astype(np.int16) - 300,  # moved alike
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],  # not contiguous
        lambda a: a.astype(">i4"),
        lambda a: a.tolist(),
    ],
)
def test_bytes_in_other_arrays(device, given):
    first, second = related(60, 50, 32, "uint8", 3)
    found = match(given(first), given(second), max_ratio=0.9, device=device)
    assert_brute_force(found, first, second, max_ratio=0.9)


@pytest.mark.parametrize("scale", [2, 1000, 2**20])
def test_integers_beyond_a_byte(device, scale):
    first, second = related(60, 50, 32, "uint8", 3)
    first, second = (each.astype(np.int64) * scale for each in (first, second))
    assert_brute_force(match(first, second, max_ratio=0.9, device=device), first, second, max_ratio=0.9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs_match_as_each_pair_does(device, dtype, monkeypatch):
    sets = [descriptors(count, 24, dtype, seed=count, n_values=4) for count in (50, 0, 30, 1, 200, 2)]
    sets[2][:20] = sets[0][5:25]
    pairs = [(0, 2), (2, 0), (1, 0), (4, 4), (0, 3), (5, 4), (0, 2), (3, 1), (4, 0), (2, 5)]
    masks = [None if k % 3 == 0 else random_mask(len(sets[i]), len(sets[j])) for k, (i, j) in enumerate(pairs)]
    for most_queries in (nearest.MOST_QUERIES, 100, 1):
        monkeypatch.setattr(nearest, "MOST_QUERIES", most_queries)
        for mask in (None, masks):
            found = match_pairs(sets, pairs, max_ratio=0.9, mask=mask, device=device)
            assert len(found) == len(pairs)
            assert sum(map(len, found)) > 0
            for k, (i, j) in enumerate(pairs):
                chosen = None if mask is None else mask[k]
                assert_brute_force(found[k], sets[i], sets[j], max_ratio=0.9, mask=chosen)


def test_no_pairs(device):
    assert match_pairs([descriptors(5, 8)], [], device=device) == []
    assert match_pairs([], [], device=device) == []


def test_descriptors_are_copied_to_the_device_once(monkeypatch):
    uploads = []
    upload = nearest.upload
    monkeypatch.setattr(nearest, "upload", lambda *given: uploads.append(given[1]) or upload(*given))
    sets = [descriptors(20, 8, seed=i) for i in range(4)]
    match_pairs(sets, [(0, 1), (0, 2), (1, 2), (2, 0)], device="cpu")
    assert [len(given) for given in uploads] == [3]  # the last is in no pair


def test_features_of_a_turned_photograph(device):
    image = camera()[100:400, 100:400]
    sift = SIFT(device=device, precise_upscale=True)
    features_a, features_b = sift.compute(image), sift.compute(np.rot90(image))
    found = match(features_a, features_b, device=device).to_host()
    (again,) = match_pairs([features_a, features_b], [(0, 1)], device=device)
    assert_array_equal(again.to_host().indices, found.indices)
    features_a, features_b = features_a.to_host(), features_b.to_host()
    rows, cols = features_a.positions[found.indices[:, 0]].T
    turned = np.stack((299 - cols, rows), axis=1)
    errors = np.linalg.norm(turned - features_b.positions[found.indices[:, 1]], axis=1)
    assert len(found) > 0.8 * len(features_a)
    assert (errors < 1).mean() > 0.95


def test_matches_on_the_host():
    found = Matches(np.zeros((3, 2), np.int64), np.zeros(3, np.float32))
    assert len(found) == 3
    assert_array_equal(found.to_host().indices, found.indices)
    with pytest.raises(FrozenInstanceError):
        found.indices = None


@pytest.mark.gpu
def test_cupy_in_cupy_out():
    import cupy

    first, second = related(60, 50, 32, "uint8", 3)
    mask = random_mask(60, 50)
    for dtype in DTYPES:
        given = [cupy.asarray(each.astype(dtype) / (1 if dtype == "uint8" else 8), dtype) for each in (first, second)]
        found = match(*given, mask=cupy.asarray(mask))
        assert isinstance(found.indices, cupy.ndarray)
        assert isinstance(found.distances, cupy.ndarray)
        assert_brute_force(found.to_host(), *(each.get() for each in given), mask=mask)
        (again,) = match_pairs(given, [(0, 1)], mask=[mask])
        assert_array_equal(again.indices.get(), found.indices.get())


# Wrong input

GOOD = descriptors(3, 4)


WITHOUT = Features(np.zeros((3, 2)), *5 * [np.zeros(3)])


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.zeros((3, 5), np.uint8), ValueError, r"must have one length, got \d in features\S+ and \d in features\S+"),
        (
            np.zeros((3, 4), np.float32),
            TypeError,
            r"must be of one dtype, got \w+ in features\S+ and \w+ in features\S+",
        ),
        (np.zeros(4, np.uint8), ValueError, r"features\S+ must be 2-D.*got an array of shape \(4,\)"),
        (np.float32([[0] * 4, [1, np.nan, 1, 1]]), ValueError, r"features\S+ must not hold NaN, got one in row 1"),
        (np.float64([[0] * 4, [1, -np.inf, 1, 1]]), ValueError, r"features\S+ must not hold infinity.* in row 1"),
        (np.zeros((2, 4), complex), TypeError, r"features\S+ must hold real numbers, got dtype complex128"),
        (None, ValueError, r"features\S+ must have descriptors, got none"),
        (WITHOUT, ValueError, r"features\S+ must have descriptors, got none: compute them"),
    ],
)
def test_wrong_descriptors(bad, error, message):
    for pair in ((GOOD, bad), (bad, GOOD)):
        with pytest.raises(error, match=message):
            match(*pair)
        with pytest.raises(error, match=message):
            match_pairs(pair, [(0, 1)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask": np.ones((3, 4), bool)}, ValueError, r"mask must have the shape \(3, 3\).*got \(3, 4\)"),
        ({"mask": np.ones((3, 3), np.uint8)}, TypeError, "mask must hold booleans.*got dtype uint8"),
        ({"max_ratio": 0}, ValueError, r"max_ratio must be above 0 and at most 1, got 0"),
        ({"max_ratio": 1.1}, ValueError, "max_ratio must be above 0 and at most 1, got 1.1"),
        ({"max_ratio": np.nan}, ValueError, "max_ratio must be above 0 and at most 1, got nan"),
        ({"max_distance": 0}, ValueError, "max_distance must be above 0, got 0"),
        ({"device": "gpu"}, ValueError, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        match(GOOD, GOOD, **options)


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([(0, 1), (0, 2)], {}, r"pairs\[1\] must be two indices of 2 features, got \(0, 2\)"),
        ([(-1, 0)], {}, r"pairs\[0\] must be two indices of 2 features, got \(-1, 0\)"),
        ([(0, 1, 1)], {}, r"pairs\[0\] must be two indices of 2 features, got \(0, 1, 1\)"),
        ([(0, 0.5)], {}, r"pairs\[0\] must be two indices of 2 features, got \(0, 0.5\)"),
        ([(0, 1)], {"mask": []}, "one mask or None for each of 1 pairs, got 0"),
        ([(0, 1), (1, 0)], {"mask": [None, np.ones((2, 3), bool)]}, r"mask\[1\] must have the shape \(3, 3\)"),
    ],
)
def test_wrong_pairs(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        match_pairs([GOOD, GOOD], pairs, **options)


def test_arrays_on_a_gpu_are_not_matched_on_the_cpu():
    class OnGpu:
        __cuda_array_interface__ = {"version": 3}  # noqa: RUF012

    with pytest.raises(ValueError, match="features_b must be on the host to be computed on the CPU"):
        match(GOOD, OnGpu(), device="cpu")
