"""Images whose levels do not fit the memory allowed: octave by octave, and in strips where one does not fit either.

A strip holds some rows of all levels of an octave. What lies near its upper and lower end is wrong, as blurs there have
reflected the strip's end instead of seeing what is beyond; so strips overlap, and candidates are looked for only in
rows from which nothing that a keypoint depends on is out of reach. The features are the same as without, byte for byte.
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
from gpusift.pipeline.plan import SPARE, Key, ListsTooLongError, Memory, Plan, Plans, Strip, bytes_of
from gpusift.pipeline.results import wait_until_lists_fit
from gpusift.stages import feature_lists, intensities, selection
from gpusift.stages.feature_lists import USABLE_FEATURES, USABLE_KEYPOINTS

LEAST_ROWS = 16  # that a strip must give, for the others that it needs
STEP = 4  # rows that windows begin and end at multiples of: those that come of one row of an image


def limit_in_bytes(device: Device, limit: Any) -> int | None:
    """A memory limit as bytes: a number of them, or a share of the device's memory.

    Raises
    ------
    TypeError, ValueError
        If it is neither an integer of at least 1 nor a float above 0 and at most 1.
    """
    if limit is None:
        return None
    if isinstance(limit, (bool, np.bool_)) or not isinstance(limit, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"memory_limit must be a number of bytes, a share of the device's memory or None, got {limit!r}"
        )
    if isinstance(limit, (int, np.integer)) and limit >= 1:
        return int(limit)
    if isinstance(limit, (float, np.floating)) and 0 < limit <= 1:
        return int(limit * device.total_memory)
    raise ValueError(
        f"memory_limit must be an integer of at least 1 (bytes) or a float above 0 and at most 1 (a share of the "
        f"device's memory), got {limit!r}"
    )


class LimitTooSmallError(MemoryError):
    """The memory limit does not allow any strip that could be computed."""


class StripFeatures(NamedTuple):
    """The features of a strip, on the host: `keypoints` of them first, and for each the number of its keypoint."""

    features: Features
    keypoints: int
    of_keypoint: np.ndarray


def run(plans: Plans, image: Any, mask: Any, descriptors: bool) -> Features:
    """The features of an image, computed in parts that take no more than `plans.memory_limit` bytes.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters, a blur and a limit.
    image : (M, N) array
        NumPy's, or of the device.
    mask : (M, N) array or None
        Of the device.
    descriptors : bool
        Whether to compute them.

    Returns
    -------
    Features
        On the device.

    Raises
    ------
    LimitTooSmallError
        If the limit is too small for a strip.
    UnfitImageError
        If the image holds NaN, infinity or values too large to square.
    """
    device, parameters = plans.device, plans.parameters
    with device.active():
        found = list(_Strips(plans, image, mask, descriptors).all())
        features = _joined(device, found)
        if parameters.max_keypoints is not None:
            features = _strongest(device, parameters, found, features, tuple(image.shape))
        return features.shifted(-parameters.position_shift)


class _Strips:
    """The parts of one image, one after the other, in one memory."""

    def __init__(self, plans: Plans, image: Any, mask: Any, descriptors: bool) -> None:
        self.device, self.limit = plans.device, int(plans.memory_limit or 0)
        self.parameters = replace(plans.parameters, max_keypoints=None)  # chosen when all are there
        self.memory = Memory(self.device, self.parameters, plans.blur)
        self.image, self.mask = image, mask
        self.key = Key(1, tuple(image.shape), mask is not None, descriptors)
        self.shapes = self.parameters.octave_shapes(self.key.shape)

    def all(self) -> Iterator[StripFeatures]:
        """The features of each strip, in the order of their candidates."""
        seed = None
        for o, (rows, _) in enumerate(self.shapes):
            rest = Strip(o, len(self.shapes), rows, 0, 0, rows)
            if self.bytes_of(rest, seed) <= self.limit:
                try:
                    yield self.compute(rest, seed, None)
                    return
                except ListsTooLongError:
                    pass
            following = None
            if o + 1 < len(self.shapes):
                following = self.device.xp.empty(self.shapes[o + 1], self.device.dtype)
            yield from self.strips(o, seed, following)
            seed = following

    def strips(self, o: int, seed: Any, following: Any) -> Iterator[StripFeatures]:
        """The features of an octave, strip by strip; the next octave's first level is put into `following`."""
        rows, _ = self.shapes[o]
        reach = _reach(self.parameters, o)
        least = 2 * reach + STEP + LEAST_ROWS
        held, begin = rows, 0
        while self.bytes_of(Strip(o, o + 1, held, 0, 0, held), seed, following) > self.limit:
            held = self.fewer(o, held, least, seed, following)
        while begin < rows:
            start = max(0, begin - reach) // STEP * STEP
            if start + held >= rows:
                start, end = rows - held, rows
            else:
                end = start + held - reach
            strip = Strip(o, o + 1, held, start, begin, end)
            try:
                yield self.compute(strip, seed, following)
            except ListsTooLongError:
                held = self.fewer(o, held, least, seed, following)
            else:
                begin = end

    def fewer(self, o: int, held: int, least: int, seed: Any, following: Any) -> int:
        """Rows of a smaller strip; LimitTooSmallError if that is too small."""
        if held <= least:
            needed = self.bytes_of(Strip(o, o + 1, held, 0, 0, held), seed, following)
            raise LimitTooSmallError(
                f"memory_limit must be enough for a strip of {held} of the {self.shapes[o][0]} rows of octave {o}, "
                f"some {needed * SPARE:.0f} bytes for an image of {self.key.shape[0]} x {self.key.shape[1]} pixels, "
                f"got {self.limit}"
            )
        return max(least, held * 7 // 8) // STEP * STEP

    def bytes_of(self, strip: Strip, *held: Any) -> int:
        """The memory that a strip takes with what is held meanwhile."""
        return self.key_bytes(strip) + sum(array.nbytes for array in held if array is not None)

    def key_bytes(self, strip: Strip) -> int:
        """The memory that a strip's plan takes, and its rows of the image."""
        rows = strip.rows // self.parameters.upsampling if strip.first == 0 else 0
        of_image = rows * self.image.shape[1] * self.image.dtype.itemsize
        return bytes_of(self.device, self.parameters, self.key._replace(strip=strip)) + of_image

    def compute(self, strip: Strip, seed: Any, following: Any) -> StripFeatures:
        """The features of a strip."""
        held = sum(array.nbytes for array in (seed, following) if array is not None)
        self.memory.limit = self.limit - held
        plan = self.memory.plan(self.key._replace(strip=strip))
        if plan.mask is not None:
            plan.mask[...] = self.mask != 0
        self.fill(plan, strip, seed)
        plan.run()
        plan, counts = wait_until_lists_fit(self.memory, plan)
        if following is not None:
            level = plan.space.level(strip.first, self.parameters.n_scales)
            even = strip.begin + strip.begin % 2
            rows = slice(even - strip.start, strip.end - strip.start, 2)
            following[even // 2 : -(-strip.end // 2)] = level.image[rows, ::2]
        n, keypoints = int(counts[USABLE_FEATURES, 0]), int(counts[USABLE_KEYPOINTS, 0])
        block, _ = feature_lists.collect(self.device, self.parameters, plan.lists, np.array([n]), self.key.descriptors)
        n_values = self.parameters.n_values if self.key.descriptors else 0
        features = feature_lists.features_of(block, 0, n, self.device.dtype, n_values).to_host()
        candidates = self.device.to_host(plan.lists.keypoints[0, :keypoints])
        return StripFeatures(
            features, keypoints, np.searchsorted(candidates, self.device.to_host(plan.lists.features[0, :n]))
        )

    def fill(self, plan: Plan, strip: Strip, seed: Any) -> None:
        """Brings the strip's rows of the image, or of the octave's first level."""
        if strip.first:
            plan.lists.clear()
            plan.space.level(strip.first, 0).image[...] = seed[strip.start : strip.start + strip.rows]
            return
        factor = self.parameters.upsampling
        rows = self.image[strip.start // factor : (strip.start + strip.rows) // factor]
        on_host = isinstance(rows, np.ndarray)
        rows = intensities.as_known(rows)
        (there,) = self.device.upload([rows], self.memory.staging) if on_host else [self.device.asarray(rows)]
        plan.load_images([there], [self.image.dtype.kind == "b"])


def _reach(parameters: Parameters, o: int) -> int:
    """Rows beyond a candidate's that what becomes of it may depend on, those of which are wrong near a strip's end too.

    Blurs carry what is wrong inwards, by their radius each. A candidate needs its neighbours in all levels, wherever
    refinement takes it, and a keypoint its windows in the level that it is at.
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


def _joined(device: Device, found: list[StripFeatures]) -> Features:
    """All features on the device: first those with the first orientations, then those with the further ones."""
    pieces = [f.features[: f.keypoints] for f in found] + [f.features[f.keypoints :] for f in found]

    def join(name: str) -> Any:
        arrays = [getattr(piece, name) for piece in pieces]
        return None if arrays[0] is None else device.asarray(np.concatenate(arrays))

    names = ("positions", "sigmas", "scales", "octaves", "orientations", "responses", "descriptors")
    return Features(**{name: join(name) for name in names})


def _strongest(
    device: Device, parameters: Parameters, found: list[StripFeatures], features: Features, image_shape: tuple[int, int]
) -> Features:
    """At most `max_keypoints` of the keypoints, then of their features, as `selection.steps` leaves."""
    firsts = np.cumsum([0, *(f.keypoints for f in found)])
    of_keypoint = np.concatenate(
        [f.of_keypoint[: f.keypoints] + first for f, first in zip(found, firsts)]
        + [f.of_keypoint[f.keypoints :] + first for f, first in zip(found, firsts)]
    )

    def choose(among: Features) -> Any:
        if len(among) <= (parameters.max_keypoints or 0):
            return slice(None)
        of_candidates = among.positions, among.sigmas, among.responses
        return selection.strongest(device, *of_candidates, parameters, image_shape)

    kept = np.zeros(firsts[-1], bool)
    chosen = choose(features[: int(firsts[-1])])
    kept[chosen if isinstance(chosen, slice) else device.to_host(chosen)] = True
    features = features[device.asarray(np.flatnonzero(kept[of_keypoint]))]
    return features[choose(features)]
