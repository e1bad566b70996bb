"""The outcomes of a plan's images, read when its stages have run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpusift.pipeline.outcomes import Outcome, Unfit
from gpusift.pipeline.plan import Memory, Plan
from gpusift.stages import feature_lists, intensities
from gpusift.stages.feature_lists import FEATURES, FOUND, UNFIT, USABLE_FEATURES
from gpusift.stages.intensities import Image


class Fitted(NamedTuple):
    """A plan whose lists hold all features.

    Attributes
    ----------
    plan : Plan
        The plan, or one with longer lists that has taken its place.
    counts : (10, B) array of int32
        `FeatureLists.counts`, on the host.
    unfit : (B,) array of bool
        The images that hold NaN, infinity or values too large to square. They have no features.
    """

    plan: Plan
    counts: np.ndarray
    unfit: np.ndarray


def wait_until_lists_fit(memory: Memory, plan: Plan) -> Fitted | None:
    """Waits for a plan, and runs it again with longer lists as long as they prove too short.

    Returns
    -------
    Fitted or None
        None if longer lists would exceed the memory's limit.
    """
    counts = memory.device.download(plan.lists.counts, memory.staging)
    unfit = counts[UNFIT] != 0
    while (needed := _entries(counts[:, ~unfit])) > plan.lists.capacity:
        longer = memory.with_room(plan.key, needed)
        if longer is None:
            return None
        plan = longer
        plan.run_after("scale space")
        counts = memory.device.download(plan.lists.counts, memory.staging)
    for number in np.flatnonzero(unfit):
        counts[USABLE_FEATURES, number] = plan.lists.counts[USABLE_FEATURES, number] = 0
    return Fitted(plan, counts, unfit)


def outcomes_of(memory: Memory, plan: Plan, images: Sequence[Image], on_host: bool) -> list[Outcome] | None:
    """Waits for a plan, and gives the outcomes of its images.

    Parameters
    ----------
    memory : Memory
        The memory of the plan.
    plan : Plan
        All of its stages have been launched.
    images : sequence of Image
        The images that it was launched for.
    on_host : bool
        Whether to copy the features to the host, all in one copy.

    Returns
    -------
    list of Features or Unfit, or None
        None if the lists would exceed the memory's limit.
    """
    fitted = wait_until_lists_fit(memory, plan)
    if fitted is None:
        return None
    device, parameters, with_descriptors = memory.device, memory.parameters, plan.key.descriptors
    lengths = fitted.counts[USABLE_FEATURES]
    block, offsets = feature_lists.collect(
        device, parameters, fitted.plan.lists, lengths, with_descriptors, -parameters.position_shift
    )
    if on_host:
        block = device.download(block, memory.staging) if len(block) else np.empty(0, np.uint8)
    n_values = parameters.n_values if with_descriptors else 0
    return [
        Unfit(ValueError, intensities.why_unfit(image))
        if unfit
        else feature_lists.features_of(block, offset, int(n), device.dtype, n_values)
        for image, unfit, offset, n in zip(images, fitted.unfit, offsets, lengths)
    ]


def _entries(counts: np.ndarray) -> int:
    """The entries that the lists of images with these counts must have room for."""
    return int(max(counts[FOUND].max(initial=0), counts[FEATURES].max(initial=0)))
