"""The order in which blocks take the pieces of all levels: whatever a piece needs comes before it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift import SIFT
from gpusift.devices import CpuDevice, get_device
from gpusift.parameters import Parameters
from gpusift.pipeline.plan import Key
from gpusift.stages import blur_order, levels, scale_space
from gpusift.stages.intensities import Image
from tests.support.pictures import textured

PIECE = 16, 40


def tables(shape, batch=1, in_flight=8, piece=PIECE, first=0, **options):
    """The levels, the blurs and the order of their pieces."""
    parameters = Parameters(**options)
    space = levels.lay_out(CpuDevice(), parameters.octave_shapes(shape), parameters.n_levels, batch)
    taps = [np.ones(int(4 * sigma + 0.5) + 1, np.float32) for sigma in parameters.blurs]
    blurs = blur_order.chain(range(first, len(space.shapes)), taps, parameters.n_scales)
    return space, blurs, blur_order.order_of(space, blurs, piece, in_flight)


def rows_needed(blurs, b, first, end, rows):
    """The blur that writes what rows [first, end) of a blur need, and the rows of its level."""
    blur = blurs[b]
    low, high = max(first - blur.radius, 0), min(end + blur.radius, rows)
    step = 1 if blurs[blur.needed].octave == blur.octave else 2
    return blur.needed, step * low, step * (high - 1) + 1


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(24, 150), st.integers(24, 150)),
    batch=st.integers(1, 3),
    in_flight=st.integers(0, 400),
    n_scales=st.integers(1, 5),
    sigma_min=st.floats(1, 8),
    first=st.integers(0, 1),
)
def test_what_a_piece_needs_comes_before_it(shape, batch, in_flight, n_scales, sigma_min, first):
    space, blurs, order = tables(shape, batch, in_flight, first=first, n_scales=n_scales, sigma_min=sigma_min)
    written = {(b, z): np.zeros(space.shapes[blur.octave], bool) for b, blur in enumerate(blurs) for z in range(batch)}
    for b, row, col, image in order.pieces.tolist():
        rows, _ = space.shapes[blurs[b].octave]
        end = min(row + PIECE[0], rows)
        if blurs[b].needed is not None:
            needed, low, high = rows_needed(blurs, b, row, end, rows)
            assert written[needed, image][low:high].all()
        piece = written[b, image][row:end, col : col + PIECE[1]]
        assert piece.size
        assert not piece.any()
        piece[...] = True
    assert all(level.all() for level in written.values())


def test_levels_that_no_octave_needs_keep_the_device_busy_until_the_last_octave():
    _, blurs, order = tables((270, 480), in_flight=40)
    of_last_octave = np.flatnonzero([blurs[b].octave == blurs[-1].octave for b in order.pieces[:, 0]])
    after = order.pieces[of_last_octave[0] :, 0]
    assert sum(blurs[b].octave == 0 for b in after) > 100


def test_a_piece_comes_long_after_those_of_the_level_before_it():
    in_flight = 60
    _, blurs, order = tables((270, 480), in_flight=in_flight)
    turn = {tuple(piece): t for t, piece in enumerate(order.pieces[:, :3].tolist())}
    later = [turn[1, row, 0] - turn[0, row + PIECE[0], 0] for row in range(PIECE[0], 480, PIECE[0])]
    assert blurs[1].needed == 0
    assert min(later) >= 0.5 * in_flight


@pytest.mark.parametrize("blur", [blur_order.Blur(0, 1, 0, np.ones(20, np.float32))])
def test_a_single_blur_waits_for_nothing(blur):
    space, _, _ = tables((40, 50))
    order = blur_order.order_of(space, [blur], PIECE, 8)
    assert order.blurs[0, 10] == -1
    assert order.pieces[:, 1].tolist() == sorted(order.pieces[:, 1].tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pieces_of_any_size_give_the_same_levels(device, dtype, monkeypatch):
    """Also smaller and larger than the tile for which the kernel is compiled."""
    device = get_device(device, dtype)
    image = device.asarray(textured(3, (50, 70)) / 255, device.dtype)
    parameters = Parameters(n_octaves=3)

    def octaves():
        space = scale_space.build(device, image, parameters)
        return [device.to_host(space.octave(o)) for o in range(3)]

    expected = octaves()
    for piece in ((3, 16), (40, 64), (512, 4096)):
        monkeypatch.setattr(type(device), "blur_piece", piece)
        for ours, theirs in zip(octaves(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_launch_can_be_made_again(device):
    """The counters of one launch are where the next one begins."""
    device = get_device(device)
    image = textured(3, (50, 70))
    sift = SIFT(device=device.name)
    key = Key(2, image.shape)
    with sift.device.active(), sift.plans.memory(key) as memory:
        plan = memory.plan(key)
        for array in (image, image[::-1].copy(), image):
            memory.load_batch(plan, 2 * [Image(array)])
            plan.run("intensities", "scale space")
            expected = scale_space.build(sift.device, sift.device.asarray(np.float32(array) / 255), sift.parameters)
            for o in range(len(plan.space.shapes)):
                for z in range(2):
                    ours, theirs = plan.space.octave(o, z), expected.octave(o)
                    np.testing.assert_array_equal(sift.device.to_host(ours), sift.device.to_host(theirs))
