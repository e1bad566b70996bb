"""match_descriptors returns the array of scikit-image's, element for element. For `match` see test_match.py."""

import subprocess
import sys

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skimage.feature import match_descriptors as skimage_match_descriptors

from gpusift.matching import match_descriptors, metrics

OPTIONS = {
    "max_distance": st.sampled_from([np.inf, 0.0, 1.0, 2.0, 3.5]),
    "cross_check": st.booleans(),
    "max_ratio": st.sampled_from([1.0, 0.9, 0.6, 0.0]),
}


on_each_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_same(first, second, device="cpu", **options):
    with np.errstate(invalid="ignore"):
        theirs = skimage_match_descriptors(first, second, **options)
    ours = match_descriptors(first, second, device=device, **options)
    assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype


def pairs_of(dtype, elements):
    """Two sets of descriptors of few values, so that many distances are equal."""

    @st.composite
    def pair(draw):
        width = draw(st.integers(1, 5))
        return tuple(draw(hnp.arrays(dtype, (draw(st.integers(1, 12)), width), elements=elements)) for _ in range(2))

    return pair()


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks of a few rows, so that small sets cross their boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK_SIZE", 24)
        yield


@on_each_device
@given(pairs_of(np.uint8, st.sampled_from([0, 1, 2, 255])), st.fixed_dictionaries(OPTIONS))
def test_ties_of_integers(device, pair, options):
    assert_same(*pair, device, **options)


@on_each_device
@given(pairs_of(np.int16, st.sampled_from([-100, -99, 155])), st.fixed_dictionaries(OPTIONS))
def test_ties_of_integers_of_a_bytes_range(device, pair, options):
    assert_same(*pair, device, **options)


@given(pairs_of(np.float64, st.sampled_from([0.0, 0.5, 1.0, -1.0])), st.fixed_dictionaries(OPTIONS))
def test_ties_of_floats(pair, options):
    assert_same(*pair, **options)


@given(pairs_of(bool, st.booleans()), st.fixed_dictionaries(OPTIONS))
def test_ties_of_bits(pair, options):
    assert_same(*pair, **options)


@given(
    pairs_of(np.float64, st.floats(-10, 10, width=16)),
    st.sampled_from(["cityblock", "chebyshev", "sqeuclidean", "cosine", "canberra", "minkowski"]),
    st.fixed_dictionaries(OPTIONS),
)
def test_metrics(pair, metric, options):
    assert_same(*pair, metric=metric, p=3, **options)


@pytest.mark.parametrize("metric", ["seuclidean", "SE", "mahalanobis", "correlation"])
@pytest.mark.parametrize("max_ratio", [1.0, 0.9])
def test_metrics_of_whole_sets(metric, max_ratio):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 5)), rng.normal(size=(30, 5))
    assert_same(first, second, metric=metric, max_ratio=max_ratio)


def test_callable_metric():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, size=(2, 12, 3))
    assert_same(first, second, metric=lambda a, b: abs(a[0] - b[0]))


@pytest.mark.parametrize(
    ("dtype", "largest", "width"),
    [
        (np.uint8, 255, 128),
        (np.uint8, 255, 130),
        (np.int8, 127, 128),
        (np.uint16, 65535, 128),
        (np.int32, 2**31 - 1, 128),
        (np.int64, 2**62, 16),
        (np.uint64, 2**63, 16),
        (np.float32, 255, 128),  # integers in floats, as OpenCV gives them
    ],
)
@pytest.mark.parametrize("max_ratio", [1.0, 0.99])
def test_largest_values(device, dtype, largest, width, max_ratio):
    """Extreme values, where sums in too small a type would overflow or round."""
    rng = np.random.default_rng(1)
    low = -largest if np.dtype(dtype).kind == "i" else 0
    values = np.array([low, low + 1, 0, largest - 1, largest], dtype=dtype)
    first, second = rng.choice(values, (20, width)), rng.choice(values, (30, width))
    second[:10] = first[:10]
    second[:10, -1] = rng.choice(values, 10)
    assert_same(first, second, device, max_ratio=max_ratio)


def test_close_rivals_of_sift_descriptors(device):
    """Many descriptors of full size, whole blocks: the same indices as from distances."""
    rng = np.random.default_rng(2)
    first = rng.integers(0, 256, (600, 128), dtype=np.uint8)
    second = first[rng.permutation(600)]
    second[::2, 5] += 1
    for options in ({}, {"max_ratio": 0.8}, {"cross_check": False, "max_distance": 100}):
        assert_same(first, second, device, **options)
    matches = match_descriptors(first, second, device=device)
    assert len(matches) == 600
    assert np.abs(first[matches[:, 0]] - second[matches[:, 1]].astype(int)).max() <= 255


def test_second_best_of_one_descriptor():
    assert_same(np.uint8([[1, 2], [3, 4]]), np.uint8([[1, 2]]), max_ratio=0.5)


def test_second_best_at_distance_zero():
    assert_same(np.uint8([[1, 2], [3, 4]]), np.uint8([[1, 2], [1, 2], [9, 9]]), max_ratio=0.5)


def test_infinite_distances():
    assert_same(np.array([[np.inf], [1.0]]), np.array([[2.0], [3.0]]), max_ratio=0.9)


@pytest.mark.parametrize("shapes", [((0, 8), (3, 8)), ((3, 8), (0, 8)), ((0, 8), (0, 8))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_no_descriptors(shapes, dtype):
    first, second = (np.zeros(shape, dtype) for shape in shapes)
    matches = match_descriptors(first, second, max_ratio=0.8)
    assert matches.shape == (0, 2)
    assert matches.dtype == np.int64


def test_wide_integers():
    """Squared distances that would not fit 32 bits."""
    first, second = np.zeros((2, 40000), np.uint8), np.full((3, 40000), 255, np.uint8)
    second[1] -= 1
    assert_same(first, second, max_ratio=0.999)


@pytest.mark.parametrize("bad", ["gpu", "cuda:x", ""])
def test_unknown_device(bad):
    for dtype in (np.uint8, np.float64):
        with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got"):
            match_descriptors(np.zeros((3, 4), dtype), np.zeros((3, 4), dtype), device=bad)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", [None, "cityblock"])
def test_cupy_in_cupy_out(metric):
    import cupy

    first, second = np.random.default_rng(0).integers(0, 9, (2, 30, 8), dtype=np.uint8)
    ours = match_descriptors(cupy.asarray(first), cupy.asarray(second), metric)
    assert isinstance(ours, cupy.ndarray)
    assert_array_equal(ours.get(), skimage_match_descriptors(first, second, metric))
    assert isinstance(match_descriptors(cupy.asarray(first[:0]), second), cupy.ndarray)


def test_inputs_are_not_changed():
    first = np.arange(12, dtype=np.float64).reshape(4, 3)
    second = first[::-1].copy()
    match_descriptors(first, second, max_ratio=0.8)
    assert_array_equal(first, np.arange(12).reshape(4, 3))
    assert_array_equal(second, first[::-1])


GOOD = np.zeros((3, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (np.zeros((3, 5), np.uint8), ValueError, r"Descriptor length must equal.*\(3, 5\)"),
        (np.zeros(4, np.uint8), ValueError, r"must be 2-D.*got an array of shape \(4,\)"),
        (np.zeros((1, 2, 4)), ValueError, r"must be 2-D.*\(1, 2, 4\)"),
        (np.full((2, 4), np.nan), ValueError, "must not hold NaN, got one in row 0"),
        (np.zeros((2, 4), complex), TypeError, "real numbers, got dtype complex128"),
        (None, TypeError, "real numbers, got dtype object"),
        ([["a"] * 4], TypeError, "real numbers, got dtype <U1"),
    ],
)
def test_wrong_input(bad, error, match):
    with pytest.raises(error, match=match):
        match_descriptors(GOOD, bad)
    with pytest.raises(error, match=match.replace("descriptors2", "descriptors1")):
        match_descriptors(bad, GOOD)


def test_import_is_light():
    """Importing the module loads neither SciPy nor CuPy."""
    code = "import sys, gpusift.matching;print([m for m in sys.modules if m.split('.')[0] in ('scipy', 'cupy')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
