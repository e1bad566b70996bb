"""The engines of the accuracy study: each makes `Found` of a grey uint8 image.

An engine is made once, by `make`, and called as ``engine(image, budgets)``. It gives the features for each budget, the
largest number of them; None stands for all that its thresholds let through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.accuracy.measures import Found
from bench.common.engines import UnavailableError

Image = NDArray[np.uint8]
Budget = int | None
Engine = Callable[[Image, Sequence[Budget]], list[Found]]

ALL = 1_000_000  # more features than any image of the study has

# What is not a library's default. COLMAP's threshold is half of Lowe's, and it has four octaves.
SETTINGS: dict[str, dict[str, Any]] = {
    "gpusift": {},
    "gpusift precise": {"precise_upscale": True},
    "gpusift root": {"precise_upscale": True, "normalization": "root"},
    "gpusift as COLMAP": {
        "precise_upscale": True,
        "normalization": "root",
        "c_dog": 0.02 / 3,
        "n_octaves": 4,
        "keep": "scale",
    },
    "scikit-image": {},
    "OpenCV": {},
    "OpenCV precise": {"enable_precise_upscale": True},
    "pycolmap": {},
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

    def engine(image: Image, budgets: Sequence[Budget]) -> list[Found]:
        several = [SIFT(**settings, max_keypoints=budget).compute(image).to_host() for budget in budgets]
        return [found(each.positions[:, ::-1], each.sigmas, each.descriptors) for each in several]

    return engine


def scikit_image(**settings: Any) -> Engine:
    """Make `skimage.feature.SIFT`. It has no budget and tells no responses: the largest sigmas are kept."""
    from skimage.feature import SIFT

    def engine(image: Image, budgets: Sequence[Budget]) -> list[Found]:
        sift: Any = SIFT(**settings)
        try:
            sift.detect_and_extract(image)
        except RuntimeError:  # its way to say that there are no features
            return [nothing() for _ in budgets]
        everything = found(sift.positions[:, ::-1], sift.sigmas, sift.descriptors)
        return [cut(everything, everything.sigmas, budget) for budget in budgets]

    return engine


def opencv(**settings: Any) -> Engine:
    """Make ``cv2.SIFT``; a budget, nfeatures, keeps the largest responses."""

    def run(image: Image, budget: Budget) -> Found:
        keypoints, descriptors = cv2.SIFT.create(nfeatures=budget or 0, **settings).detectAndCompute(image, None)
        if not keypoints:
            return nothing()
        points, sizes = np.array([keypoint.pt for keypoint in keypoints]), np.array([each.size for each in keypoints])
        responses = np.array([keypoint.response for keypoint in keypoints])
        return cut(found(points, sizes / 2, descriptors), responses, budget)  # nfeatures lets equal responses through

    return lambda image, budgets: [run(image, budget) for budget in budgets]


def colmap() -> Engine:
    """Make COLMAP's SIFT, which is VLFeat's, on the CPU, with RootSIFT as is its default.

    A budget keeps the largest sigmas: what its max_num_features keeps, but that lets all of the last level through. Its
    upper left pixel has its centre at (0.5, 0.5).
    """
    import pycolmap

    pycolmap.logging.minloglevel = 1  # no line for each extractor
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.sift.max_num_features = ALL
    extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)

    def engine(image: Image, budgets: Sequence[Budget]) -> list[Found]:
        keypoints, descriptors = extractor.extract_from_uint8_array(image)
        if not len(keypoints):
            return [nothing() for _ in budgets]
        points = np.array([(keypoint.x, keypoint.y) for keypoint in keypoints]) - 0.5
        sigmas = np.array([keypoint.compute_scale() for keypoint in keypoints])
        everything = found(points, sigmas, descriptors.data)
        return [cut(everything, sigmas, budget) for budget in budgets]

    return engine


def found(points: NDArray[Any], sigmas: NDArray[Any], descriptors: NDArray[Any]) -> Found:
    """Return features in the types of `Found`."""
    return Found(np.asarray(points, float), np.asarray(sigmas, float), np.asarray(descriptors, np.uint8))


def nothing() -> Found:
    """Return no features."""
    return found(np.empty((0, 2)), np.empty(0), np.empty((0, 128)))


def cut(everything: Found, ranks: NDArray[Any], budget: Budget) -> Found:
    """Return the features of the highest ranks, in the order that they come in."""
    return everything[np.sort(np.argsort(-ranks, kind="stable")[:budget])]
