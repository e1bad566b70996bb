"""The limit max_keypoints: which keypoints and features are kept, by each rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from gpusift import SIFT, Features
from gpusift.devices.cpu import CpuDevice, CpuLaunch
from gpusift.parameters import Parameters
from gpusift.pipeline.key import Key
from gpusift.pipeline.plan import Plans
from gpusift.stages import selection
from tests.support.same_bytes import digest

CAMERA = data.camera()
HALF = CAMERA[::2, ::2].copy()


def compute(image=HALF, **parameters):
    return SIFT(**parameters).compute(image).to_host()


def same(a, b):
    return len(a) == len(b) and digest(a) == digest(b)


def in_order(features, first):
    """The indices of features sorted by a key, the largest first, of equals the one that comes first."""
    return sorted(range(len(features)), key=lambda i: (-float(first[i]), i))


def chosen_by_grid(features, shape, most):
    """The rule of keep="grid", said plainly."""
    side = (shape[0] * shape[1] * 4 / most) ** 0.5
    cells = {}
    for i in in_order(features, np.abs(features.responses)):
        row, col = features.positions[i].astype(np.float64) // side
        cells.setdefault((row, col), []).append(i)
    turns = [(rank, -abs(float(features.responses[i])), i) for cell in cells.values() for rank, i in enumerate(cell)]
    return sorted(i for *_, i in sorted(turns)[:most])


@pytest.mark.parametrize("most", [1, 7, 100, 10**6, 2**40])
@pytest.mark.parametrize("keep", ["response", "scale"])
def test_a_limit_keeps_the_strongest_of_all_features(device, keep, most):
    every = compute(device=device)
    strength = every.sigmas if keep == "scale" else np.abs(every.responses)
    wanted = every[sorted(in_order(every, strength)[:most])]
    assert same(compute(device=device, max_keypoints=most, keep=keep), wanted)
    assert len(wanted) == min(most, len(every))


@pytest.mark.parametrize("most", [1, 7, 100, 10**6, 2**40])
def test_a_grid_takes_the_strongest_of_each_cell_in_turn(device, most):
    one_each = compute(device=device, upright=True)  # a feature a place: the rule is applied once
    wanted = one_each[chosen_by_grid(one_each, HALF.shape, most)]
    assert same(compute(device=device, upright=True, max_keypoints=most, keep="grid"), wanted)


def test_a_grid_covers_the_image_more_evenly(device):
    def covered(keep):
        features = compute(CAMERA, device=device, max_keypoints=100, keep=keep)
        assert len(features) == 100
        return len(np.unique(features.positions // 64, axis=0))

    assert covered("grid") > 1.2 * covered("response")


def test_of_equals_the_first_ones_are_kept(device):
    """Four times the same tile: each response is there several times."""
    tile = HALF[64:128, 64:128]
    image = np.block([[tile, tile[:, ::-1]], [tile[::-1], tile[::-1, ::-1]]])
    every = compute(image, device=device)
    assert len(np.unique(np.abs(every.responses))) < len(every)
    for most in range(1, len(every), 5):
        wanted = every[sorted(in_order(every, np.abs(every.responses))[:most])]
        assert same(compute(image, device=device, max_keypoints=most), wanted)


@pytest.mark.parametrize("keep", ["response", "scale", "grid"])
@pytest.mark.parametrize("most", [1, 7, 100, 10**6, 2**40])
def test_a_batch_is_limited_as_each_image_is(device, keep, most):
    """What lies behind the end of a list, from a larger image before, does not matter."""
    images = [HALF, np.zeros_like(HALF), HALF[::-1].copy()]
    sift = SIFT(device=device, max_keypoints=most, keep=keep)
    expected = [digest(sift.compute(image)) for image in images]
    sift.compute(CAMERA)
    assert [digest(features) for features in sift.compute_batch(images, batch_size=3)] == expected


@settings(max_examples=60)
@given(
    st.integers(0, 700),
    st.integers(1, 300),
    st.sampled_from(["response", "scale", "grid"]),
    st.sampled_from(["float32", "float64"]),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_the_limit_is_the_rule_said_plainly(n, most, keep, dtype, n_values, seed):
    """With few different strengths, of which many are equal, and with cells that hold most of the keypoints."""
    rng = np.random.default_rng(seed)
    shape = 50, 80
    positions = (rng.random((n, 2)) ** rng.integers(1, 6) * shape).astype(dtype)
    strengths = (rng.integers(-n_values, n_values + 1, n) / 7 * 10.0 ** rng.integers(-9, 9)).astype(dtype)
    sigmas = np.abs(strengths) + np.dtype(dtype).type(1e-3)
    integers = np.ones(n, np.int32)
    features = Features(positions, sigmas, integers, integers, np.zeros(n, dtype), strengths)
    parameters = Parameters(max_keypoints=most, keep=keep)
    kept = selection.strongest(CpuDevice(dtype), features, parameters, shape)
    if keep == "grid":
        expected = chosen_by_grid(features, shape, most) if n > most else range(n)
    else:
        expected = sorted(in_order(features, sigmas if keep == "scale" else np.abs(strengths))[:most])
    assert kept.tolist() == list(expected)


def test_one_graph_holds_every_stage_whatever_the_options():
    """No step is an operation of the host: all of them are launches."""
    device = CpuDevice()
    for keep in ("response", "scale", "grid"):
        for upright in (False, True):
            plans = Plans(device, Parameters(max_keypoints=7, keep=keep, upright=upright))
            key = Key(2, (60, 80), mask_bytes=1)
            with plans.memory(key) as memory:
                launches = memory.plan(key).launches
            assert all(isinstance(launch, CpuLaunch) for launch in launches)
