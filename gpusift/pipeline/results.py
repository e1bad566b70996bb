"""Features of a plan's images, read when its stages have run."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.pipeline.plan import Memory, Plan
from gpusift.stages import feature_lists
from gpusift.stages.feature_lists import FEATURES, FOUND, UNFIT, USABLE_FEATURES


class UnfitImageError(ValueError):
    """An image of a batch holds values that cannot be computed with; `number` says which."""

    def __init__(self, number: int, reason: str = "") -> None:
        super().__init__(reason)
        self.number = number


def results(memory: Memory, plan: Plan) -> list[Features]:
    """The features of a plan's images when its stages have run, on the device; waits for it.

    Raises
    ------
    UnfitImageError
        If an image holds NaN, infinity or values too large to square.
    """
    block, offsets, lengths = _collected(memory, plan)
    return _features(memory, plan, block, offsets, lengths)


def results_on_host(memory: Memory, plan: Plan) -> list[Features]:
    """The same on the host, in one copy."""
    block, offsets, lengths = _collected(memory, plan)
    on_host = memory.device.download(block, memory.staging) if len(block) else np.empty(0, np.uint8)
    return _features(memory, plan, on_host, offsets, lengths)


def wait_until_lists_fit(memory: Memory, plan: Plan) -> tuple[Plan, np.ndarray]:
    """The plan when its lists hold everything, which takes longer ones at times, and `FeatureLists.counts` on the host.

    Raises
    ------
    UnfitImageError
        If an image holds NaN, infinity or values too large to square.
    """
    while True:
        counts = memory.device.download(plan.lists.counts, memory.staging)
        if counts[UNFIT].any():
            raise UnfitImageError(int(np.flatnonzero(counts[UNFIT])[0]))
        needed = max(counts[FOUND].max(), counts[FEATURES].max())
        if needed <= plan.lists.capacity:
            return plan, counts
        plan = memory.with_room(plan.key, int(needed))
        plan.run(*tuple(plan.stages)[1:])


def _collected(memory: Memory, plan: Plan) -> tuple[Any, list[int], np.ndarray]:
    """All features in one block, where each image's begin, and how many they are."""
    plan, counts = wait_until_lists_fit(memory, plan)
    lengths, move = counts[USABLE_FEATURES], -memory.parameters.position_shift
    return *feature_lists.collect(
        memory.device, memory.parameters, plan.lists, lengths, plan.key.descriptors, move
    ), lengths


def _features(memory: Memory, plan: Plan, block: Any, offsets: list[int], lengths: np.ndarray) -> list[Features]:
    n_values = memory.parameters.n_values if plan.key.descriptors else 0
    dtype = memory.device.dtype
    return [feature_lists.features_of(block, offset, int(n), dtype, n_values) for offset, n in zip(offsets, lengths)]
