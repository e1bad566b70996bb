"""The limit max_keypoints: which keypoints and features are kept, by each rule."""

import numpy as np
import pytest
from skimage import data

from gpusift import SIFT
from gpusift.devices.cpu import CpuDevice
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


@pytest.mark.parametrize("most", [1, 7, 100, 10**6])
@pytest.mark.parametrize("keep", ["response", "scale"])
def test_a_limit_keeps_the_strongest_of_all_features(device, keep, most):
    every = compute(device=device)
    strength = every.sigmas if keep == "scale" else np.abs(every.responses)
    wanted = every[sorted(in_order(every, strength)[:most])]
    assert same(compute(device=device, max_keypoints=most, keep=keep), wanted)
    assert len(wanted) == min(most, len(every))


@pytest.mark.parametrize("most", [1, 7, 100, 10**6])
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
@pytest.mark.parametrize("most", [1, 7, 100, 10**6])
def test_a_limit_needs_not_know_how_many_there_are(monkeypatch, keep, most):
    """As on a GPU, where only the device knows the lengths of lists; what lies behind their ends is of no account."""
    images = [HALF, np.zeros_like(HALF), HALF[::-1].copy()]
    known = SIFT(device="cpu", max_keypoints=most, keep=keep).compute_batch(images)
    monkeypatch.setattr(CpuDevice, "bound_of_length", lambda self, length, capacity: capacity)
    sift = SIFT(device="cpu", max_keypoints=most, keep=keep)
    sift.compute(CAMERA)  # which leaves longer lists behind
    for ours, theirs in zip(sift.compute_batch(images, batch_size=3), known, strict=True):
        assert same(ours, theirs)
