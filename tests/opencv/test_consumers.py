"""What OpenCV's C++ classes do with a detector, done for ours; and arrays that OpenCV keeps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree
from skimage import data

from gpusift import opencv
from gpusift.opencv import SIFT_create, affine_features, bow_descriptors, image_features

CAMERA = cv2.resize(data.camera(), (330, 250))
HALF = np.where(np.arange(330) < 165, 255, 0).astype(np.uint8) * np.ones((250, 1), np.uint8)


@pytest.fixture(scope="module")
def sift() -> opencv.SIFT:
    return SIFT_create(device="cpu")


def positions(keypoints) -> np.ndarray:
    return np.array([point.pt for point in keypoints])


@pytest.mark.parametrize("mask", [None, HALF, HALF[..., None], HALF.astype(bool)[..., None], cv2.UMat(HALF)])
@pytest.mark.parametrize("image", [CAMERA, CAMERA[..., None], cv2.UMat(CAMERA), cv2.UMat(np.dstack([CAMERA] * 3))])
def test_arrays_of_any_form(sift, image, mask):
    expected, described = sift.detectAndCompute(CAMERA, None if mask is None else HALF)
    keypoints, descriptors = sift.detectAndCompute(image, mask)
    np.testing.assert_array_equal(positions(keypoints), positions(expected))
    is_umat = isinstance(image, cv2.UMat) or isinstance(mask, cv2.UMat)
    assert isinstance(descriptors, cv2.UMat if is_umat else np.ndarray)
    np.testing.assert_array_equal(descriptors.get() if is_umat else descriptors, described)
    np.testing.assert_array_equal(positions(sift.detect(image, mask)), positions(expected))
    values = sift.compute(image, expected)[1]
    assert isinstance(values, cv2.UMat if isinstance(image, cv2.UMat) else np.ndarray)


def test_types_are_opencvs():
    """UMat in, UMat out, by cv2.SIFT itself."""
    theirs = cv2.SIFT_create()
    assert isinstance(theirs.detectAndCompute(cv2.UMat(CAMERA), None)[1], cv2.UMat)
    assert isinstance(theirs.detectAndCompute(CAMERA, cv2.UMat(HALF))[1], cv2.UMat)


@pytest.mark.parametrize("shape", [(250, 330, 2), (250, 331), (250,)])
def test_masks_of_other_shapes_are_refused(sift, shape):
    with pytest.raises(ValueError, match="mask must"):
        sift.detect(CAMERA, np.ones(shape, np.uint8))


@pytest.mark.parametrize("image", [CAMERA, cv2.UMat(CAMERA)])
def test_stitching_matches_image_features(sift, image):
    """OpenCV's matcher finds the shift between two parts of a photograph."""
    left, right = image_features(sift, CAMERA[:, :270]), image_features(sift, CAMERA[:, 60:])
    left.img_idx, right.img_idx = 0, 1
    matches = cv2.detail.BestOf2NearestMatcher_create(False, 0.3).apply2([left, right])
    np.testing.assert_allclose(matches[1].H, [[1, 0, -60], [0, 1, 0], [0, 0, 1]], atol=0.5)
    features = image_features(sift, image, HALF)
    keypoints, descriptors = sift.detectAndCompute(CAMERA, HALF)
    assert features.img_size == (330, 250)
    np.testing.assert_array_equal(positions(features.getKeypoints()), positions(keypoints))
    np.testing.assert_array_equal(features.descriptors.get(), descriptors)


def test_image_features_of_nothing(sift):
    features = image_features(sift, np.zeros((40, 50), np.uint8))
    assert (features.img_size, len(features.getKeypoints())) == ((50, 40), 0)


@pytest.mark.parametrize("kind", [cv2.CV_32F, cv2.CV_8U])
def test_words_are_those_nearest(kind):
    sift = SIFT_create(descriptorType=kind, device="cpu")
    descriptors = sift.detectAndCompute(CAMERA)[1].astype(np.float64)
    words = np.random.default_rng(0).permutation(descriptors)[:9].astype(np.float32)
    got = bow_descriptors(sift, CAMERA, words)
    nearest = ((descriptors[:, None] - words) ** 2).sum(2).argmin(1)
    assert (got.shape, got.dtype) == ((1, 9), np.float32)
    np.testing.assert_allclose(got[0], np.bincount(nearest, minlength=9) / len(nearest), atol=1e-6)
    assert bow_descriptors(sift, np.zeros((40, 50), np.uint8), words) is None
    for wrong in (words[:, :64], words[:0], words[0]):
        with pytest.raises(ValueError, match=r"vocabulary must be \(K, 128\)"):
            bow_descriptors(sift, CAMERA, wrong)


@pytest.mark.skipif(not hasattr(cv2, "BOWImgDescriptorExtractor"), reason=f"OpenCV {cv2.__version__} has no BOW")
def test_words_are_opencvs(sift):
    theirs = cv2.SIFT_create()
    words = theirs.detectAndCompute(CAMERA, None)[1][::30].copy()
    extractor = cv2.BOWImgDescriptorExtractor(theirs, cv2.BFMatcher())
    extractor.setVocabulary(words)
    expected = extractor.compute(CAMERA, theirs.detect(CAMERA))
    assert np.abs(bow_descriptors(sift, CAMERA, words) - expected).sum() < 0.1


def test_affine_views_are_opencvs(sift):
    """In each view, keypoints where OpenCV's AffineFeature has them; the two detectors differ in any view as in one.

    With a step of sqrt(2), OpenCV's tilt of 2 is a little less, by rounding, and its view is off by a pixel.
    """
    theirs = cv2.AffineFeature_create(cv2.SIFT_create(), 2, 0, 1.5, 72).detect(CAMERA)
    keypoints, descriptors = affine_features(sift, CAMERA, max_tilt=2, tilt_step=1.5)
    assert len(keypoints) == len(descriptors)
    views = {point.class_id for point in theirs}
    assert {point.class_id for point in keypoints} == views == set(range(11))
    for view in views:
        ours, expected = (positions([p for p in points if p.class_id == view]) for points in (keypoints, theirs))
        assert np.mean(cKDTree(ours).query(expected)[0] < 0.75) > 0.9
        assert np.mean(cKDTree(expected).query(ours)[0] < 0.75) > 0.7


def test_affine_views_find_what_plain_ones_do_not(sift):
    """A photograph compressed to a quarter of its width: matches at the right places."""
    to_view = np.array([[0.25, 0, 3], [0, 1, 5]])
    view = cv2.warpAffine(cv2.GaussianBlur(CAMERA, (0, 0), 3.1, sigmaY=0.01), to_view, (90, 260))

    def right(find) -> int:
        (a, of_a), (b, of_b) = find(CAMERA), find(view)
        pairs = [m for m, n in cv2.BFMatcher().knnMatch(of_a, of_b, k=2) if m.distance < 0.8 * n.distance]
        at_a, at_b = positions([a[m.queryIdx] for m in pairs]), positions([b[m.trainIdx] for m in pairs])
        return int((np.abs(at_a @ to_view[:, :2].T + to_view[:, 2] - at_b).max(1) < 3).sum()) if pairs else 0

    plain, affine = right(sift.detectAndCompute), right(lambda image: affine_features(sift, image))
    assert affine > 3 * plain + 30


def test_affine_views_keep_the_mask(sift):
    keypoints, _ = affine_features(sift, cv2.UMat(CAMERA), HALF[..., None], max_tilt=2)
    assert len(keypoints) > 100
    assert positions(keypoints)[:, 0].max() < 165 + 3  # a sample of a view is some pixels wide
    assert affine_features(sift, np.zeros((40, 50), np.uint8), max_tilt=1) == ((), None)
    with pytest.raises(ValueError, match="tilts must have 0 <= min_tilt <= max_tilt"):
        affine_features(sift, CAMERA, min_tilt=3, max_tilt=2)


@pytest.mark.parametrize("name", ["AffineFeature_create", "BOWImgDescriptorExtractor", "computeImageFeatures2"])
def test_what_opencv_cannot_do_names_what_can(sift, name):
    with pytest.raises(AttributeError, match=r"OpenCV's C\+\+ classes cannot call gpusift; use gpusift\.opencv\.\w+"):
        getattr(opencv, name)
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        opencv.other  # noqa: B018
    assert name in opencv.__doc__
    with pytest.raises((TypeError, cv2.error), match="Feature2D"):
        cv2.AffineFeature_create(sift)
