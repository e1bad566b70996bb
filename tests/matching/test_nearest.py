"""The matching kernels find what brute force finds: exact distances, ties to the lower index, masks, any split."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpusift.devices import CpuDevice, get_device, host_library
from gpusift.matching import nearest
from tests.support import brute_force
from tests.support.brute_force import best_two, descriptors, search

PRECISIONS = ("float32", "float64")


def assert_brute_force(device, first, second, mask=None, n_splits=None):
    """Exact for bytes and for reals whose squares and sums are exact."""
    for ours, theirs in zip(search(device, first, second, mask, n_splits), best_two(first, second, mask)):
        assert_array_equal(ours, theirs)


CASES = {
    "m": st.integers(1, 150),
    "n": st.integers(1, 90),
    "width": st.integers(1, 200),
    "n_values": st.sampled_from([1, 2, 3, 16, 256]),
    "seed": st.integers(0, 99),
    "n_splits": st.integers(1, 9),
    "share": st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries(CASES), st.sampled_from(["uint8", *PRECISIONS]))
def test_brute_force(device, case, dtype):
    first = descriptors(case["m"], case["width"], dtype, case["seed"], case["n_values"])
    second = descriptors(case["n"], case["width"], dtype, case["seed"] + 1, case["n_values"])
    mask = None
    if case["share"] is not None:
        mask = np.random.default_rng(case["seed"]).random((case["m"], case["n"])) < case["share"]
    device = get_device(device, "float32" if dtype == "uint8" else dtype)
    assert_brute_force(device, first, second, mask, case["n_splits"])


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 1000), (1000, 1), (63, 64), (64, 65), (127, 4), (128, 3), (129, 513)])
def test_edges_of_tiles(device, m, n):
    assert_brute_force(get_device(device), descriptors(m, 128, seed=m), descriptors(n, 128, seed=n))


# Chunks are of 128 bytes on a GPU, on a host of 1024 bytes and 2048 bytes of reals.
@pytest.mark.parametrize("width", [15, 16, 17, 31, 32, 33, 127, 128, 129, 256, 257, 512, 513, 1023, 1024, 1025, 2100])
@pytest.mark.parametrize("dtype", ["uint8", *PRECISIONS])
def test_edges_of_chunks(device, width, dtype):
    device = get_device(device, "float32" if dtype == "uint8" else dtype)
    n_values = 256 if dtype == "uint8" else 64
    assert_brute_force(device, *(descriptors(n, width, dtype, seed=n, n_values=n_values) for n in (70, 37)))


def test_the_widest_bytes_do_not_overflow(device):
    far, near = np.full((2, nearest.LARGEST_WIDTH), 255, np.uint8), np.zeros((3, nearest.LARGEST_WIDTH), np.uint8)
    near[1, 0] = 1
    lowest, second, index = search(get_device(device), far, near)
    assert_array_equal(lowest, np.full(2, np.sqrt(255**2 * (near.shape[1] - 1) + 254**2)))
    assert_array_equal(second, np.full(2, np.sqrt(255**2 * near.shape[1])))
    assert_array_equal(index, [1, 1])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_reals_are_summed_in_the_order_of_the_elements(device, dtype):
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(count, 130)).astype(dtype) for count in (90, 60))
    squares = np.zeros((90, 60), dtype)
    for i in range(130):
        squares += (first[:, None, i] - second[None, :, i]) ** 2
    lowest, second_lowest, index = search(get_device(device, dtype), first, second)
    assert_array_equal(index, squares.argmin(axis=1))
    two = np.sort(squares, axis=1)[:, :2].astype(np.float64)
    assert_array_equal(np.stack((lowest, second_lowest), axis=1), np.sqrt(two))


def test_distances_too_large_for_the_precision_are_none(device):
    first, second = np.float32([[3e38], [1]]), np.float32([[-3e38], [2]])
    lowest, second_lowest, index = search(get_device(device), first, second)
    assert_array_equal(index, [-1, 1])
    assert_array_equal(lowest, [np.inf, 1])
    assert_array_equal(second_lowest, [np.inf, np.inf])


def test_several_jobs_of_listed_queries(device):
    """Each job's queries, in any order and repeated, are compared with its own others under its own mask."""
    device = get_device(device)
    sets = [descriptors(count, 20, seed=count, n_values=4) for count in (40, 300, 7)]
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, 350).astype(np.int32)  # all of the first set
    mask = rng.random((40, 7)) < 0.5
    jobs = np.array([[0, 140, 40, 300, 0, 0, 0], [140, 210, 340, 7, -340, 7, 1]])
    with device.active():
        uploaded = nearest.upload(device, sets)
        allowed = device.asarray(mask.reshape(-1).view(np.uint8))
        found = nearest.best_two(uploaded, device.asarray(rows), jobs, allowed, n_splits=3)
        ours = [device.to_host(each) for each in found]
    for part, other, start, chosen in ((slice(140), 1, 40, None), (slice(140, 350), 2, 340, mask)):
        theirs = best_two(sets[0][rows[part]], sets[other], None if chosen is None else chosen[rows[part]])
        assert_array_equal(ours[0][part], theirs[0])
        assert_array_equal(ours[1][part], theirs[1])
        assert_array_equal(ours[2][part], np.where(theirs[2] >= 0, theirs[2] + start, -1))


@pytest.mark.parametrize("n_splits", [1, 2, 3, 7, 40])
def test_a_split_changes_nothing(device, n_splits):
    device = get_device(device)
    first, second = descriptors(50, 16, seed=1, n_values=2), descriptors(40, 16, seed=2, n_values=2)
    whole = search(device, first, second, n_splits=1)
    for ours, expected in zip(search(device, first, second, n_splits=n_splits), whole):
        assert_array_equal(ours, expected)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_same_bytes_on_every_instruction_set_and_number_of_threads(dtype):
    found = {
        (library.instruction_set, n_threads): brute_force.digest(CpuDevice(dtype, n_threads, library))
        for library in host_library.libraries()
        for n_threads in (1, 2, 5)
    }
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_same_bytes_as_the_cpu(device, dtype):
    assert brute_force.digest(get_device(device, dtype)) == brute_force.digest(CpuDevice(dtype))


def test_few_queries_are_spread_over_many_threads():
    device = CpuDevice(num_threads=8)
    tasks = []
    launch = device.launch
    device.launch = lambda name, grid, *rest, **options: (tasks.append(grid[0]), launch(name, grid, *rest, **options))
    first, second = descriptors(5, 8, seed=1), descriptors(5000, 8, seed=2)
    assert_brute_force(device, first, second)
    assert tasks[-1] >= 8


def test_memory_is_not_that_of_the_product():
    first, second = descriptors(9000, 8, seed=1), descriptors(9000, 8, seed=2)
    device = CpuDevice()
    tracemalloc.start()
    sets = nearest.upload(device, [first, second])
    nearest.match(sets, np.array([[0, 1]]), nearest.Rules())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 9000 * 9000 / 20


def test_distances_of_photographs_descriptors(device):
    from skimage.data import camera

    from gpusift import SIFT

    image = camera()[::2, ::2]
    first = SIFT(device=device).compute(image).to_host().descriptors
    second = SIFT(device=device).compute(image[::-1]).to_host().descriptors
    assert len(first) > 150
    lowest, second_lowest, index = search(get_device(device), first, second)
    expected = best_two(first, second)
    assert_array_equal(index, expected[2])
    assert_allclose(lowest, expected[0], rtol=0, atol=0)
    assert_allclose(second_lowest, expected[1], rtol=0, atol=0)
