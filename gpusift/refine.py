"""Refinement of matches: where a keypoint of one image lies in the other, to a tenth of a pixel.

Keypoints of two images are found independently, so the two positions of a match differ by some tenths of a pixel, or
more where the images differ in viewpoint. Here the surroundings of the first keypoint are aligned with the second
image, under an affine map and changes of brightness and contrast (`gpusift.matching.alignment`). It is a step after the
features, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpusift import pipeline
from gpusift.devices.arrays import gpu_of
from gpusift.features import Features
from gpusift.matching import alignment
from gpusift.matching.alignment import Alignment, Templates
from gpusift.matching.matches import Matches, RefinedMatches, index_pairs, match_indices
from gpusift.pipeline.inputs import open_image
from gpusift.pipeline.outcomes import Unfit, require
from gpusift.provenance import require_same_scale_space
from gpusift.sift import SIFT
from gpusift.stages import intensities
from gpusift.stages.levels import ScaleSpace

LEAST_ELONGATION, MOST_ELONGATION = 0.5, 100.0  # of affine shapes that are used
LEAST_SIGMA, MOST_SIGMA = 1e-6, 1e6  # pixels; beyond them their quotients overflow
TURN = 6.2832  # 2 pi, with rounding
MATCHES_AT_ONCE = 1 << 16  # of several pairs: the templates of so many take 250 MB


def refine_matches(
    image_a: Any,
    image_b: Any,
    features_a: Features,
    features_b: Features,
    matches: Any,
    *,
    sift: SIFT | None = None,
) -> RefinedMatches:
    """Refine the positions of matches in the second image.

    Around each keypoint of the first image, a patch of 17 x 17 samples, 0.75 sigma apart, is aligned with the second
    image by the inverse compositional algorithm (Baker and Matthews 2004) in 10 steps, from the rotation and scale of
    the two keypoints. Samples have Gaussian weights; those outside or within 0.5 sigma of the border of either image do
    not count. A match is left alone if at most half of the weight counts, if a patch has no structure, if the
    correlation of the aligned patches is at most 0.6, or if the position moves by 1.5 sigma or more.

    Parameters
    ----------
    image_a, image_b : (M, N) arrays
        The images of the features, as for `SIFT.compute`.
    features_a, features_b : Features
        Their features, on any device.
    matches : Matches or (Q, 2) array of int
        Indices into the one and the other.
    sift : SIFT, optional
        The one that made the features; by default ``SIFT()``. Its device computes; in float32 every device gives the
        same bytes.

    Returns
    -------
    RefinedMatches
        In the order of `matches`; arrays on the device if those of `features_b` are, otherwise of NumPy.

    Raises
    ------
    TypeError, ValueError
        If an image is not one for `SIFT.compute`, or not that of its features (a keypoint lies outside it, or in an
        octave that it lacks); if the features are known to have another upsampling or bias than those of `sift`, or
        have sigmas or orientations out of range; or if the matches are no pairs of indices into the features.
    MemoryError
        If the levels of an image exceed the memory limit of `sift`.

    Examples
    --------
    >>> from skimage.data import camera
    >>> from gpusift import SIFT, match
    >>> from gpusift.refine import refine_matches
    >>> image, shifted = camera()[:400, :400], camera()[3:403, 2:402]
    >>> sift = SIFT(device="cpu")
    >>> a, b = sift.compute_batch([image, shifted])
    >>> refined = refine_matches(image, shifted, a, b, match(a, b), sift=sift)
    >>> errors = refined.positions - (a.positions[refined.indices[:, 0]] - (3, 2))
    >>> bool((abs(errors[refined.refined]) < 0.1).mean() > 0.95)
    True
    """
    return refine_pairs([image_a, image_b], [features_a, features_b], [(0, 1)], [matches], sift=sift)[0]


def refine_pairs(
    images: Sequence[Any],
    features: Sequence[Features],
    pairs: Sequence[tuple[int, int]],
    matches: Sequence[Any],
    *,
    sift: SIFT | None = None,
) -> list[RefinedMatches]:
    """Refine the matches of many pairs of images; the levels of an image are computed once for all its pairs.

    Parameters
    ----------
    images : sequence of (M, N) arrays
        Each is taken when it is needed, at most twice for some 65,000 matches.
    features : sequence of Features
        Of each image.
    pairs : sequence of (int, int)
        Indices of the two images of each pair.
    matches : sequence of Matches or (Q, 2) array of int
        Of each pair.
    sift : SIFT, optional
        As for `refine_matches`.

    Returns
    -------
    list of RefinedMatches
        For each pair what `refine_matches` gives.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `refine_matches`; and ValueError if there is not one set of matches for each pair.
    """
    if len(images) != len(features):
        raise ValueError(f"features must be given for each of {len(images)} images, got {len(features)}")
    pairs = index_pairs(pairs, len(features))
    if len(pairs) != len(matches):
        raise ValueError(f"matches must be one set for each of {len(pairs)} pairs, got {len(matches)}")
    refiner = Refiner(sift or SIFT())
    indices = [match_indices(features[i], features[j], some) for (i, j), some in zip(pairs, matches)]
    refined = [_result(refiner, some, each, _nothing(refiner), True) for some, each in zip(indices, matches)]
    worth = [k for k, some in enumerate(indices) if len(some)]  # images whose pairs have no matches are not read
    for start, stop in _chunks([len(indices[k]) for k in worth]):
        chunk = worth[start:stop]
        few = [pairs[k] for k in chunk], [indices[k] for k in chunk], [matches[k] for k in chunk]
        for k, result in zip(chunk, _refine_chunk(refiner, images, features, *few)):
            refined[k] = result
    return refined


class Refiner:
    """Samples templates of keypoints in one image, and aligns them with another.

    Parameters
    ----------
    sift : SIFT
        Its parameters are those of the features, its device computes.
    """

    def __init__(self, sift: SIFT) -> None:
        self.plans, self.device, self.parameters = sift.plans, sift.device, sift.plans.parameters
        self._gpu = sift.device.cuda_index or 0

    def sample(self, image: Any, features: Features, which: str = "") -> Templates:
        """The templates of an image's keypoints; `which` names the image in an error."""
        with self._levels(image, features, which) as (space, keypoints):
            return alignment.sample(self.device, space, keypoints, self.parameters)

    def align(self, image: Any, templates: Templates, features: Features, which: str = "") -> Alignment:
        """Templates aligned with an image at its keypoints."""
        with self._levels(image, features, which) as (space, keypoints):
            aligned = alignment.align(self.device, space, templates, keypoints, self.parameters)
            positions = aligned.positions - self.device.dtype.type(self.parameters.position_shift)
            return Alignment(positions, aligned.maps, aligned.correlations, aligned.aligned)

    @contextmanager
    def _levels(self, image: Any, features: Features, which: str) -> Iterator[tuple[ScaleSpace, Features]]:
        """The levels of an image, and its keypoints on the device, with the positions of the levels."""
        opened = require(open_image(self.plans, image), which)
        with self.device.active():
            if not intensities.is_fit(opened):
                raise ValueError(f"{which}{intensities.why_unfit(opened)}")
            require_same_scale_space(f"{which}the features", features.provenance, self.parameters.provenance)
            keypoints = self._on_device(features)
            self._require_inside(keypoints, opened.shape, which)
            pipeline.require_levels(self.parameters, keypoints, self.parameters.n_octaves_of(opened.shape))
            with pipeline.scale_space_of(self.plans, opened) as space:
                if isinstance(space, Unfit):
                    raise space.error(f"{which}{space.reason}")
                yield space, keypoints.shifted(self.parameters.position_shift)

    def _on_device(self, features: Features) -> Features:
        """Keypoints on the device, in its precision."""
        if not isinstance(features.positions, self.device.xp.ndarray) or gpu_of(features.positions) != self._gpu:
            features = features.to_host()
        reals, asarray = self.device.dtype, self.device.asarray
        return Features(
            asarray(features.positions, reals),
            asarray(features.sigmas, reals),
            asarray(features.scales, np.int32),
            asarray(features.octaves, np.int32),
            asarray(features.orientations, reals),
            asarray(features.responses, reals),
            affine_shapes=None if features.affine_shapes is None else asarray(features.affine_shapes, reals),
        )

    def _require_inside(self, features: Features, shape: tuple[int, int], which: str) -> None:
        sigmas, orientations, xp = features.sigmas, features.orientations, self.device.xp
        if not bool(((sigmas >= LEAST_SIGMA) & (sigmas <= MOST_SIGMA)).all()):
            raise ValueError(
                f"{which}sigmas must be between {LEAST_SIGMA:g} and {MOST_SIGMA:g} pixels, got {float(sigmas.min()):g} "
                f"to {float(sigmas.max()):g}; remove these keypoints"
            )
        if not bool((xp.abs(orientations) <= TURN).all()):
            raise ValueError(
                f"{which}orientations must be radians between -2 pi and 2 pi, got {float(orientations.min()):g} to "
                f"{float(orientations.max()):g}; assign them, e.g. by SIFT.describe"
            )
        if features.affine_shapes is not None:
            (rr, rc), (cr, cc) = features.affine_shapes.transpose(1, 2, 0)
            elongations = rr * cc - rc * cr
            if not bool(((elongations >= LEAST_ELONGATION) & (elongations <= MOST_ELONGATION)).all()):
                raise ValueError(
                    f"{which}affine_shapes must be matrices with a determinant between {LEAST_ELONGATION:g} and "
                    f"{MOST_ELONGATION:g}, got {float(elongations.min()):g} to {float(elongations.max()):g}; compute "
                    "them by SIFT(affine_shape=True)"
                )
        ends = features.positions.min(axis=0), features.positions.max(axis=0)
        lowest, highest = ([float(side) for side in end] for end in ends)
        if not (min(lowest) >= -1 and highest[0] <= shape[0] and highest[1] <= shape[1]):
            raise ValueError(
                f"{which}the features must be those of the image of {shape[0]} x {shape[1]} pixels, got keypoints from "
                f"row {lowest[0]:.0f} and column {lowest[1]:.0f} to row {highest[0]:.0f} and column {highest[1]:.0f}; "
                "pass the image that they were computed from"
            )


def _nothing(refiner: Refiner) -> Alignment:
    """The alignment of no templates."""
    reals = np.empty(0, refiner.device.dtype)
    return Alignment(reals.reshape(0, 2), reals.reshape(0, 2, 2), reals, np.empty(0, bool))


def _chunks(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of pairs with at most MATCHES_AT_ONCE matches, or of one pair."""
    start, total = 0, 0
    for number, count in enumerate(counts):
        if number > start and total + count > MATCHES_AT_ONCE:
            yield start, number
            start, total = number, 0
        total += count
    if start < len(counts):
        yield start, len(counts)


def _refine_chunk(
    refiner: Refiner,
    images: Sequence[Any],
    features: Sequence[Features],
    pairs: Sequence[tuple[int, int]],
    indices: Sequence[np.ndarray],
    matches: Sequence[Any],
) -> list[RefinedMatches]:
    """The refined matches of a few pairs: all templates first, image by image, then all alignments."""
    templates: list[Any] = [None] * len(pairs)
    for image in sorted({i for i, _ in pairs}):
        members = [k for k, (i, _) in enumerate(pairs) if i == image]
        chosen = np.concatenate([indices[k][:, 0] for k in members])
        sampled = refiner.sample(images[image], features[image][chosen], f"image {image}: ")
        for k, part in _parts(members, indices):
            templates[k] = sampled[part]
    refined: list[Any] = [None] * len(pairs)
    for image in sorted({j for _, j in pairs}):
        members = [k for k, (_, j) in enumerate(pairs) if j == image]
        chosen = np.concatenate([indices[k][:, 1] for k in members])
        together = alignment.joined(refiner.device, [templates[k] for k in members])
        aligned = refiner.align(images[image], together, features[image][chosen], f"image {image}: ")
        on_host = isinstance(features[image].positions, np.ndarray)
        for k, part in _parts(members, indices):
            refined[k] = _result(refiner, indices[k], matches[k], aligned[part], on_host)
    return refined


def _parts(members: Sequence[int], indices: Sequence[np.ndarray]) -> Iterator[tuple[int, slice]]:
    """Yield each member with the slice of its matches among those of all members."""
    start = 0
    for k in members:
        yield k, slice(start, start + len(indices[k]))
        start += len(indices[k])


def _result(refiner: Refiner, indices: np.ndarray, matches: Any, aligned: Alignment, on_host: bool) -> RefinedMatches:
    distances = matches.to_host().distances if isinstance(matches, Matches) else None
    found = RefinedMatches(
        indices, distances, aligned.positions, aligned.maps, aligned.correlations, aligned.aligned
    ).to_host()
    if on_host:
        return found
    with refiner.device.active():
        arrays = vars(found).values()
        return RefinedMatches(*(None if array is None else refiner.device.asarray(array) for array in arrays))
