"""Images that exceed the memory limit: computed octave by octave, and an octave that exceeds it strip by strip.

A strip holds some rows of all levels of an octave. Its levels are wrong near its upper and lower end, because blurs
reflect the strip's end there, where the image goes on. So strips overlap, and candidates are searched only in those
rows whose keypoints depend on none of the wrong samples. The features are the same, byte for byte, as without strips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import MAX_OFFSET, MAX_REFINEMENT_STEPS, Parameters, gaussian_taps
from gpusift.pipeline.outcomes import Outcome, Unfit
from gpusift.pipeline.plan import SPARE, Key, Memory, Plan, Plans, Strip, bytes_of
from gpusift.pipeline.results import Fitted, wait_until_lists_fit
from gpusift.stages import feature_lists, intensities, selection
from gpusift.stages.feature_lists import USABLE_FEATURES, USABLE_KEYPOINTS
from gpusift.stages.intensities import Image

LEAST_ROWS = 16  # in which a strip must search for candidates, to be worth the rows of its overlap
STEP = 4  # strips begin and end at multiples of this: the rows of the first octave that come from one row of an image


def limit_in_bytes(device: Device, limit: Any) -> int | None:
    """A memory limit as bytes: a number of bytes, or a fraction of the device's memory.

    Raises
    ------
    TypeError, ValueError
        If it is neither an integer of at least 1 nor a float above 0 and at most 1.
    """
    if limit is None:
        return None
    if isinstance(limit, (bool, np.bool_)) or not isinstance(limit, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"memory_limit must be a number of bytes, a fraction of the device's memory or None, got {limit!r}"
        )
    if isinstance(limit, (int, np.integer)) and limit >= 1:
        return int(limit)
    if isinstance(limit, (float, np.floating)) and 0 < limit <= 1:
        return int(limit * device.total_memory)
    raise ValueError(
        f"memory_limit must be an integer of at least 1 (bytes) or a float above 0 and at most 1 (a fraction of the "
        f"device's memory), got {limit!r}"
    )


class StripFeatures(NamedTuple):
    """The features of a strip, on the host.

    Attributes
    ----------
    features : Features
        First those with the first orientations, one for each keypoint, then those with the further ones.
    n_keypoints : int
        Number of keypoints.
    of_keypoint : (N,) array of int
        The index of each feature's keypoint.
    """

    features: Features
    n_keypoints: int
    of_keypoint: np.ndarray


def compute(plans: Plans, image: Image, mask: Any, descriptors: bool) -> Outcome:
    """The outcome for an image, computed in strips that take no more than `plans.memory_limit` bytes.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters, a blur and a limit.
    image : Image
        On the host, or on the device.
    mask : (M, N) array or None
        Of the device.
    descriptors : bool
        Whether to compute them.

    Returns
    -------
    Features or Unfit
        On the device. Unfit also if the limit is too small for a strip.
    """
    device, parameters = plans.device, plans.parameters
    computed: list[StripFeatures] = []
    for strip in _Strips(plans, image, mask, descriptors).all():
        if isinstance(strip, Unfit):
            return strip
        computed.append(strip)
    features = _joined(device, computed)
    if parameters.max_keypoints is not None:
        features = _strongest(device, parameters, computed, features, image.shape)
    return features.shifted(-parameters.position_shift)


class _Strips:
    """The strips of one image, computed one after the other in one memory."""

    def __init__(self, plans: Plans, image: Image, mask: Any, descriptors: bool) -> None:
        self.device, self.limit = plans.device, int(plans.memory_limit or 0)
        self.parameters = replace(plans.parameters, max_keypoints=None)  # chosen when all strips are computed
        self.memory = Memory(self.device, self.parameters, plans.blur)
        self.image, self.mask = image, mask
        self.key = Key(1, image.shape, mask is not None, descriptors)
        self.shapes = self.parameters.octave_shapes(self.key.shape)

    def all(self) -> Iterator[StripFeatures | Unfit]:
        """The features of each strip, in the order of their candidates; or Unfit, and then nothing more."""
        seed = None
        for o, (rows, _) in enumerate(self.shapes):
            rest = self.compute(Strip(o, len(self.shapes), rows, 0, 0, rows), seed, None)
            if rest is not None:
                yield rest
                return
            following = None
            if o + 1 < len(self.shapes):
                following = self.device.xp.empty(self.shapes[o + 1], self.device.dtype)
            for strip in self.of_octave(o, seed, following):
                yield strip
                if isinstance(strip, Unfit):
                    return
            seed = following

    def of_octave(self, o: int, seed: Any, following: Any) -> Iterator[StripFeatures | Unfit]:
        """The features of an octave, strip by strip.

        Parameters
        ----------
        o : int
            Index of the octave.
        seed : array or None
            The octave's first level; None for the first octave, which is computed from the image.
        following : array or None
            Receives the first level of the next octave, if there is one.
        """
        rows, _ = self.shapes[o]
        reach = _reach(self.parameters, o)
        least = 2 * reach + STEP + LEAST_ROWS
        held, begin = rows, 0
        while begin < rows:
            strip = _strip_at(o, rows, held, begin, reach)
            computed = self.compute(strip, seed, following)
            if computed is not None:
                yield computed
                begin = strip.end
            elif held > least:
                held = max(least, held * 7 // 8) // STEP * STEP
            else:
                yield Unfit(MemoryError, self.too_small(strip, seed, following))
                return

    def too_small(self, strip: Strip, *arrays: Any) -> str:
        """What is wrong with a limit that the smallest strip exceeds."""
        return (
            f"memory_limit must be enough for a strip of {strip.rows} of the {self.shapes[strip.first][0]} rows of "
            f"octave {strip.first}, some {self.bytes_of(strip, *arrays) * SPARE:.0f} bytes for an image of "
            f"{self.key.shape[0]} x {self.key.shape[1]} pixels, got {self.limit}"
        )

    def bytes_of(self, strip: Strip, *arrays: Any) -> int:
        """The memory that a strip takes: its plan, its rows of the image, and arrays that are held meanwhile."""
        image_rows = strip.rows // self.parameters.upsampling if strip.first == 0 else 0
        of_image = image_rows * self.key.shape[1] * self.image.pixels.dtype.itemsize
        of_plan = bytes_of(self.device, self.parameters, self.key._replace(strip=strip))
        return of_plan + of_image + _bytes_held(*arrays)

    def compute(self, strip: Strip, seed: Any, following: Any) -> StripFeatures | Unfit | None:
        """The features of a strip; None if it exceeds the limit, which its lists may do in the end."""
        if self.bytes_of(strip, seed, following) > self.limit:
            return None
        self.memory.limit = self.limit - _bytes_held(seed, following)
        plan = self.memory.plan(self.key._replace(strip=strip))
        self.load(plan, strip, seed)
        plan.run()
        fitted = wait_until_lists_fit(self.memory, plan)
        if fitted is None:
            return None
        if fitted.unfit.any():
            return Unfit(ValueError, intensities.why_unfit(self.image))
        if following is not None:
            level = fitted.plan.space.level(strip.first, self.parameters.n_scales)
            even = strip.begin + strip.begin % 2
            rows = slice(even - strip.start, strip.end - strip.start, 2)
            following[even // 2 : -(-strip.end // 2)] = level.image[rows, ::2]
        return self.features_of(fitted)

    def load(self, plan: Plan, strip: Strip, seed: Any) -> None:
        """Writes the strip's rows of the image, or of the octave's first level, to a plan."""
        if strip.first == 0:
            factor = self.parameters.upsampling
            rows = self.image.pixels[strip.start // factor : (strip.start + strip.rows) // factor]
            self.memory.load_batch(plan, [replace(self.image, pixels=rows)], self.mask)
            return
        if plan.mask is not None:
            plan.mask[...] = self.mask != 0
        plan.lists.clear()
        plan.space.level(strip.first, 0).image[...] = seed[strip.start : strip.start + strip.rows]

    def features_of(self, fitted: Fitted) -> StripFeatures:
        """The features of a plan that has run, on the host."""
        lists, counts = fitted.plan.lists, fitted.counts
        n, n_keypoints = int(counts[USABLE_FEATURES, 0]), int(counts[USABLE_KEYPOINTS, 0])
        block, _ = feature_lists.collect(self.device, self.parameters, lists, np.array([n]), self.key.descriptors)
        n_values = self.parameters.n_values if self.key.descriptors else 0
        features = feature_lists.features_of(block, 0, n, self.device.dtype, n_values).to_host()
        candidates = self.device.to_host(lists.keypoints[0, :n_keypoints])
        of_keypoint = np.searchsorted(candidates, self.device.to_host(lists.features[0, :n]))
        return StripFeatures(features, n_keypoints, of_keypoint)


def _strip_at(o: int, rows: int, held: int, begin: int, reach: int) -> Strip:
    """The strip of an octave of `rows` rows that holds `held` of them and searches from row `begin` on."""
    start = max(0, begin - reach) // STEP * STEP
    if start + held >= rows:
        return Strip(o, o + 1, held, rows - held, begin, rows)
    return Strip(o, o + 1, held, start, begin, start + held - reach)


def _bytes_held(*arrays: Any) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _reach(parameters: Parameters, o: int) -> int:
    """The rows above and below a candidate on which its keypoint depends, and those that are wrong at a strip's end.

    Each blur carries wrong samples inwards by its radius. A candidate depends on its neighbours in all levels, at each
    position that refinement tries, and a keypoint on its windows in its level.
    """
    radii = [len(gaussian_taps(sigma)) - 1 for sigma in parameters.blurs]
    first = 0
    if o == 0:
        first = parameters.upsampling + (len(gaussian_taps(parameters.first_blur)) - 1 if parameters.first_blur else 0)
    moves = MAX_REFINEMENT_STEPS + 1
    sigma = parameters.sigma_min * 2 ** ((parameters.n_scales + MAX_OFFSET) / parameters.n_scales)
    descriptor = math.sqrt(2) * parameters.lambda_descr * (1 + 1 / parameters.n_hist)
    window = math.ceil(max(3 * parameters.lambda_ori, descriptor) * sigma) + 3
    at_keypoint = first + sum(radii[: parameters.n_scales])
    return max(first + sum(radii) + moves, at_keypoint + moves + window)


def _joined(device: Device, strips: list[StripFeatures]) -> Features:
    """The features of all strips, on the device: first orientations first, as in `StripFeatures`."""
    pieces = [strip.features[: strip.n_keypoints] for strip in strips]
    pieces += [strip.features[strip.n_keypoints :] for strip in strips]

    joined = Features.concatenate(pieces)
    return Features(**{name: device.asarray(array) for name, array in joined.arrays().items()})


def _strongest(
    device: Device,
    parameters: Parameters,
    strips: list[StripFeatures],
    features: Features,
    image_shape: tuple[int, int],
) -> Features:
    """At most `max_keypoints` of the keypoints, then of their features, as the stages of a whole image choose them."""
    firsts = np.cumsum([0, *(strip.n_keypoints for strip in strips)])
    of_keypoint = np.concatenate(
        [strip.of_keypoint[: strip.n_keypoints] + first for strip, first in zip(strips, firsts)]
        + [strip.of_keypoint[strip.n_keypoints :] + first for strip, first in zip(strips, firsts)]
    )

    kept = np.zeros(firsts[-1], bool)
    kept[device.to_host(selection.strongest(device, features[: int(firsts[-1])], parameters, image_shape))] = True
    features = features[device.asarray(np.flatnonzero(kept[of_keypoint]))]
    return features[selection.strongest(device, features, parameters, image_shape)]
