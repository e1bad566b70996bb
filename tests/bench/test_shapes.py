"""The counts of bench.kernels.shapes: how a block traverses a window."""

import numpy as np
import pytest

from bench.kernels import shapes
from bench.kernels.shapes import PARTS, Way, Window

WAYS = [Way(shape, *choices) for shape in ((32, 4), (16, 8), (5, 3)) for choices in ((0, 0, 0), (1, 0, 1), (1, 1, 1))]


def window(seed=0, shape=(23, 31), n_cells=225):
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: shape[0], : shape[1]] - np.array(shape).reshape(2, 1, 1) / 2
    outside = np.abs(rows) + np.abs(cols) > 14
    return Window(np.where(outside, -1, rng.integers(n_cells, size=shape)), n_cells)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_sample_is_one_threads(way):
    one = window()
    taken = [place for walk in shapes.walks(way, one) for place in walk]
    assert len(taken) == len(set(taken))
    assert set(taken) >= set(zip(*np.nonzero(one.cells >= 0)))
    assert shapes.count(way, one).samples == (one.cells >= 0).sum()


def test_threads_that_meet_wait_for_each_other():
    cells = np.zeros(32, int)
    assert shapes.passes(cells, Way((32, 4)), 225) == 32 * PARTS
    assert shapes.passes(np.arange(32), Way((32, 4)), 225) == PARTS
    assert shapes.passes(np.arange(32), Way((32, 4), apart=False), 225) == 4 * PARTS  # cells are four banks apart


def test_what_is_held_is_added_once():
    flat = Window(np.full((4, 64), 7), 225)
    held, added = shapes.count(Way((32, 4)), flat), shapes.count(Way((32, 4), holds=False), flat)
    assert held.samples == added.samples == 256
    assert held.additions == 4 * PARTS  # once by each warp
    assert added.additions == 4 * 2 * PARTS
    assert held.passes == 32 * held.additions


def test_windows_are_those_of_the_kernel():
    """What a window's cells count is what the descriptor is made of: most samples in the middle, all of them inside."""
    found, shape = shapes.windows(5)
    assert shape == (500, 741)
    for one in found:
        assert one.cells.max() < one.n_cells
        assert (one.cells >= 0).mean() > 0.4
