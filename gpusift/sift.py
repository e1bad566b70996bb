"""scikit-image's interface: the class `SIFT`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from typing import Any

import numpy as np

from gpusift import pipeline
from gpusift.configuration import Configuration
from gpusift.features import ARRAYS, Features
from gpusift.parameters import Parameters
from gpusift.pipeline import inputs
from gpusift.pipeline.outcomes import Outcome, require
from gpusift.stages.intensities import Image

NO_FEATURES = (
    "SIFT found no features. Try passing in an image containing greater intensity contrasts between adjacent pixels."
)


class SIFT(Configuration):
    """SIFT feature detection and descriptor extraction, as scikit-image's `SIFT`, on a GPU or the CPU.

    Parameters
    ----------
    upsampling : {1, 2, 4}, optional
        Prior to the feature detection the image is enlarged by this factor, linearly.
    n_octaves : int, optional
        Maximum number of octaves. With every octave the image size is halved and the sigma doubled. Fewer are used for
        a small image, so that the last one has at least 12 samples along each dimension.
    n_scales : int, optional
        Number of scales in every octave.
    sigma_min : float, optional
        The blur level of the seed image, in its samples: input pixels / upsampling.
    sigma_in : float, optional
        The assumed blur level of the input image, input pixels; at most sigma_min / upsampling.
    c_dog : float, optional
        Threshold on the contrast of an extremum of the difference of Gaussians, intensity. The value used is
        (2^(1/n_scales) - 1) / (2^(1/3) - 1) * c_dog.
    c_edge : float, optional
        Extrema whose Hessian H has tr(H)^2 / det(H) above (c_edge + 1)^2 / c_edge lie on edges and are discarded.
    n_bins : int, optional
        Number of bins of the orientation histogram, at least 4. (scikit-image needs at least 6.)
    lambda_ori : float, optional
        The orientation's window has a width of 6 * lambda_ori * sigma, weighted by a standard deviation of
        lambda_ori * sigma.
    c_max : float, optional
        Fraction of the histogram's maximum from which on a further peak gives a feature of its own.
    lambda_descr : float, optional
        The descriptor's window has a width of 2 * lambda_descr * sigma * (n_hist + 1) / n_hist, weighted by a standard
        deviation of lambda_descr * sigma.
    n_hist : int, optional
        The descriptor has n_hist * n_hist histograms.
    n_ori : int, optional
        Number of bins of each histogram of the descriptor.
    device : str, optional
        "auto" (a GPU if there is one), "cuda", "cuda:N" or "cpu".
    dtype : {"float32", "float64"}, optional
        Precision of the computation. float32 is the fast one; float64, for comparison with scikit-image, which computes
        in float64 unless the image is float32.
    blur : {"auto", "kernel", "ndimage"}, optional
        "kernel" is our own blur: with float32, the result is the same on every CPU and GPU, byte for byte. "ndimage" is
        `scipy.ndimage.gaussian_filter`, or CuPy's; it is slower and makes no such promise. "auto" is "kernel".
    num_threads : int, optional
        Threads of the CPU device; by default `OMP_NUM_THREADS`, or one for each processor that the process may use by
        its affinity and the quotas of its cgroups.
    max_keypoints : int, optional
        At most so many features are computed. `keep` chooses first among the keypoints, then among their features.
        Those that are kept, and their order, are as without a limit.
    keep : {"response", "scale", "grid"}, optional
        The rule of `max_keypoints`: the largest absolute responses; the largest sigmas; or, for an even coverage, the
        strongest of each cell of a grid (about max_keypoints / 4 square cells), then the second of each, and so on. Of
        equals, the first one is kept.
    upright : bool, optional
        Do not assign orientations: all features point along the rows or, with the layouts "ubc" and "vlfeat", along x.
        Descriptors are not invariant to rotation then. Positions do not change.
    normalization : {"l2", "root"}, optional
        "root" gives RootSIFT [3]_: 512 times the root of each value's fraction of their sum, rounded, as COLMAP does.
        Descriptors of the two do not match each other. Keypoints do not change.
    precise_upscale : bool, optional
        Subtract the bias of upsampling from the positions, see Notes. They then differ by (u - 1) / (2 u) pixels from
        scikit-image's. Nothing else changes.
    descriptor_layout : {"scikit-image", "ubc", "vlfeat"}, optional
        The order of a descriptor's values. "ubc" is the order of Lowe, OpenCV and COLMAP, "vlfeat" that of VLFeat. Both
        also place an orientation's peak at the centre of its bin, as those programs do; scikit-image places it half a
        bin (5 degrees) higher. Positions and sigmas do not change.
    pooling : sequence of float, optional
        Pool descriptors over these sizes of their window (domain-size pooling, DSP-SIFT [4]_): factors of sigma, 1 to
        32 numbers between 1/16 and 16, as ``(0.5, 0.71, 1, 1.41, 2)``; their order does not matter. The histograms of
        each window are divided by their sum, and their mean is normalized. A window is in the octave in which it has
        about as many samples as a window of sigma_min has in the first one, and there in the level whose blur is
        nearest; where the image has none such, in its first or last level. By default a descriptor has one window, in
        the keypoint's level. Descriptors of other factors do not match them. Keypoints do not change. COLMAP's
        domain_size_pooling has 10 factors from 1/6 to 3.
    affine_shape : bool, optional
        Estimate the affine shape of each keypoint [5]_, [6]_, for views from very different directions. Orientations
        and descriptors are those of the region in which the texture has no preferred direction: in 4 turns, the second
        moments of the gradients, in a window of deviation 2 sigma and of the shape before, give the next shape. A shape
        is at most 5 times as long as wide. Its shorter axis is sigma, so that the blur of the keypoint's level fits it;
        the level's blur is not adapted to the longer one, unlike in [6]_, VLFeat and COLMAP. Such descriptors do not
        match others. Positions and sigmas do not change. Not with `upright`.
    upsampling_grid : {"areas", "pixels"}, optional
        Where the samples of the enlarged image lie. "areas" aligns the areas of both images, as scikit-image does.
        "pixels" has a sample at each pixel, as VLFeat, COLMAP and OpenCV's `enable_precise_upscale`; positions have no
        bias then.
    extremum_rule : {"ipol", "vlfeat", "opencv"}, optional
        Which extrema become keypoints. "ipol" follows the paper [2]_, as scikit-image does: an extremum moves in
        position and scale, ends within 0.6 samples of one, and lies one sigma inside the image. VLFeat's does not move
        in scale and ends within 1.5 samples; OpenCV's ends within 0.5 samples, 5 samples inside. They exclude saddles.
    max_orientations : int, optional
        At most so many features for each keypoint: those of the highest peaks. By default all.
    memory_limit : int or float, optional
        Bytes, or a fraction (up to 1.0) of the device's memory, that the scale space and lists of an image may take. An
        image takes about 140 bytes a pixel with upsampling 2. One that takes more than the limit is computed in strips:
        more slowly, with the same result, byte for byte. Images and results are not counted. `describe` and `extract`
        need the whole scale space.

    Attributes
    ----------
    delta_min : float
        The sampling distance of the first octave: 1 / upsampling, input pixels.
    float_dtype : dtype
        The precision of the computation.
    n_octaves : int
        The octaves of the last image; before that, the parameter.
    deltas : (n_octaves,) array
        The sampling distances of all octaves, input pixels.
    scalespace_sigmas : (n_octaves, n_scales + 3) array
        The sigma value of all scales in all octaves, input pixels. None before the first image.
    keypoints : (N, 2) array of int
        Keypoint coordinates as ``(row, col)``, input pixels.
    positions : (N, 2) array of float
        Subpixel-precision keypoint coordinates as ``(row, col)``, input pixels.
    sigmas : (N,) array of float
        The corresponding sigma (blur) value of a keypoint, input pixels.
    scales : (N,) array of int
        The corresponding scale of a keypoint.
    orientations : (N,) array of float
        The orientations of the gradient around every keypoint, radians in (-pi, pi].
    octaves : (N,) array of int
        The corresponding octave of a keypoint.
    descriptors : (N, n_hist * n_hist * n_ori) array of uint8
        The descriptors of a keypoint.
    affine_shapes : (N, 2, 2) array of float
        The affine shape of a keypoint, with `affine_shape`; see `Features`.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not valid; the message names it.
    RuntimeError
        If the device is named and not available; the message says what is missing.

    Notes
    -----
    An image is a 2-D array of NumPy, or a GPU array of CuPy or with ``__cuda_array_interface__`` or DLPack, such as a
    CUDA tensor of PyTorch. A GPU array is not copied through the host, and the results are CuPy arrays then.

    A parameter that is set later, as in ``sift.c_max = 0.7``, is checked and takes effect with the next image. Objects
    can be pickled and copied; a copy has its own buffers on the device.

    scikit-image's conventions hold: rows and columns; the centre of the upper left pixel at (0, 0); an orientation's
    (cos, sin) points along (row, column). With upsampling u its positions are biased by (u - 1) / (2 u) pixels towards
    the lower right, 0.25 for u = 2, and so are ours unless ``precise_upscale``.

    Three errors of scikit-image are not reproduced. Its ``n_octaves`` stays lowered after a small image; here it is
    that of each image. ``upsampling=4`` with the default ``sigma_in`` raises a math domain error; here a ValueError
    that names the largest ``sigma_in``. Images of less than 6 pixels raise an IndexError; here the RuntimeError of any
    image without features.

    References
    ----------
    .. [1] D.G. Lowe. "Distinctive Image Features from Scale-Invariant Keypoints", International Journal of Computer
           Vision, 2004, vol. 60, pp. 91-110. :DOI:`10.1023/B:VISI.0000029664.99615.94`
    .. [2] I. R. Otero and M. Delbracio. "Anatomy of the SIFT Method", Image Processing On Line, 4 (2014), pp. 370-396.
           :DOI:`10.5201/ipol.2014.82`
    .. [3] R. Arandjelovic and A. Zisserman. "Three things everyone should know to improve object retrieval", CVPR 2012.
    .. [4] J. Dong and S. Soatto. "Domain-Size Pooling in Local Descriptors: DSP-SIFT", CVPR 2015.
    .. [5] A. Baumberg. "Reliable Feature Matching Across Widely Separated Views", CVPR 2000.
    .. [6] K. Mikolajczyk and C. Schmid. "Scale & Affine Invariant Interest Point Detectors", International Journal of
           Computer Vision, 2004, vol. 60, pp. 63-86.

    Examples
    --------
    >>> from skimage.data import camera
    >>> from skimage.transform import rotate
    >>> from gpusift import SIFT, match_descriptors
    >>> img1 = camera()
    >>> img2 = rotate(camera(), 90)
    >>> detector_extractor1 = SIFT()
    >>> detector_extractor2 = SIFT()
    >>> detector_extractor1.detect_and_extract(img1)
    >>> detector_extractor2.detect_and_extract(img2)
    >>> matches = match_descriptors(detector_extractor1.descriptors,
    ...                             detector_extractor2.descriptors,
    ...                             max_ratio=0.6)
    >>> matches[10:15]
    array([[ 10, 412],
           [ 11, 417],
           [ 12, 407],
           [ 13, 411],
           [ 14, 406]])
    """

    def __init__(
        self,
        upsampling: int = 2,
        n_octaves: int = 8,
        n_scales: int = 3,
        sigma_min: float = 1.6,
        sigma_in: float = 0.5,
        c_dog: float = 0.04 / 3,
        c_edge: float = 10,
        n_bins: int = 36,
        lambda_ori: float = 1.5,
        c_max: float = 0.8,
        lambda_descr: float = 6,
        n_hist: int = 4,
        n_ori: int = 8,
        *,
        device: str = "auto",
        dtype: str = "float32",
        blur: str = "auto",
        num_threads: int | None = None,
        max_keypoints: int | None = None,
        keep: str = "response",
        upright: bool = False,
        normalization: str = "l2",
        precise_upscale: bool = False,
        descriptor_layout: str = "scikit-image",
        pooling: Sequence[float] | None = None,
        affine_shape: bool = False,
        upsampling_grid: str = "areas",
        extremum_rule: str = "ipol",
        max_orientations: int | None = None,
        memory_limit: int | float | None = None,
    ) -> None:
        arguments = locals()
        parameters = Parameters(**{field.name: arguments[field.name] for field in fields(Parameters)})
        self._configure(parameters, device, dtype, blur, num_threads, memory_limit)

    def detect(self, image: Any, mask: Any = None) -> None:
        """Detects the keypoints and fills the attributes; descriptors become None.

        Parameters
        ----------
        image : (M, N) array
            Any dtype that `skimage.util.img_as_float` takes, with its scaling.
        mask : (M, N) array of bool or int, optional
            Zero where no keypoint is wanted: at the pixel nearest to its position.

        Raises
        ------
        TypeError, ValueError
            If the image is not a finite 2-D array of numbers.
        RuntimeError
            If there are no features.
        """
        self._detect(image, mask, descriptors=False)

    def detect_and_extract(self, image: Any, mask: Any = None) -> None:
        """Detects the keypoints, extracts their descriptors, and fills the attributes.

        Parameters and errors are those of `detect`.
        """
        self._detect(image, mask, descriptors=True)

    def extract(self, image: Any) -> None:
        """Extracts the descriptors of the keypoints that the attributes hold, from this image.

        Parameters
        ----------
        image : (M, N) array
            As for `detect`; it need not be the image that the keypoints were detected in. A keypoint whose window lies
            outside the image gets a descriptor of zeros.

        Raises
        ------
        TypeError, ValueError
            If the image is not a finite 2-D array of numbers, or too small for the keypoints' octaves.
        RuntimeError
            If there are no keypoints yet.
        """
        keypoints = (self.positions, self.sigmas, self.scales, self.octaves, self.orientations)
        if any(array is None for array in keypoints):
            raise RuntimeError("extract needs keypoints: call detect first")
        opened = self._open(image)
        features = self._describe(opened, self.positions, self.sigmas, self.orientations, self.octaves, self.scales)
        self._set_octaves(opened.shape)
        on_host = isinstance(self.positions, np.ndarray)
        described = features.to_host() if on_host else features
        self.descriptors = described.arrays()["descriptors"]

    def compute(self, image: Any, mask: Any = None) -> Features:
        """Detects the keypoints and describes them; leaves the attributes as they are.

        Parameters
        ----------
        image, mask
            As for `detect`.

        Returns
        -------
        Features
            Arrays on the device; of length zero if there are no features.

        Raises
        ------
        TypeError, ValueError
            If the image is not a finite 2-D array of numbers.
        """
        return self._compute(self._open(image), mask)

    def describe(
        self,
        image: Any,
        positions: Any,
        sigmas: Any,
        orientations: Any = None,
        *,
        octaves: Any = None,
        scales: Any = None,
    ) -> Features:
        """Describes keypoints of the user's own; leaves the attributes as they are.

        Parameters
        ----------
        image : (M, N) array
            As for `detect`.
        positions : (N, 2) array of float
            Row and column, input pixels.
        sigmas : (N,) array of float
            Input pixels.
        orientations : (N,) array of float, optional
            Radians: (cos, sin) points along (row, column). By default they are assigned, as those of detected keypoints
            are. A keypoint with several orientations appears once for each, after all the first ones.
        octaves, scales : (N,) arrays of int, optional
            The octave, from 0, and the scale index within it. By default the level whose blur is nearest to sigma.

        Returns
        -------
        Features
            Arrays on the device, in the order of the keypoints; responses are zero. A keypoint whose window lies
            outside the image has a descriptor of zeros.

        Raises
        ------
        TypeError, ValueError
            If the image is not a finite 2-D array of numbers, or the keypoints are not finite numbers of these shapes,
            or it does not have their octaves or scales.
        """
        return self._describe(self._open(image), positions, sigmas, orientations, octaves, scales)

    def compute_batch(
        self, images: Iterable[Any], batch_size: int | None = None, *, on_host: bool = False
    ) -> list[Features]:
        """The features of several images, each as `compute` gives them; those of one shape are computed together.

        Parameters
        ----------
        images : iterable of (M, N) or (1, M, N) arrays
            Their shapes and dtypes may differ. A (B, M, N) or (B, 1, M, N) array is B images.
        batch_size : int, optional
            Images that are computed together, at most. By default as many as suit the device and its memory.
        on_host : bool, optional
            Copy the features to the host, all those of a batch in one copy.

        Returns
        -------
        list of Features
            In the order of the images; arrays on the device, or NumPy's with `on_host`.

        Raises
        ------
        TypeError, ValueError
            As `compute`; the message names the image's number.
        MemoryError
            If not even one image fits the device's memory.
        """
        _require_batch_size(batch_size)
        which = "image {} of the batch: "
        opened = [
            require(inputs.open_image_of_batch(self.plans, image), which.format(number))
            for number, image in enumerate(images)
        ]
        outcomes = pipeline.compute(self.plans, opened, batch_size, on_host=on_host)
        return [require(outcome, which.format(number)) for number, outcome in enumerate(outcomes)]

    def map(self, images: Iterable[Any], batch_size: int | None = None) -> Iterator[Features]:
        """The features of any number of images, one after the other, as ``compute(image).to_host()`` gives them.

        On a GPU, uploads, computation and downloads of consecutive batches overlap. Images are taken from the iterable
        as they are needed, so memory does not grow with their number. Neighbours of one shape make a batch.

        Parameters
        ----------
        images : iterable of (M, N) or (1, M, N) arrays
            Their shapes and dtypes may differ. A (B, M, N) or (B, 1, M, N) array is B images.
        batch_size : int, optional
            Images that are computed together, at most. By default as many as suit the device and its memory.

        Yields
        ------
        Features
            In the order of the images; NumPy arrays.

        Raises
        ------
        TypeError, ValueError
            As `compute`, after the features of all images before it; the message names the image's number.
        """
        _require_batch_size(batch_size)
        opened = (inputs.open_image_of_batch(self.plans, image) for image in images)
        return self._required(pipeline.stream(self.plans, opened, batch_size))

    def _required(self, outcomes: Generator[Outcome, None, None]) -> Iterator[Features]:
        with closing(outcomes):  # a stream that is left early ends at once
            for number, outcome in enumerate(outcomes):
                yield require(outcome, f"image {number}: ")

    def _open(self, image: Any) -> Image:
        return require(inputs.open_image(self.plans, image))

    def _compute(self, image: Image, mask: Any, descriptors: bool = True, on_host: bool = False) -> Features:
        mask = inputs.open_mask(self.device, mask, image.shape)
        (outcome,) = pipeline.compute(self.plans, [image], mask=mask, descriptors=descriptors, on_host=on_host)
        return require(outcome)

    def _describe(
        self, image: Image, positions: Any, sigmas: Any, orientations: Any, octaves: Any, scales: Any
    ) -> Features:
        keypoints = inputs.open_keypoints(
            self.device, self.parameters, image.shape, positions, sigmas, orientations, octaves, scales
        )
        return require(pipeline.describe(self.plans, image, keypoints, assign=orientations is None))

    def _detect(self, image: Any, mask: Any, descriptors: bool) -> None:
        opened = self._open(image)
        features = self._compute(opened, mask, descriptors, on_host=not opened.from_gpu)
        if len(features) == 0:
            raise RuntimeError(NO_FEATURES)
        self._set_octaves(opened.shape)
        self.keypoints = features.keypoints
        for name in ARRAYS:
            setattr(self, name, getattr(features, name))
        with self.device.active():
            self.scales, self.octaves = self.scales.astype(np.int64), self.octaves.astype(np.int64)

    def _set_octaves(self, image_shape: tuple[int, int]) -> None:
        self._n_octaves = self.parameters.n_octaves_of(image_shape)
        self.scalespace_sigmas = self.parameters.scalespace_sigmas(self._n_octaves)


def _require_batch_size(value: int | None) -> None:
    if value is not None and not (isinstance(value, (int, np.integer)) and value >= 1):
        raise ValueError(f"batch_size must be an integer of at least 1 or None, got {value!r}")
