"""The class `SIFT`, with the methods of `cv2.SIFT`."""

# ruff: noqa: N802, N803, N806 - the names are OpenCV's

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from gpusift import pipeline, sift
from gpusift.features import Features
from gpusift.opencv import keypoints as opencv_keypoints
from gpusift.opencv import storage
from gpusift.opencv.arrays import SEVERAL, as_given, checked_mask, filled, grey_of, require_as_many
from gpusift.opencv.keypoints import KeyPoints
from gpusift.opencv.settings import checked, translated
from gpusift.pipeline import inputs
from gpusift.pipeline.outcomes import require


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
        If the device is named and not available.

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
        self._device = device
        self._settings: dict[str, Any] = {}
        self._choose(descriptorType, bool(enable_precise_upscale))
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
            Grey, or blue, green and red (and alpha, which is ignored). A `cv2.UMat` may stand for an array.
        mask : (M, N) or (M, N, 1) array of uint8 or bool, optional, or a list or tuple of them
            Zero where no keypoint is wanted, by the pixel nearest to its position.
        images, masks
            Other names of the two.

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
        each_mask = [None] * len(image) if mask is None else mask
        require_as_many("masks", each_mask, image)
        return tuple(self._detect(*pair, describe=False)[0] for pair in zip(image, each_mask, strict=True))

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
            Another name of image.

        Returns
        -------
        keypoints : tuple of cv2.KeyPoint, or a tuple of them
            Those given, in the order given.
        descriptors : (N, 128) array of float32, or of uint8 with CV_8U, or a tuple of them
            None if there are no keypoints; zeros where the keypoint's window lies outside the image. A `cv2.UMat` if
            the image is one.

        Raises
        ------
        TypeError, ValueError
            If something is not as above, or a keypoint is not finite or has no size.
        """
        image = images if image is None else image
        if not isinstance(image, SEVERAL):
            return self._compute(image, keypoints, descriptors)
        require_as_many("keypoints", keypoints, image)
        results = [self._compute(*pair, None) for pair in zip(image, keypoints, strict=True)]
        return tuple(kept for kept, _ in results), tuple(values for _, values in results)

    def detectAndCompute(
        self,
        image: Any,
        mask: Any = None,
        keypoints: Sequence[cv2.KeyPoint] | None = None,
        useProvidedKeypoints: bool = False,
        *,
        descriptors: np.ndarray | None = None,
    ) -> tuple[KeyPoints, Any]:
        """Finds the keypoints of an image and describes them.

        Parameters
        ----------
        image, mask
            As for `detect`.
        keypoints : sequence of cv2.KeyPoint, optional
            What to describe, instead of detected keypoints.
        useProvidedKeypoints : bool, optional
            Whether to take `keypoints`; the mask does not matter then.
        descriptors : (N, 128) array, optional
            As for `compute`. In OpenCV's Python signature it stands third, where C++ has the keypoints.

        Returns
        -------
        keypoints : tuple of cv2.KeyPoint
        descriptors : (N, 128) array of float32, or of uint8 with CV_8U
            None if there are no keypoints. A `cv2.UMat` if the image or the mask is one.

        Raises
        ------
        TypeError, ValueError
            As in `detect` and `compute`.
        """
        if useProvidedKeypoints:
            return self._compute(image, keypoints, descriptors)
        if isinstance(keypoints, np.ndarray):
            raise TypeError("keypoints must be a sequence of cv2.KeyPoint, got an array; pass it as descriptors=")
        points, values = self._detect(image, mask, describe=True)
        return points, as_given(filled(values, descriptors), image, mask)

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
        """True, as for `cv2.SIFT`."""
        return True

    def write(self, file: Any, name: str | None = None) -> None:
        """Writes the parameters as `cv2.SIFT` does.

        Parameters
        ----------
        file : str or cv2.FileStorage
            A file (.yml, .xml or .json), or storage that is open for writing.
        name : str, optional
            Name of the node in the storage.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        storage.write(file, name, self._stored())

    def save(self, filename: str) -> None:
        """Writes the parameters to a file, from which `read` takes them."""
        self.write(filename)

    def read(self, file: Any) -> None:
        """Reads parameters that `write` or `cv2.SIFT.write` wrote; parameters that are missing stay as they are.

        Parameters
        ----------
        file : str or cv2.FileNode
            A file, or the node of storage.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It has the parameters of another algorithm, or one is not valid.
        """
        stored = storage.read(file, self._stored())
        precise = bool(stored.pop("enable_precise_upscale"))
        del stored["name"]
        self._choose(stored.pop("descriptorType"), precise)
        self._set(**stored)

    def _stored(self) -> dict[str, Any]:
        """The parameters by OpenCV's names, in its order; the last is gpusift's own."""
        own = {"descriptorType": self._type, "enable_precise_upscale": int(self._fixed["precise_upscale"])}
        return {"name": self.getDefaultName(), **self._settings, **own}

    def clear(self) -> None:
        """Does nothing: no state is kept between images."""

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

    def _choose(self, descriptor_type: int, precise_upscale: bool) -> None:
        if descriptor_type not in (cv2.CV_32F, cv2.CV_8U):
            raise ValueError(f"descriptorType must be cv2.CV_32F or cv2.CV_8U, got {descriptor_type!r}")
        self._type = descriptor_type
        self._fixed: dict[str, Any] = {"device": self._device, "precise_upscale": precise_upscale}

    def _set(self, **changes: Any) -> None:
        settings = self._settings | {name: checked(name, value) for name, value in changes.items()}
        self._sift = sift.SIFT(**translated(**settings), **self._fixed)
        self._settings = settings

    def _detect(self, image: Any, mask: Any, describe: bool) -> tuple[KeyPoints, np.ndarray | None]:
        opened = require(inputs.open_image(self._sift.plans, grey_of(image)))
        allowed = inputs.open_mask(self._sift.device, checked_mask(mask), opened.shape)
        (outcome,) = pipeline.compute(self._sift.plans, [opened], mask=allowed, descriptors=describe, on_host=True)
        features = require(outcome)
        points = opencv_keypoints.from_features(features, self._sift.parameters)
        return points, self._values(features) if describe else None

    def _compute(self, image: Any, keypoints: Any, out: Any) -> tuple[KeyPoints, Any]:
        grey, parameters = grey_of(image), self._sift.parameters
        kept = opencv_keypoints.checked(keypoints)
        if not kept:
            return (), None
        positions = np.array([point.pt[::-1] for point in kept])
        sigmas = np.array([point.size / 2 for point in kept])
        orientations = np.deg2rad([90 - point.angle for point in kept])
        packed = np.array([point.octave for point in kept])
        octaves, scales = opencv_keypoints.levels_of(packed, sigmas, parameters, parameters.n_octaves_of(grey.shape))
        features = self._sift.describe(grey, positions, sigmas, orientations, octaves=octaves, scales=scales)
        return kept, as_given(filled(self._values(features.to_host()), out), image)

    def _values(self, features: Features) -> np.ndarray | None:
        """The descriptors in the chosen type; None for none, as in OpenCV's Python interface."""
        if not len(features) or features.descriptors is None:
            return None
        return features.descriptors if self._type == cv2.CV_8U else features.descriptors.astype(np.float32)


SIFT_create = SIFT
