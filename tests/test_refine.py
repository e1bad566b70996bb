"""refine_matches finds keypoints in the other image, refuses what does not fit, and leaves alone what fails."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
from numpy.testing import assert_array_equal
from scipy.ndimage import affine_transform

from gpusift import SIFT, match
from gpusift import refine as refinement
from gpusift.geometry import verify
from gpusift.matching import alignment
from gpusift.matching.matches import RefinedMatches, matched_points
from gpusift.refine import refine_matches, refine_pairs

PHOTOGRAPH = skimage.data.camera()[100:340, 100:380]
MATRIX = np.array([[0.97, -0.16], [0.12, 1.06]])  # of row and column, around the middle
MIDDLE = (np.array(PHOTOGRAPH.shape) - 1) / 2
ARRAYS = ("indices", "distances", "positions", "maps", "correlations", "refined")


def warped(matrix=MATRIX):
    inverse = np.linalg.inv(matrix)
    return affine_transform(PHOTOGRAPH / 255.0, inverse, MIDDLE - inverse @ MIDDLE, order=3, mode="reflect")


@pytest.fixture
def scene(device):
    """A photograph and an affine image of it, their features and matches."""
    sift = SIFT(device=device, precise_upscale=True, normalization="root")
    images = [PHOTOGRAPH, warped()]
    features = [each.to_host() for each in sift.compute_batch(images)]
    return sift, images, features, match(*features, device=device)


def errors(positions, features, indices):
    """Distances of positions from where the first image's keypoints are in the second."""
    expected = (features.positions[indices[:, 0]] - MIDDLE) @ MATRIX.T + MIDDLE
    return np.linalg.norm(positions - expected, axis=1)


def test_positions_and_maps_are_closer_to_the_truth(scene):
    sift, images, features, matches = scene
    refined = refine_matches(*images, *features, matches, sift=sift)
    before = errors(features[1].positions[matches.indices[:, 1]], features[0], matches.indices)
    after = errors(refined.positions, features[0], matches.indices)
    assert isinstance(refined, RefinedMatches)
    assert len(refined) == len(matches) > 100
    assert refined.refined.mean() > 0.8
    assert np.median(after[refined.refined]) < 0.5 * np.median(before[refined.refined])
    assert np.median(np.abs(refined.maps[refined.refined] - MATRIX)) < 0.02
    assert (refined.correlations[refined.refined] > 0.6).all()
    alone = ~refined.refined
    assert_array_equal(refined.positions[alone], features[1].positions[matches.indices[alone, 1]])
    assert all(np.isfinite(getattr(refined, name)).all() for name in ARRAYS)


def test_what_takes_matches_takes_refined_positions(scene):
    sift, images, features, matches = scene
    refined = refine_matches(*images, *features, matches, sift=sift)
    points_a, points_b = matched_points(*features, refined)
    assert_array_equal(points_a, features[0].positions[matches.indices[:, 0], ::-1])
    assert_array_equal(points_b, refined.positions[:, ::-1])
    assert verify(*features, refined, model="homography", threshold=0.5).inliers.sum() > (
        verify(*features, matches, model="homography", threshold=0.5).inliers.sum()
    )


def test_many_pairs_are_refined_as_each_is(device, monkeypatch):
    sift = SIFT(device=device)
    images = [PHOTOGRAPH, warped(), warped(np.eye(2)), PHOTOGRAPH[:200, :180]]
    features = sift.compute_batch(images, on_host=True)
    pairs = [(0, 1), (2, 0), (0, 3), (1, 2), (3, 3)]
    matches = [match(features[i], features[j], device=device) for i, j in pairs]
    expected = [
        refine_matches(images[i], images[j], features[i], features[j], some, sift=sift)
        for (i, j), some in zip(pairs, matches, strict=True)
    ]
    for at_once in (refinement.MATCHES_AT_ONCE, 250):
        monkeypatch.setattr(refinement, "MATCHES_AT_ONCE", at_once)
        found = refine_pairs(images, features, pairs, matches, sift=sift)
        for ours, theirs in zip(found, expected, strict=True):
            for name in ARRAYS:
                assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_matches_of_indices_and_no_matches(scene):
    sift, images, features, matches = scene
    expected = refine_matches(*images, *features, matches, sift=sift)
    found = refine_matches(*images, *features, matches.indices[:5], sift=sift)
    assert_array_equal(found.positions, expected.positions[:5])
    assert found.distances is None
    empty = refine_matches(*images, *features, np.empty((0, 2), int), sift=sift)
    assert len(empty) == len(empty.positions) == 0


@pytest.mark.gpu
def test_features_on_the_device_give_matches_there():
    device = "cuda"
    sift = SIFT(device=device)
    features = sift.compute_batch([PHOTOGRAPH, warped()])
    refined = refine_matches(PHOTOGRAPH, warped(), *features, match(*features), sift=sift)
    host = [each.to_host() for each in features]
    expected = refine_matches(PHOTOGRAPH, warped(), *host, match(*host, device=device), sift=sift)
    assert not isinstance(refined.positions, np.ndarray)
    for name in ARRAYS:
        assert_array_equal(getattr(refined.to_host(), name), getattr(expected, name))


def test_affine_shapes_begin_with_the_map_between_regions(device, monkeypatch):
    """In an image seen from the side, more true matches reach the truth in few steps than from rotation and scale."""
    monkeypatch.setattr(alignment, "N_STEPS", 4)
    matrix = np.diag([1.0, 0.5])
    sift = SIFT(device=device, precise_upscale=True, affine_shape=True)
    images = [PHOTOGRAPH, warped(matrix)]
    features = [each.to_host() for each in sift.compute_batch(images)]
    matches = match(*features, device=device)
    truth = (features[0].positions[matches.indices[:, 0]] - MIDDLE) @ matrix.T + MIDDLE
    true = np.linalg.norm(features[1].positions[matches.indices[:, 1]] - truth, axis=1) < 2
    near = {}
    for shaped in (True, False):
        some = features if shaped else [replace(each, affine_shapes=None) for each in features]
        refined = refine_matches(*images, *some, matches, sift=sift)
        assert all(np.isfinite(getattr(refined, name)).all() for name in ARRAYS)
        near[shaped] = int((np.linalg.norm(refined.positions - truth, axis=1)[true] < 0.2).sum())
    assert near[True] > near[False] > 20


def test_affine_shapes_must_be_matrices_of_regions(device):
    sift = SIFT(device=device, affine_shape=True)
    features = sift.compute(PHOTOGRAPH).to_host()
    for wrong in (np.nan, 0, 1e6):
        other = replace(features, affine_shapes=features.affine_shapes * np.float32(wrong))
        with pytest.raises(ValueError, match="image 1: affine_shapes must be matrices with a determinant between"):
            refine_matches(PHOTOGRAPH, PHOTOGRAPH, features, other, np.array([[0, 0], [1, 1]]), sift=sift)


def test_images_without_structure_leave_matches_alone(scene):
    sift, images, features, matches = scene
    flat = np.full(PHOTOGRAPH.shape, 0.5)
    for pair in ((flat, images[1]), (images[0], flat)):
        refined = refine_matches(*pair, *features, matches, sift=sift)
        assert not refined.refined.any()
        assert_array_equal(refined.positions, features[1].positions[matches.indices[:, 1]])


def test_the_features_must_be_of_the_images(scene):
    sift, images, features, matches = scene
    with pytest.raises(ValueError, match="image 1: the features must be those of the image of 60 x 50 pixels, got"):
        refine_matches(images[0], images[1][:60, :50], *features, matches, sift=sift)
    deep = replace(features[0], octaves=features[0].octaves + 9)
    with pytest.raises(ValueError, match="a keypoint's octave must be one of this image's"):
        refine_matches(*images, deep, features[1], matches, sift=sift)
    with pytest.raises(ValueError, match="matches must be"):
        refine_matches(*images, *features, np.array([[0, 99999]]), sift=sift)
    with pytest.raises(ValueError, match="image 0: image must be finite"):
        refine_matches(np.full(PHOTOGRAPH.shape, np.nan), images[1], *features, matches, sift=sift)
    with pytest.raises(ValueError, match="matches must be one set for each of 2 pairs, got 1"):
        refine_pairs(images, features, [(0, 1), (1, 0)], [matches], sift=sift)


def test_images_without_matches_are_not_read(scene):
    sift, images, features, matches = scene
    tiny = np.zeros((5, 5))
    none = sift.compute(tiny).to_host()
    refined = refine_pairs([*images, tiny], [*features, none], [(0, 2), (0, 1)], [[], matches], sift=sift)
    assert [len(each) for each in refined] == [0, len(matches)]


@pytest.mark.parametrize("pair", [(0, 2), (-1, 0), (0,)])
def test_pairs_must_be_indices_of_images(scene, pair):
    sift, images, features, matches = scene
    with pytest.raises(ValueError, match=r"pairs\[0\] must be two indices of 2 features"):
        refine_pairs(images, features, [pair], [matches], sift=sift)


def test_the_deepest_level_that_describe_takes_exists(device):
    sift = SIFT(device=device, n_scales=1, n_octaves=2)
    features = sift.describe(PHOTOGRAPH, [[120.0, 140.0]], [6.0], [0.0], octaves=[1], scales=[3]).to_host()
    refined = refine_matches(PHOTOGRAPH, PHOTOGRAPH, features, features, [[0, 0]], sift=sift)
    np.testing.assert_allclose(refined.positions, [[120.0, 140.0]], rtol=0, atol=1e-3)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(("sigmas", value, "sigmas must be between 1e-06 and") for value in (0, -1, np.nan, np.inf, 1e38, 1e-45)),
        *(("orientations", value, "orientations must be radians") for value in (np.nan, -np.inf, 90, 1e30)),
        *(("positions", value, "must be those of the image") for value in (np.nan, np.inf, -9, 300, 1e30)),
        *(("octaves", value, "octave must be one of this image's") for value in (-1, 40)),
        *(("scales", value, "scale must be between 0 and") for value in (-1, 40)),
    ],
)
def test_one_wrong_keypoint_is_refused(scene, side, name, value, message):
    sift, images, features, _ = scene
    array = getattr(features[side], name).copy()
    array[-1] = value
    wrong = list(features)
    wrong[side] = replace(features[side], **{name: array})
    last = [[len(each) - 1 for each in features]]
    with pytest.raises(ValueError, match=message):
        refine_matches(*images, *wrong, last, sift=sift)


@pytest.mark.parametrize(("name", "values"), [("sigmas", (1e-6, 1e6)), ("orientations", (-6.28, 6.28))])
def test_odd_keypoints_are_left_alone_or_refined(scene, name, values):
    """Whatever the keypoints, no result is NaN or infinite."""
    sift, images, features, matches = scene
    for pair in np.array(np.meshgrid(values, values)).T.reshape(-1, 2):
        odd = [
            replace(each, **{name: np.full_like(getattr(each, name), value)})
            for each, value in zip(features, pair, strict=True)
        ]
        refined = refine_matches(*images, *odd, matches, sift=sift)
        assert all(np.isfinite(getattr(refined, array)).all() for array in ARRAYS)
        alone = ~refined.refined
        assert_array_equal(refined.positions[alone], features[1].positions[matches.indices[alone, 1]])


@pytest.mark.parametrize("other", [{"upsampling": 1}, {"precise_upscale": False}])
def test_the_sift_must_be_of_the_scale_space_of_the_features(scene, device, other):
    sift, images, features, matches = scene
    different = SIFT(**{"device": device, "precise_upscale": True, "normalization": "root", **other})
    with pytest.raises(ValueError, match=r"image 0: the features must have the upsampling and the bias of sift, "):
        refine_matches(*images, *features, matches, sift=different)
    mixed = [features[0], different.compute(images[1]).to_host()]
    with pytest.raises(ValueError, match=r"image 1: the features must have .* pass the SIFT that made them as sift"):
        refine_matches(*images, *mixed, [[0, 0]], sift=sift)
    unknown = [each.with_provenance(None) for each in features]
    assert len(refine_matches(*images, *unknown, matches, sift=sift)) == len(matches)
    alike = SIFT(device=device, precise_upscale=True)  # descriptors do not matter
    assert_array_equal(
        refine_matches(*images, *features, matches, sift=alike).positions,
        refine_matches(*images, *features, matches, sift=sift).positions,
    )


def test_an_index_selects_matches(scene):
    sift, images, features, matches = scene
    refined = refine_matches(*images, *features, matches, sift=sift)
    only = refined[refined.refined]
    assert isinstance(only, RefinedMatches)
    assert 0 < len(only) < len(refined)
    for name in ARRAYS:
        assert_array_equal(getattr(only, name), getattr(refined, name)[refined.refined])
    assert_array_equal(only.indices, matches[refined.refined].indices)
    assert_array_equal(matched_points(*features, only)[1], only.positions[:, ::-1])
    assert [len(matches[index]) for index in (3, slice(2, 5), [0, 2], np.zeros(len(matches), bool))] == [1, 3, 2, 0]
    assert refine_matches(*images, *features, matches.indices, sift=sift)[:2].distances is None
    with pytest.raises(IndexError):
        matches[len(matches)]


def test_a_limit_that_is_too_small_is_told(scene):
    _, images, features, matches = scene
    small = SIFT(device="cpu", precise_upscale=True, memory_limit=100_000)
    with pytest.raises(MemoryError, match="memory_limit must hold the whole scale space"):
        refine_matches(*images, *features, matches, sift=small)
