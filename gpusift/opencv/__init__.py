"""OpenCV's face: `SIFT_create` and `SIFT`, to put where a script has `cv2.SIFT_create`.

Keypoints are `cv2.KeyPoint`s, which OpenCV's own drawing, matchers and `compute` take. How they are written:

==============  ====================================================================================================
`pt`            x (column) and y (row), pixels of the image, the centre of the upper left pixel at (0, 0)
`size`          2 sigma, pixels of the image
`angle`         degrees in [0, 360), from the x axis towards the y axis (clockwise as seen)
`response`      absolute value of the difference of Gaussians, intensities in [0, 1]
`octave`        three bytes, lowest first: the octave, signed, -1 the enlarged image's; the layer, from 1; the part of a
                layer that the extremum lies off it, -1/2 as 0 and 1/2 as 255
`class_id`      -1
==============  ====================================================================================================

What differs from OpenCV (5.0, modules/features/src/sift.dispatch.cpp):

- the order of the keypoints: octave, row, column, layer; then, so again, those with further orientations;
- `nfeatures` counts the keypoints that the mask lets through, and is never exceeded; OpenCV counts those of the whole
  image, and keeps all that are as strong as the last;
- the descriptor of a given keypoint does not depend on the other keypoints. It is taken from the level that `octave`
  names where that is one of the image's and its blur is within a layer of `size`, as a SIFT keypoint's is. For other
  keypoints (of another detector, or made by hand, with octave 0) it is the level nearest in blur; OpenCV takes the one
  that `octave` names, whatever the size;
- what OpenCV passes over is an error: `detect` of no image, an image of 2 or of 5 channels, a mask of another shape;
- `SIFT` is no `cv2.Feature2D`: C++ classes of OpenCV that take one cannot take it.
"""

# ruff: noqa: N802, N803, N806 - the names are OpenCV's

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from gpusift import pipeline, sift
from gpusift.features import Features
from gpusift.opencv import keypoints as opencv_keypoints
from gpusift.opencv.keypoints import KeyPoints
from gpusift.parameters import MAX_SCALES, Parameters
from gpusift.pipeline import inputs
from gpusift.pipeline.outcomes import require

INIT_SIGMA = 0.5  # blur that the image is taken to have, input pixels (SIFT_INIT_SIGMA)
LEAST_BLUR = 0.1  # of the enlarged image, samples: for a `sigma` that the image's own blur reaches
ALL_OCTAVES = 32  # more than any image has
ANY_EDGE = 1e12  # edgeThreshold that lets every edge through
SEVERAL = (list, tuple)  # what holds several images


class SIFT:
    """SIFT with `cv2.SIFT`'s methods, computed by gpusift.

    Parameters
    ----------
    nfeatures : int, optional
        The number of features to keep, those of the largest response; 0 or less for all.
    nOctaveLayers : int, optional
        Layers in each octave, from 1 to 60.
    contrastThreshold : float, optional
        Keypoints of a smaller response than contrastThreshold / nOctaveLayers are left out; 0 or less keeps all.
    edgeThreshold : float, optional
        The larger, the more keypoints on edges are kept; 0 or less keeps all.
    sigma : float, optional
        Blur of the first level of the image enlarged twice, its samples.
    descriptorType : {cv2.CV_32F, cv2.CV_8U}, optional
        Of the descriptors' values, which are whole numbers from 0 to 255. True or False here is
        `enable_precise_upscale`, as in OpenCV's other signature.
    enable_precise_upscale : bool, optional
        Whether positions are free of the bias of 1/4 pixel that the enlargement gives them.
    device : str, optional
        "auto" (a GPU if there is one), "cuda", "cuda:N" or "cpu".

    Raises
    ------
    TypeError, ValueError
        If a parameter is not valid; the message names it.
    RuntimeError
        If the device was asked for by name and cannot be had.

    Examples
    --------
    >>> import cv2
    >>> from skimage.data import camera
    >>> from gpusift.opencv import SIFT_create
    >>> sift = SIFT_create(nfeatures=100)
    >>> keypoints, descriptors = sift.detectAndCompute(camera(), None)
    >>> len(keypoints), descriptors.shape, descriptors.dtype
    (100, (100, 128), dtype('float32'))
    """

    def __init__(
        self,
        nfeatures: int = 0,
        nOctaveLayers: int = 3,
        contrastThreshold: float = 0.04,
        edgeThreshold: float = 10,
        sigma: float = 1.6,
        descriptorType: int = cv2.CV_32F,
        enable_precise_upscale: bool = False,
        *,
        device: str = "auto",
    ) -> None:
        if isinstance(descriptorType, bool):
            enable_precise_upscale, descriptorType = descriptorType, cv2.CV_32F
        if descriptorType not in (cv2.CV_32F, cv2.CV_8U):
            raise ValueError(f"descriptorType must be cv2.CV_32F or cv2.CV_8U, got {descriptorType!r}")
        self._type = descriptorType
        self._fixed: dict[str, Any] = {"device": device, "precise_upscale": bool(enable_precise_upscale)}
        self._settings: dict[str, Any] = {}
        self._set(
            nfeatures=nfeatures,
            nOctaveLayers=nOctaveLayers,
            contrastThreshold=contrastThreshold,
            edgeThreshold=edgeThreshold,
            sigma=sigma,
        )

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> SIFT:
        """The same as `SIFT_create`."""
        return cls(*args, **kwargs)

    def detect(self, image: Any = None, mask: Any = None, *, images: Any = None, masks: Any = None) -> Any:
        """Finds the keypoints of an image, or of each of several.

        Parameters
        ----------
        image : (M, N) or (M, N, 3 or 4) array of uint8, or a list or tuple of them
            Grey, or blue, green and red (and alpha, which is not looked at).
        mask : (M, N) array of uint8 or bool, optional, or a list or tuple of them
            Zero where no keypoint is wanted: at the pixel nearest to its position.
        images, masks
            Other names for the two.

        Returns
        -------
        keypoints : tuple of cv2.KeyPoint, or a tuple of them
            Empty if there are none.

        Raises
        ------
        TypeError, ValueError
            If the image or the mask is not as above, or there are not as many masks as images.
        """
        image = images if image is None else image
        mask = masks if mask is None else mask
        if not isinstance(image, SEVERAL):
            return self._detect(image, mask, describe=False)[0]
        given = [None] * len(image) if mask is None else mask
        _require_as_many("masks", given, image)
        return tuple(self._detect(one, its, describe=False)[0] for one, its in zip(image, given, strict=True))

    def compute(
        self, image: Any = None, keypoints: Any = None, descriptors: Any = None, *, images: Any = None
    ) -> tuple[Any, Any]:
        """Describes given keypoints of an image, or of each of several.

        Parameters
        ----------
        image : (M, N) or (M, N, 3 or 4) array of uint8, or a list or tuple of them
            As for `detect`.
        keypoints : sequence of cv2.KeyPoint, or a list or tuple of them
            Of any detector.
        descriptors : (N, 128) array, optional
            Filled and returned if it has the shape and dtype of the result.
        images
            Another name for image.

        Returns
        -------
        keypoints : tuple of cv2.KeyPoint, or a tuple of them
            Those given, in the order given.
        descriptors : (N, 128) array of float32, or of uint8 with CV_8U, or a tuple of them
            None if there are no keypoints; zeros where the keypoint's window lies outside the image.

        Raises
        ------
        TypeError, ValueError
            If something is not as above, or a keypoint is not finite or has no size.
        """
        image = images if image is None else image
        if not isinstance(image, SEVERAL):
            return self._compute(image, keypoints, descriptors)
        _require_as_many("keypoints", keypoints, image)
        results = [self._compute(one, its, None) for one, its in zip(image, keypoints, strict=True)]
        return tuple(kept for kept, _ in results), tuple(described for _, described in results)

    def detectAndCompute(
        self,
        image: Any,
        mask: np.ndarray | None = None,
        keypoints: Sequence[cv2.KeyPoint] | None = None,
        useProvidedKeypoints: bool = False,
        *,
        descriptors: np.ndarray | None = None,
    ) -> tuple[KeyPoints, np.ndarray | None]:
        """Finds the keypoints of an image and describes them.

        Parameters
        ----------
        image, mask
            As for `detect`.
        keypoints : sequence of cv2.KeyPoint, optional
            What to describe, in place of keypoints found.
        useProvidedKeypoints : bool, optional
            Whether to take `keypoints`; the mask does not matter then.
        descriptors : (N, 128) array, optional
            As for `compute`. In OpenCV's Python signature it stands third, where C++ has the keypoints.

        Returns
        -------
        keypoints : tuple of cv2.KeyPoint
        descriptors : (N, 128) array of float32, or of uint8 with CV_8U
            None if there are no keypoints.

        Raises
        ------
        TypeError, ValueError
            As `detect` and `compute`.
        """
        if useProvidedKeypoints:
            return self._compute(image, keypoints, descriptors)
        if isinstance(keypoints, np.ndarray):
            raise TypeError("keypoints must be a sequence of cv2.KeyPoint, got an array; pass it as descriptors=")
        found, described = self._detect(image, mask, describe=True)
        return found, _put(described, descriptors)

    def defaultNorm(self) -> int:
        """The norm to match descriptors by: cv2.NORM_L2."""
        return int(cv2.NORM_L2)

    def descriptorSize(self) -> int:
        """Values of a descriptor: 128."""
        return self._sift.parameters.n_values

    def descriptorType(self) -> int:
        """Type of the descriptors' values: cv2.CV_32F or cv2.CV_8U."""
        return self._type

    def getDefaultName(self) -> str:
        """OpenCV's name of the algorithm."""
        return "Feature2D.SIFT"

    def empty(self) -> bool:
        """True, as `cv2.SIFT` says."""
        return True

    def clear(self) -> None:
        """Nothing: no state is kept between images."""

    def getNFeatures(self) -> int:
        """The number of features to keep."""
        return self._settings["nfeatures"]

    def setNFeatures(self, maxFeatures: int) -> None:
        """Sets the number of features to keep; 0 or less for all."""
        self._set(nfeatures=maxFeatures)

    def getNOctaveLayers(self) -> int:
        """Layers in each octave."""
        return self._settings["nOctaveLayers"]

    def setNOctaveLayers(self, nOctaveLayers: int) -> None:
        """Sets the layers in each octave."""
        self._set(nOctaveLayers=nOctaveLayers)

    def getContrastThreshold(self) -> float:
        """The threshold on contrast: nOctaveLayers times the least response of a keypoint."""
        return self._settings["contrastThreshold"]

    def setContrastThreshold(self, contrastThreshold: float) -> None:
        """Sets the threshold on contrast: nOctaveLayers times the least response of a keypoint."""
        self._set(contrastThreshold=contrastThreshold)

    def getEdgeThreshold(self) -> float:
        """The threshold on edges."""
        return self._settings["edgeThreshold"]

    def setEdgeThreshold(self, edgeThreshold: float) -> None:
        """Sets the threshold on edges."""
        self._set(edgeThreshold=edgeThreshold)

    def getSigma(self) -> float:
        """Blur of the first level, samples of the enlarged image."""
        return self._settings["sigma"]

    def setSigma(self, sigma: float) -> None:
        """Sets the blur of the first level, samples of the enlarged image."""
        self._set(sigma=sigma)

    def _set(self, **changes: Any) -> None:
        settings = self._settings | {name: _checked(name, value) for name, value in changes.items()}
        self._sift = sift.SIFT(**_translated(**settings), **self._fixed)
        self._settings = settings

    def _detect(self, image: Any, mask: Any, describe: bool) -> tuple[KeyPoints, np.ndarray | None]:
        opened = require(inputs.open_image(self._sift.plans, _grey(image)))
        on_device = inputs.open_mask(self._sift.device, _checked_mask(mask), opened.shape)
        (outcome,) = pipeline.compute(self._sift.plans, [opened], mask=on_device, descriptors=describe, on_host=True)
        features = require(outcome)
        points = opencv_keypoints.from_features(features, self._sift.parameters)
        return points, self._values(features) if describe else None

    def _compute(self, image: Any, keypoints: Any, out: Any) -> tuple[KeyPoints, np.ndarray | None]:
        grey, parameters = _grey(image), self._sift.parameters
        kept = opencv_keypoints.checked(keypoints)
        if not kept:
            return (), None
        positions = np.array([point.pt[::-1] for point in kept])
        sigmas = np.array([point.size / 2 for point in kept])
        orientations = np.deg2rad([90 - point.angle for point in kept])
        packed = np.array([point.octave for point in kept])
        octaves, scales = opencv_keypoints.levels_of(packed, sigmas, parameters, parameters.n_octaves_of(grey.shape))
        features = self._sift.describe(grey, positions, sigmas, orientations, octaves=octaves, scales=scales)
        return kept, _put(self._values(features.to_host()), out)

    def _values(self, features: Features) -> np.ndarray | None:
        """The descriptors in the type asked for; None, as OpenCV's Python has it, for none."""
        if not len(features) or features.descriptors is None:
            return None
        return features.descriptors if self._type == cv2.CV_8U else features.descriptors.astype(np.float32)


SIFT_create = SIFT


def _translated(
    nfeatures: int, nOctaveLayers: int, contrastThreshold: float, edgeThreshold: float, sigma: float
) -> dict[str, Any]:
    """What `gpusift.SIFT` takes to do what OpenCV does with these."""
    per_c_dog = Parameters(n_scales=nOctaveLayers, c_dog=1).final_c_dog
    return {
        "n_octaves": ALL_OCTAVES,
        "n_scales": nOctaveLayers,
        "sigma_min": sigma,
        "sigma_in": min(INIT_SIGMA, math.sqrt(max(sigma**2 - LEAST_BLUR**2, 0)) / 2),
        "c_dog": max(contrastThreshold, 0) / nOctaveLayers / per_c_dog,
        "c_edge": edgeThreshold if edgeThreshold > 0 else ANY_EDGE,
        "max_keypoints": nfeatures if nfeatures > 0 else None,
        "descriptor_layout": "ubc",
    }


def _checked(name: str, value: Any) -> int | float:
    """A parameter as a number of its kind, under OpenCV's name of it."""
    whole = name in ("nfeatures", "nOctaveLayers")
    try:
        number = operator.index(value) if whole else float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if name == "nOctaveLayers" and not 1 <= number <= MAX_SCALES:
        raise ValueError(f"nOctaveLayers must be between 1 and {MAX_SCALES}, got {value!r}")
    if name == "sigma" and number <= 0:
        raise ValueError(f"sigma must be greater than 0, got {value!r}")
    return number


def _grey(image: Any) -> np.ndarray:
    """An image as OpenCV's SIFT looks at it."""
    if not isinstance(image, np.ndarray):
        hint = "; cv2.imread returns None for a file that it cannot read" if image is None else ""
        raise TypeError(f"image must be a NumPy array of uint8, got {type(image).__name__}{hint}")
    if image.dtype != np.uint8:
        raise TypeError(f"image must be of uint8, 0 black and 255 white, got {image.dtype}; convert it first")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(f"image must be (rows, columns) or (rows, columns, 3 or 4), got shape {image.shape}")
    if image.size == 0:
        raise ValueError(f"image must have at least one pixel, got shape {image.shape}")
    return image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)


def _checked_mask(mask: Any) -> np.ndarray | None:
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.bool_):
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask must be a NumPy array of uint8 or bool, zero where no keypoint is wanted, got {kind}")
    return mask


def _require_as_many(name: str, given: Any, images: Sequence[Any]) -> None:
    got = len(given) if isinstance(given, SEVERAL) else type(given).__name__
    if got != len(images):
        raise ValueError(f"{name} must be a list or tuple of one for each of the {len(images)} images, got {got}")


def _put(described: np.ndarray | None, out: Any) -> np.ndarray | None:
    """The descriptors, in the caller's array where they fit."""
    if described is None or (np.shape(out), getattr(out, "dtype", None)) != (described.shape, described.dtype):
        return described
    out[...] = described
    return out
