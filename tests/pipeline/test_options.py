"""What people expect of a SIFT beyond scikit-image's parameters: limits, masks, layouts, and keypoints of one's own."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from gpusift import SIFT, Features, match, match_descriptors
from tests.support.same_bytes import digest

CAMERA = data.camera()
HALF = CAMERA[::2, ::2].copy()
LAYOUTS = ("scikit-image", "ubc", "vlfeat")


def compute(image=HALF, mask=None, **parameters):
    return SIFT(**parameters).compute(image, mask).to_host()


def same(a, b):
    return len(a) == len(b) and digest(a) == digest(b)


# Masks


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_mask_lets_through_keypoints_by_their_nearest_pixel(device, dtype):
    mask = np.zeros(HALF.shape, dtype)
    mask[30:200, :70] = 1
    mask[::3, 100:] = 100 if dtype is not bool else 1
    for parameters in ({}, {"precise_upscale": True}):
        every = compute(device=device, **parameters)
        rows, cols = np.clip(every.keypoints, 0, np.array(HALF.shape) - 1).T
        wanted = every[mask[rows, cols] != 0]
        assert 0 < len(wanted) < len(every)
        assert same(compute(device=device, mask=mask, **parameters), wanted)


def test_a_mask_comes_before_the_limit(device):
    mask = np.zeros(HALF.shape, bool)
    mask[:, :90] = True
    limited = compute(device=device, mask=mask, max_keypoints=20)
    assert len(limited) == 20
    assert limited.keypoints[:, 1].max() < 90


def test_a_mask_of_nothing(device):
    mask = np.zeros(HALF.shape, bool)
    assert len(compute(device=device, mask=mask)) == 0
    with pytest.raises(RuntimeError, match="no features"):
        SIFT(device=device).detect_and_extract(HALF, mask)
    sift = SIFT(device=device)
    sift.detect(HALF, ~mask)
    assert len(sift.keypoints) == len(compute(device=device))


# Pooling

FIVE = (0.5, 2**-0.5, 1, 2**0.5, 2)


def test_pooling_changes_descriptors_only(device):
    plain, pooled = compute(device=device), compute(device=device, pooling=FIVE)
    for name in ("positions", "sigmas", "orientations", "octaves", "scales", "responses"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(pooled, name))
    assert (plain.descriptors != pooled.descriptors).any(axis=1).all()


def test_the_order_of_the_factors_does_not_matter(device):
    assert same(compute(device=device, pooling=FIVE), compute(device=device, pooling=np.array(FIVE[::-1])))


def test_pooled_descriptors_of_a_batch_and_of_given_keypoints(device):
    sift = SIFT(device=device, pooling=FIVE, precise_upscale=True)
    first, second = sift.compute_batch([HALF, HALF.T.copy().T[::-1]])
    assert same(first, sift.compute(HALF))
    host = second.to_host()
    again = sift.describe(
        HALF[::-1], host.positions, host.sigmas, host.orientations, octaves=host.octaves, scales=host.scales
    ).to_host()
    assert (again.descriptors != host.descriptors).mean() < 1e-3  # positions are shifted and rounded once more


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_layouts_of_pooled_descriptors(device, layout):
    """They order the values as those of plain descriptors."""
    sift = SIFT(device=device, pooling=FIVE)
    given_ones = (HALF, [[60, 70], [80.3, 90.7]], [2.0, 4.0], [0.3, -2])
    natural = sift.describe(*given_ones).to_host().descriptors
    plain = SIFT(device=device).describe(*given_ones).to_host().descriptors
    sift.descriptor_layout = layout
    ordered = sift.describe(*given_ones).to_host().descriptors
    plain_ordered = SIFT(device=device, descriptor_layout=layout).describe(*given_ones).to_host().descriptors
    assert not np.array_equal(ordered, natural)
    order = _order_of(layout)
    np.testing.assert_array_equal(plain[:, order], plain_ordered)
    np.testing.assert_array_equal(natural[:, order], ordered)


def _order_of(layout):
    """Where in scikit-image's layout each value of another one is."""
    order = np.empty(128, int)
    for bin_, direction in np.ndindex(16, 8):
        to = (3 - bin_ % 4) * 4 + bin_ // 4
        order[to * 8 + (-direction % 8 if layout == "vlfeat" else direction)] = bin_ * 8 + direction
    return order


def test_pooling_tells_more_of_a_zoomed_image_apart(device):
    """Not fewer right matches than without."""
    small = cv2.resize(CAMERA, None, fx=0.37, fy=0.37, interpolation=cv2.INTER_AREA)
    found = {}
    for pooling in (None, FIVE):
        a, b = (compute(image, device=device, pooling=pooling, precise_upscale=True) for image in (CAMERA, small))
        matches = match_descriptors(a.descriptors, b.descriptors, max_ratio=0.8)
        errors = (a.positions[matches[:, 0]] + 0.5) * 0.37 - 0.5 - b.positions[matches[:, 1]]
        found[pooling] = int((np.hypot(*errors.T) < 1).sum())
    assert found[FIVE] >= found[None] > 50


# Affine shapes

SHAPED = {"affine_shape": True, "precise_upscale": True}


def test_affine_shapes_keep_the_keypoints(device):
    plain, shaped = compute(device=device), compute(device=device, affine_shape=True)
    assert plain.affine_shapes is None
    assert shaped.affine_shapes.shape == (len(shaped), 2, 2)
    for name in ("positions", "sigmas", "responses"):
        first, second = (np.unique(getattr(some, name), axis=0) for some in (plain, shaped))
        np.testing.assert_array_equal(first, second)


def test_affine_shapes_of_a_batch_of_a_mask_and_of_a_limit(device):
    sift = SIFT(device=device, **SHAPED)
    first, second = sift.compute_batch([HALF, HALF.T.copy()])
    assert same(first, sift.compute(HALF))
    assert same(second, sift.compute(HALF.T.copy()))
    mask = np.zeros(HALF.shape, bool)
    mask[40:, :90] = True
    rows, cols = np.clip(first.to_host().keypoints, 0, np.array(HALF.shape) - 1).T
    assert same(sift.compute(HALF, mask), first.to_host()[mask[rows, cols]])
    sift.max_keypoints = 20
    assert len(sift.compute(HALF)) == 20


@pytest.mark.parametrize("assigned", [False, True])
def test_affine_shapes_of_given_keypoints(device, assigned):
    sift = SIFT(device=device, affine_shape=True)
    found = sift.compute(HALF).to_host()
    n_keypoints = len(np.unique(np.column_stack((found.positions, found.sigmas)), axis=0))
    some = found[:n_keypoints] if assigned else found
    orientations = None if assigned else some.orientations
    levels = {"octaves": some.octaves, "scales": some.scales}
    again = sift.describe(HALF, some.positions, some.sigmas, orientations, **levels).to_host()
    np.testing.assert_array_equal(again.affine_shapes, found.affine_shapes)
    np.testing.assert_array_equal(again.descriptors, found.descriptors)
    assert len(sift.describe(HALF, np.empty((0, 2)), np.empty(0)).affine_shapes) == 0
    assert len(sift.describe(np.zeros((3, 3)), np.empty((0, 2)), np.empty(0)).affine_shapes) == 0


def test_affine_shapes_are_an_attribute(device):
    sift, separate = (SIFT(device=device, affine_shape=True) for _ in range(2))
    sift.detect_and_extract(HALF)
    separate.detect(HALF)
    separate.extract(HALF)
    np.testing.assert_array_equal(sift.affine_shapes, separate.affine_shapes)
    np.testing.assert_array_equal(sift.descriptors, separate.descriptors)


def test_affine_shapes_are_kept(device, tmp_path):
    features = compute(device=device, affine_shape=True)
    features.save(tmp_path / "a.npz")
    assert same(Features.load(tmp_path / "a.npz"), features)
    both = Features.concatenate([features[:3], features[3:]])
    assert same(both, features)
    with pytest.raises(ValueError, match=r"alike|one provenance"):
        Features.concatenate([features, compute(device=device)])


def test_descriptors_with_affine_shapes_are_not_compared_with_others(device):
    with pytest.raises(ValueError, match=r"affine_shape to be compared.*with affine shapes"):
        match(compute(device=device), compute(device=device, affine_shape=True))


def test_affine_shapes_tell_more_of_a_stretched_image_apart(device):
    """More right matches than without, of an image seen from 66 degrees to the side."""
    narrow = cv2.resize(cv2.GaussianBlur(CAMERA, (0, 0), 1), None, fx=0.4, fy=1, interpolation=cv2.INTER_AREA)
    found = {}
    for affine_shape in (False, True):
        some = {"device": device, "precise_upscale": True, "affine_shape": affine_shape}
        a, b = (compute(image, **some) for image in (CAMERA, narrow))
        matches = match_descriptors(a.descriptors, b.descriptors, max_ratio=0.8)
        errors = (a.positions[matches[:, 0]] + 0.5) * (1, 0.4) - 0.5 - b.positions[matches[:, 1]]
        found[affine_shape] = int((np.hypot(*errors.T) < 2).sum())
    assert found[True] > 1.5 * found[False] > 10


# Orientations and layouts


def test_upright_gives_one_feature_a_place(device):
    every = compute(device=device)
    for layout, orientation in (("scikit-image", 0), ("ubc", np.pi / 2)):
        upright = compute(device=device, upright=True, descriptor_layout=layout)
        assert (upright.orientations == np.float32(orientation)).all()
        assert len(upright) == len(np.unique(np.column_stack((every.positions, every.sigmas)), axis=0)) < len(every)
    assert (upright.angles == 0).all() or np.abs(np.mod(upright.angles + 180, 360) - 180).max() < 1e-4


@pytest.mark.parametrize("layout", ["ubc", "vlfeat"])
def test_other_layouts_have_orientations_half_a_bin_lower(device, layout):
    plain, other = compute(device=device), compute(device=device, descriptor_layout=layout)
    assert (plain.positions == other.positions).all()
    lower = np.exp(1j * (other.orientations - plain.orientations))
    assert np.abs(np.angle(lower) + np.pi / 36).max() < 1e-5


@pytest.mark.parametrize("angle", [0, 33, 90, 147, 180, 222, 270, 359])
def test_angles_are_those_of_the_gradient(device, angle):
    """On a ramp that rises towards an angle, clockwise from the x axis, as OpenCV counts it."""
    y, x = np.mgrid[:64, :64] - 32.0
    ramp = 0.5 + 0.01 * (np.cos(np.deg2rad(angle)) * x + np.sin(np.deg2rad(angle)) * y)
    features = SIFT(device=device, descriptor_layout="ubc").describe(ramp, [[32, 32]], [2.0]).to_host()
    assert len(features) == 1
    # the peak lies within its bin of 10 degrees
    assert abs((features.angles[0] - angle + 180) % 360 - 180) <= 5


@given(
    n_hist=st.integers(1, 5),
    n_ori=st.integers(1, 10),
    orientation=st.floats(-np.pi, np.pi),
    normalization=st.sampled_from(["l2", "root"]),
)
def test_layouts_are_orders_of_the_same_values(n_hist, n_ori, orientation, normalization):
    def described(layout):
        sift = SIFT(device="cpu", n_hist=n_hist, n_ori=n_ori, descriptor_layout=layout, normalization=normalization)
        return sift.describe(HALF, [[80.3, 90.7]], [4.0], [orientation]).descriptors.reshape(n_hist, n_hist, n_ori)

    ours, ubc, vlfeat = map(described, LAYOUTS)
    # ours: along the orientation, then across it; theirs: y, then x along the orientation and y to its right
    assert (ubc == ours.transpose(1, 0, 2)[::-1]).all()
    assert (vlfeat == ubc[:, :, -np.arange(n_ori) % n_ori]).all()


@pytest.mark.parametrize("name", ["camera", "coins", "brick", "astronaut"])
def test_descriptors_are_opencvs_on_the_same_keypoints(device, name):
    image = getattr(data, name)()
    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    ours = compute(image, device=device, descriptor_layout="ubc")
    keypoints = [
        cv2.KeyPoint(float(x), float(y), float(2 * sigma), float(angle), 1.0, (octave - 1) & 255 | scale << 8)
        for (y, x), sigma, angle, octave, scale in zip(
            ours.positions, ours.sigmas, ours.angles, ours.octaves.tolist(), ours.scales.tolist(), strict=True
        )
    ]
    kept, theirs = cv2.SIFT_create().compute(image, keypoints)
    assert len(kept) == len(ours) > 500
    a, b = (d / np.linalg.norm(d.astype(float), axis=1, keepdims=True) for d in (ours.descriptors, theirs))
    cosines = np.einsum("ij,ij->i", a, b)
    assert np.median(cosines) > 0.99
    assert np.percentile(cosines, 5) > 0.97


# RootSIFT


def test_root_is_the_root_of_each_share(device):
    """The plain descriptor's bytes are rounded down, so that they leave an interval for each root."""
    plain, root = compute(device=device), compute(device=device, normalization="root")
    assert (plain.positions == root.positions).all()
    low = plain.descriptors.astype(float)
    whole = (low < 255).all(axis=1) & (low.sum(axis=1) > 0)
    assert whole.mean() > 0.9
    low, got = low[whole], root.descriptors[whole].astype(float)
    least = 512 * np.sqrt(low / (low + 1).sum(axis=1, keepdims=True))
    most = 512 * np.sqrt((low + 1) / low.sum(axis=1, keepdims=True))
    assert (got >= np.floor(least + 0.499)).all()
    assert (got <= np.minimum(np.floor(most + 0.501), 255)).all()
    assert np.abs(np.linalg.norm(got, axis=1) - 512).max() < 4


# precise_upscale


@pytest.mark.parametrize(("upsampling", "shift"), [(1, 0), (2, 0.25), (4, 0.375)])
def test_precise_upscale_takes_off_the_bias(device, upsampling, shift):
    parameters = {"device": device, "upsampling": upsampling, "sigma_in": 0.4, "n_octaves": 3}
    plain, precise = compute(**parameters), compute(**parameters, precise_upscale=True)
    assert (precise.positions == plain.positions - np.float32(shift)).all()
    assert (precise.descriptors == plain.descriptors).all()
    sift = SIFT(**parameters, precise_upscale=True)
    again = sift.describe(
        HALF, precise.positions, precise.sigmas, precise.orientations, octaves=precise.octaves, scales=precise.scales
    ).to_host()
    # a position moved there and back may be rounded
    assert (again.descriptors == plain.descriptors).mean() > 0.999


@pytest.mark.parametrize(("precise", "bias"), [(True, 0), (False, 0.5)])
def test_half_a_turn_shows_the_bias(device, precise, bias):
    """Residuals of matched keypoints when the image is turned by 180 degrees, which needs no interpolation."""
    sift = SIFT(device=device, precise_upscale=precise)
    a, b = sift.compute(CAMERA).to_host(), sift.compute(CAMERA[::-1, ::-1].copy()).to_host()
    i, j = match_descriptors(a.descriptors, b.descriptors, max_ratio=0.8).T
    residuals = a.positions[i] - (np.array(CAMERA.shape) - 1 - b.positions[j])
    near = np.abs(residuals - bias).max(axis=1) < 1
    assert near.sum() > 500
    assert np.abs(residuals[near].mean(axis=0) - bias).max() < 0.01


# Keypoints of one's own


def test_the_detected_keypoints_described_again_are_the_same(device):
    every = compute(device=device)
    sift = SIFT(device=device)
    again = sift.describe(
        HALF, every.positions, every.sigmas, every.orientations, octaves=every.octaves, scales=every.scales
    ).to_host()
    assert (again.descriptors == every.descriptors).all()
    assert (again.positions == every.positions).all()


def test_orientations_are_assigned_if_not_given(device):
    every = compute(device=device)
    first = compute(device=device, upright=True)
    sift = SIFT(device=device)
    described = sift.describe(HALF, first.positions, first.sigmas, octaves=first.octaves, scales=first.scales).to_host()
    assert (described.orientations == every.orientations).all()
    assert (described.descriptors == every.descriptors).all()


def test_the_level_is_that_of_the_nearest_blur(device):
    every = compute(device=device)
    sift = SIFT(device=device)
    again = sift.describe(HALF, every.positions, every.sigmas, every.orientations).to_host()
    # refinement may leave a keypoint up to 0.6 scales from its own
    assert ((again.octaves == every.octaves) & (again.scales == every.scales)).mean() > 0.9
    blurs = sift.parameters.scalespace_sigmas(2)
    got = sift.describe(HALF, [[60, 60]] * 6, blurs[:, 1:4].ravel(), np.zeros(6)).to_host()
    assert got.octaves.tolist() == [0, 0, 0, 1, 1, 1]
    assert got.scales.tolist() == [1, 2, 3, 1, 2, 3]
    ends = sift.describe(HALF, [[60, 60]] * 2, [1e-3, 1e4], [0, 0]).to_host()
    assert (ends.octaves[0], ends.scales[0]) == (0, 0)
    assert (ends.octaves[1], ends.scales[1]) == (sift.parameters.n_octaves_of(HALF.shape) - 1, 5)


def test_lists_numbers_and_none_at_all(device):
    sift = SIFT(device=device)
    features = sift.describe(HALF, [[40, 50], [60, 70]], [2, 3], [0, 1]).to_host()
    assert features.positions.tolist() == [[40, 50], [60, 70]]
    assert features.descriptors.shape == (2, 128)
    for nothing in ([], np.empty((0, 2))):
        for orientations in ([], None):
            assert len(sift.describe(HALF, nothing, [], orientations)) == 0
    for far in (500.0, 1e6, 1e9):
        outside = sift.describe(HALF, [[-far, 10.0], [10.0, -far], [far, far]], [2.0] * 3, [0.0] * 3).to_host()
        assert (outside.descriptors == 0).all()
        assert len(sift.describe(HALF, [[-far, far]], [2.0])) == 1
    with pytest.raises(ValueError, match="image is too small for an octave"):
        sift.describe(HALF[:4, :4], [[1, 1]], [1.0])


def test_an_orientation_may_be_any_number_of_turns(device):
    sift = SIFT(device=device)
    plain = sift.describe(HALF, [[80, 90]], [3.0], [2.0]).to_host()
    for turns in (1, -1, 3):
        turned = sift.describe(HALF, [[80, 90]], [3.0], [2.0 + 2 * np.pi * turns]).to_host()
        assert np.abs(turned.descriptors.astype(int) - plain.descriptors).max() <= 1


WRONG = [
    (([[1, 2, 3]], [1.0]), {}, ValueError, r"positions must have the shape \(N, 2\), got \(1, 3\)"),
    (([1.0, 2.0], [1.0]), {}, ValueError, r"positions must have the shape \(N, 2\), got \(2,\)"),
    (([[1, 2]], [1.0, 2.0]), {}, ValueError, r"sigmas must have the shape \(1,\), got \(2,\)"),
    (([[1, 2]], [0.0]), {}, ValueError, "sigmas must be greater than 0, got 0.0"),
    (([[1, np.nan]], [1.0]), {}, ValueError, "positions must be finite and at most 1e.09 in size, got nan"),
    (([[1, 2]], [np.inf]), {}, ValueError, "sigmas must be finite and .* got inf"),
    (([["a", "b"]], [1.0]), {}, TypeError, "positions must hold real numbers, got <U1"),
    (([[1, 2]], [1.0], [0.0, 1.0]), {}, ValueError, r"orientations must have the shape \(1,\), got \(2,\)"),
    (([[1, 2]], [1.0], [0.0]), {"octaves": [0]}, ValueError, "octaves and scales must be given both or neither"),
    (([[1, 2]], [1.0], [0.0]), {"octaves": [50], "scales": [1]}, ValueError, "octave must be one of this image's"),
    (([[1, 2]], [1.0], [0.0]), {"octaves": [0], "scales": [9]}, ValueError, "scale must be between 0 and"),
]


@pytest.mark.parametrize(("arguments", "keywords", "error", "message"), WRONG, ids=[w[-1] for w in WRONG])
def test_wrong_keypoints(device, arguments, keywords, error, message):
    sift = SIFT(device=device)
    with pytest.raises(error, match=message):
        sift.describe(HALF, *arguments, **keywords)
    assert len(sift.compute(HALF))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones((3, 3), bool), ValueError, r"mask must have the image's shape \(256, 256\), got \(3, 3\)"),
        (np.ones(HALF.shape), TypeError, "mask must hold booleans or integers.*float64"),
        ("all", TypeError, "mask must hold booleans or integers"),
    ],
)
def test_wrong_masks(device, mask, error, message):
    with pytest.raises(error, match=message):
        SIFT(device=device).compute(HALF, mask)
