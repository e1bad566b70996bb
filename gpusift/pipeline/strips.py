"""Images that exceed the memory limit: computed octave by octave, and an octave that exceeds it strip by strip.

A strip holds some rows of all levels of an octave. Its levels are wrong near its upper and lower end, because blurs
reflect the strip's end there, where the image goes on. So strips overlap, and candidates are searched only in those
rows whose keypoints depend on none of the wrong samples. A pooled descriptor has windows in several octaves; a second
pass over the strips computes it. The features are the same, byte for byte, as without strips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from gpusift.devices import Device
from gpusift.features import Features
from gpusift.parameters import MAX_ELONGATION, MAX_REFINEMENT_STEPS, SHAPE_WINDOW, Parameters, gaussian_taps
from gpusift.pipeline.key import Key, Strip
from gpusift.pipeline.outcomes import Outcome, Unfit
from gpusift.pipeline.plan import SPARE, Memory, Plan, Plans, bytes_of
from gpusift.pipeline.results import Fitted, start_copy, wait_until_lists_fit
from gpusift.stages import collection, intensities, selection
from gpusift.stages.collection import UNFIT
from gpusift.stages.descriptor import PartialDescriptors
from gpusift.stages.feature_lists import USABLE_FEATURES, USABLE_KEYPOINTS
from gpusift.stages.intensities import Image
from gpusift.stages.levels import ScaleSpace

T_co = TypeVar("T_co", covariant=True)

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
    pooled = descriptors and parameters.pooling is not None
    computed: list[StripFeatures] = []
    detection = _Detection(parameters, descriptors=descriptors and not pooled)
    for strip in _Strips(plans, image, mask, detection).all():
        if isinstance(strip, Unfit):
            return strip
        computed.append(strip)
    features = _joined(device, computed)
    if parameters.max_keypoints is not None:
        features = _strongest(device, parameters, computed, features, image.shape)
    if pooled:
        description = _Description(device, parameters, features, image.shape)
        for part in _Strips(plans, image, None, description).all():
            if isinstance(part, Unfit):
                return part
        features = features.with_descriptors(description.descriptors())
    return features.shifted(-parameters.position_shift)


class _Task(Protocol[T_co]):
    """What is computed in each strip.

    Attributes
    ----------
    describes : bool
        Whether the plans of strips describe their features.
    """

    describes: bool

    def reach(self, o: int) -> int:
        """The rows of an octave above and below a strip's own that the strip must hold."""

    def run(self, memory: Memory, plan: Plan, image: Image) -> T_co | Unfit | None:
        """The result of a strip whose image, or first level, is loaded; None if its lists exceed the limit."""


class _Strips(Generic[T_co]):
    """The strips of one image, computed one after the other in one memory."""

    def __init__(self, plans: Plans, image: Image, mask: Any, task: _Task[T_co]) -> None:
        self.device, self.limit = plans.device, int(plans.memory_limit or 0)
        self.parameters = replace(plans.parameters, max_keypoints=None)  # chosen when all strips are computed
        self.memory = Memory(self.device, self.parameters, plans.blur)
        self.image, self.mask, self.task = image, mask, task
        self.key = Key.of([image], mask, task.describes)
        self.shapes = self.parameters.octave_shapes(self.key.shape)

    def all(self) -> Iterator[T_co | Unfit]:
        """The result of each strip, octave by octave from the top down; or Unfit, and then nothing more."""
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

    def of_octave(self, o: int, seed: Any, following: Any) -> Iterator[T_co | Unfit]:
        """The results of an octave, strip by strip.

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
        reach = self.task.reach(o)
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

    def compute(self, strip: Strip, seed: Any, following: Any) -> T_co | Unfit | None:
        """The result of a strip; None if it exceeds the limit, which its lists may do in the end."""
        if self.bytes_of(strip, seed, following) > self.limit:
            return None
        self.memory.limit = self.limit - _bytes_held(seed, following)
        plan = self.memory.plan(self.key._replace(strip=strip))
        self.load(plan, strip, seed)
        result = self.task.run(self.memory, plan, self.image)
        if following is not None and result is not None:
            level = plan.space.level(strip.first, self.parameters.n_scales)
            even = strip.begin + strip.begin % 2
            rows = slice(even - strip.start, strip.end - strip.start, 2)
            following[even // 2 : -(-strip.end // 2)] = level.image[rows, ::2]
        return result

    def load(self, plan: Plan, strip: Strip, seed: Any) -> None:
        """Writes the strip's rows of the image, or of the octave's first level, to a plan."""
        if strip.first == 0:
            factor = self.parameters.upsampling
            rows = self.image.pixels[strip.start // factor : (strip.start + strip.rows) // factor]
            self.memory.load_batch(plan, [replace(self.image, pixels=rows)], self.mask)
            return
        self.memory.load_batch(plan, [], self.mask)
        plan.lists.clear()
        plan.space.level(strip.first, 0).image[...] = seed[strip.start : strip.start + strip.rows]


class _Detection:
    """Finds the features of strips, and describes them if wanted; see `_Task`."""

    def __init__(self, parameters: Parameters, *, descriptors: bool) -> None:
        self.parameters, self.describes = parameters, descriptors

    def reach(self, o: int) -> int:
        """The rows on which a keypoint of the octave depends, above and below its candidate, and those that are wrong.

        A candidate depends on its neighbours in all levels, at each position that refinement tries, and a keypoint on
        its windows in its level.
        """
        parameters = self.parameters
        moves = MAX_REFINEMENT_STEPS + 1
        largest = parameters.n_scales + parameters.rule.accepted_offset
        sigma = parameters.sigma_min * 2 ** (largest / parameters.n_scales)
        radius = 3 * parameters.lambda_ori
        if parameters.affine_shape:  # windows are squares in normalized coordinates
            radius = 3 * math.sqrt(2) * max(parameters.lambda_ori, SHAPE_WINDOW) * MAX_ELONGATION
        window = math.ceil(max(radius, _descriptor_radius(parameters)) * sigma) + 3
        return max(_wrong_rows(parameters, o) + moves, _wrong_rows(parameters, o, parameters.n_scales) + moves + window)

    def run(self, memory: Memory, plan: Plan, image: Image) -> StripFeatures | Unfit | None:
        """The features of a strip, in the order of their candidates."""
        plan.run()
        fitted = wait_until_lists_fit(memory, plan, start_copy(memory, plan, on_host=True), on_host=True)
        if fitted is None:
            return None
        if fitted.header[UNFIT].any():
            return Unfit(ValueError, intensities.why_unfit(image))
        return self._features(memory, fitted)

    def _features(self, memory: Memory, fitted: Fitted) -> StripFeatures:
        """The features of a plan that has run, on the host."""
        device, lists, header = memory.device, fitted.plan.lists, fitted.header
        n, n_keypoints = int(header[USABLE_FEATURES, 0]), int(header[USABLE_KEYPOINTS, 0])
        n_values = self.parameters.n_values if self.describes else 0
        has_shapes = self.parameters.affine_shape
        features = collection.features_of(device.dtype, fitted.block, n, n_values, has_shapes=has_shapes)
        candidates = device.to_host(lists.keypoints[0, :n_keypoints])
        of_keypoint = np.searchsorted(candidates, device.to_host(lists.features[0, :n]))
        return StripFeatures(features, n_keypoints, of_keypoint)


class _Description:
    """Pools the descriptors of features whose windows lie in several octaves; see `_Task`."""

    describes = False

    def __init__(
        self, device: Device, parameters: Parameters, features: Features, image_shape: tuple[int, int]
    ) -> None:
        self.parameters = parameters
        self._partial = PartialDescriptors(device, features, parameters)
        host = features.to_host()
        self._rows, self._sigmas = host.positions[:, 0].astype(np.float64), host.sigmas.astype(np.float64)
        levels = parameters.window_levels(parameters.n_octaves_of(image_shape))
        self._octaves = levels[:, host.octaves, host.scales, 0]  # (n_factors, N): of each window
        self._space: ScaleSpace | None = None

    def reach(self, o: int) -> int:
        """The rows of the largest window in the octave, and those that are wrong."""
        radii = _descriptor_radius(self.parameters) * np.outer(self.parameters.pooling or (), self._sigmas)
        largest = radii[self._octaves == o].max(initial=0) / self._delta(o)
        return _wrong_rows(self.parameters, o) + math.ceil(largest) + 3

    def run(self, memory: Memory, plan: Plan, image: Image) -> bool:
        """Adds the windows that lie in a strip; True."""
        plan.run_through("scale space")
        self._space, strip = plan.space, plan.key.strip
        assert strip is not None
        octaves = range(strip.first, strip.last)
        chosen = np.isin(self._octaves, octaves).any(axis=0)
        if strip.is_one_octave:
            rows, _ = self.parameters.octave_shapes(plan.key.shape)[strip.first]
            row = np.clip(np.floor(self._rows / self._delta(strip.first)), 0, rows - 1)
            chosen &= (row >= strip.begin) & (row < strip.end)
        self._partial.add(plan.space, octaves, memory.device.asarray(np.flatnonzero(chosen)))
        return True

    def descriptors(self) -> Any:
        """The descriptors, when all strips have run."""
        assert self._space is not None
        return self._partial.finished(self._space)

    def _delta(self, o: int) -> float:
        return self.parameters.delta_min * 2.0**o


def _strip_at(o: int, rows: int, held: int, begin: int, reach: int) -> Strip:
    """The strip of an octave of `rows` rows that holds `held` of them and searches from row `begin` on."""
    start = max(0, begin - reach) // STEP * STEP
    if start + held >= rows:
        return Strip(o, o + 1, held, rows - held, begin, rows)
    return Strip(o, o + 1, held, start, begin, start + held - reach)


def _bytes_held(*arrays: Any) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _wrong_rows(parameters: Parameters, o: int, last: int | None = None) -> int:
    """The rows at a strip's end in which levels up to `last`, by default all, are wrong.

    Each blur carries wrong samples inwards by its radius.
    """
    radii = [len(gaussian_taps(sigma)) - 1 for sigma in parameters.blurs[:last]]
    if o == 0:
        radii.append(parameters.upsampling)
        radii.append(len(gaussian_taps(parameters.first_blur)) - 1 if parameters.first_blur else 0)
    return sum(radii)


def _descriptor_radius(parameters: Parameters) -> float:
    """Half the diagonal of the largest window of a descriptor, in its sigmas."""
    elongation = MAX_ELONGATION if parameters.affine_shape else 1
    return math.sqrt(2) * parameters.lambda_descr * (1 + 1 / parameters.n_hist) * elongation


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
