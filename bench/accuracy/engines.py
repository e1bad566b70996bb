"""The engines of the accuracy study: each computes `Features` of a grey uint8 image.

An engine is made once, by `make`, and called as ``engine(image, budgets)``. It returns the features for each budget. A
budget is the maximum number of features; None means all that pass the engine's thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.accuracy.measures import Features, Refine
from bench.common.engines import UnavailableError

Image = NDArray[np.uint8]
Budget = int | None
Engine = Callable[[Image, Sequence[Budget]], list[Features]]

ALL = 1_000_000  # exceeds the number of features of every image of the study

SIZES = (0.5, 2**-0.5, 1, 2**0.5, 2)  # of windows, in sigmas: `pooling`

# Settings that are not a library's default. COLMAP has half of Lowe's threshold, and four octaves.
ROOT: dict[str, Any] = {"precise_upscale": True, "normalization": "root"}
AS_COLMAP: dict[str, Any] = {**ROOT, "c_dog": 0.02 / 3, "n_octaves": 4, "keep": "scale"}
SETTINGS: dict[str, dict[str, Any]] = {
    "gpusift": {},
    "gpusift precise": {"precise_upscale": True},
    "gpusift root": ROOT,
    "gpusift root refined": ROOT,
    "gpusift root only refined": ROOT,
    "gpusift root pooled": {**ROOT, "pooling": SIZES},
    "gpusift root pooled refined": {**ROOT, "pooling": SIZES},
    "gpusift root affine": {**ROOT, "affine_shape": True},
    "gpusift root affine refined": {**ROOT, "affine_shape": True},
    "gpusift as COLMAP": AS_COLMAP,
    "gpusift as COLMAP refined": AS_COLMAP,
    "gpusift as COLMAP pooled": {**AS_COLMAP, "pooling": SIZES},
    "gpusift as COLMAP pooled refined": {**AS_COLMAP, "pooling": SIZES},
    "scikit-image": {},
    "OpenCV": {},
    "OpenCV precise": {"enable_precise_upscale": True},
    "pycolmap": {},
    "pycolmap pooled": {"domain_size_pooling": True},
    "pycolmap affine": {"estimate_affine_shape": True},
}


def make(name: str) -> Engine:
    """Make an engine of `SETTINGS`.

    Raises
    ------
    UnavailableError
        If it cannot run here; the message says why.
    """
    library = name.split()[0]
    makers = {"gpusift": gpusift, "scikit-image": scikit_image, "OpenCV": opencv, "pycolmap": colmap}
    try:
        return makers[library](**SETTINGS[name])
    except ImportError as error:
        raise UnavailableError(f"{library} cannot be imported: {error}; pip install {library}") from error


def gpusift(**settings: Any) -> Engine:
    """Make `gpusift.SIFT`; a budget, max_keypoints, keeps the largest responses, or what `settings` say."""
    from gpusift import SIFT

    def engine(image: Image, budgets: Sequence[Budget]) -> list[Features]:
        several = [SIFT(**settings, max_keypoints=budget).compute(image).to_host() for budget in budgets]
        return [features(each.positions[:, ::-1], each.sigmas, each.descriptors) for each in several]

    return engine


def refiner(name: str, first: Image, second: Image, budget: Budget) -> Refine | None:
    """Return what refines matches of two images, for an engine that does; None for all others."""
    if not name.endswith(" refined"):
        return None
    from gpusift import SIFT
    from gpusift.refine import refine_matches

    sift = SIFT(**SETTINGS[name], max_keypoints=budget)
    several = [sift.compute(image).to_host() for image in (first, second)]

    def refine(matches: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        refined = refine_matches(first, second, *several, matches, sift=sift).to_host()
        kept = refined[refined.refined] if name.endswith(" only refined") else refined
        return kept.indices, kept.positions[:, ::-1]

    return refine


def scikit_image(**settings: Any) -> Engine:
    """Make `skimage.feature.SIFT`. It has no budget and no responses: a budget keeps the largest sigmas."""
    from skimage.feature import SIFT

    def engine(image: Image, budgets: Sequence[Budget]) -> list[Features]:
        sift: Any = SIFT(**settings)
        try:
            sift.detect_and_extract(image)
        except RuntimeError:  # it raises this for an image without features
            return [nothing() for _ in budgets]
        everything = features(sift.positions[:, ::-1], sift.sigmas, sift.descriptors)
        return [cut(everything, everything.sigmas, budget) for budget in budgets]

    return engine


def opencv(**settings: Any) -> Engine:
    """Make ``cv2.SIFT``; a budget, nfeatures, keeps the largest responses."""

    def run(image: Image, budget: Budget) -> Features:
        keypoints, descriptors = cv2.SIFT.create(nfeatures=budget or 0, **settings).detectAndCompute(image, None)
        if not keypoints:
            return nothing()
        points, sizes = np.array([keypoint.pt for keypoint in keypoints]), np.array([each.size for each in keypoints])
        responses = np.array([keypoint.response for keypoint in keypoints])
        return cut(features(points, sizes / 2, descriptors), responses, budget)  # nfeatures keeps all equal responses

    return lambda image, budgets: [run(image, budget) for budget in budgets]


def colmap(**settings: Any) -> Engine:
    """Make COLMAP's SIFT, which is VLFeat's, on the CPU, with RootSIFT, its default; `settings` are its SIFT options.

    A budget keeps the largest sigmas, as COLMAP's max_num_features does; but that keeps whole levels. The centre of
    COLMAP's upper left pixel is at (0.5, 0.5).
    """
    import pycolmap

    pycolmap.logging.minloglevel = 1  # omits a line for each extractor
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.sift.max_num_features = ALL
    for name, value in settings.items():
        setattr(options.sift, name, value)
    extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)

    def engine(image: Image, budgets: Sequence[Budget]) -> list[Features]:
        keypoints, descriptors = extractor.extract_from_uint8_array(image)
        if not len(keypoints):
            return [nothing() for _ in budgets]
        points = np.array([(keypoint.x, keypoint.y) for keypoint in keypoints]) - 0.5
        sigmas = np.array([keypoint.compute_scale() for keypoint in keypoints])
        everything = features(points, sigmas, descriptors.data)
        return [cut(everything, sigmas, budget) for budget in budgets]

    return engine


def features(points: NDArray[Any], sigmas: NDArray[Any], descriptors: NDArray[Any]) -> Features:
    """Return `Features` of arrays of any types."""
    return Features(np.asarray(points, float), np.asarray(sigmas, float), np.asarray(descriptors, np.uint8))


def nothing() -> Features:
    """Return no features."""
    return features(np.empty((0, 2)), np.empty(0), np.empty((0, 128)))


def cut(everything: Features, ranks: NDArray[Any], budget: Budget) -> Features:
    """Return the features of the highest ranks, in their order."""
    return everything[np.sort(np.argsort(-ranks, kind="stable")[:budget])]
