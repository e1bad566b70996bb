"""The outcomes of a plan's images, read when its stages have run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpusift.devices import Copy
from gpusift.pipeline.outcomes import Outcome, Unfit
from gpusift.pipeline.plan import Memory, Plan
from gpusift.stages import collection, intensities
from gpusift.stages.collection import UNFIT
from gpusift.stages.feature_lists import FEATURES, FOUND, USABLE_FEATURES
from gpusift.stages.intensities import Image


class Fitted(NamedTuple):
    """A plan whose lists hold all features.

    Attributes
    ----------
    plan : Plan
        The plan, or one with longer lists that has taken its place.
    header : (10, B) array of int32
        `collection.header_of` its results.
    block : (S,) array of uint8
        The features, without the header, in memory of their own, on the host or on the device.
    offsets : list of int
        Where the features of each image begin in it, and where the last ones end.
    """

    plan: Plan
    header: np.ndarray
    block: Any
    offsets: list[int]


def start_copy(memory: Memory, plan: Plan, on_host: bool) -> Copy:
    """Starts to copy the results of a plan to the host.

    Parameters
    ----------
    memory : Memory
        The memory of the plan.
    plan : Plan
        All of its stages have been launched.
    on_host : bool
        Whether to copy the header and as many features as are expected, rather than the header only.
    """
    size = plan.expected_bytes if on_host else collection.header_bytes(plan.key.batch)
    return memory.device.download(plan.results[:size], memory.downloads)


def wait_until_lists_fit(memory: Memory, plan: Plan, copy: Copy, on_host: bool) -> Fitted | None:
    """Waits for a plan, and runs it again with longer lists as long as they prove too short.

    Parameters
    ----------
    memory, plan, on_host
        As for `start_copy`.
    copy : Copy
        What `start_copy` returned.

    Returns
    -------
    Fitted or None
        None if longer lists would exceed the memory's limit.
    """
    copied = copy.wait()
    header = collection.header_of(copied, plan.key.batch).copy()
    while (needed := _entries(header)) > plan.lists.capacity:
        longer = memory.with_room(plan.key, needed)
        if longer is None:
            return None
        plan = longer
        plan.run_after("scale space")
        copied = start_copy(memory, plan, on_host).wait()
        header = collection.header_of(copied, plan.key.batch).copy()
    lengths = np.where(header[UNFIT] != 0, 0, header[USABLE_FEATURES])
    n_values = memory.parameters.n_values if plan.key.descriptors else 0
    entry = collection.entry_bytes(memory.device.dtype, n_values, has_shapes=memory.parameters.affine_shape)
    offsets = collection.offsets_of(lengths, entry)
    block = _host_block(memory, plan, copied, offsets[-1]) if on_host else _device_block(memory, plan, offsets[-1])
    return Fitted(plan, header, block, offsets)


def outcomes_of(memory: Memory, plan: Plan, images: Sequence[Image], copy: Copy, on_host: bool) -> list[Outcome] | None:
    """Waits for a plan, and gives the outcomes of its images.

    Parameters
    ----------
    memory, plan, copy, on_host
        As for `wait_until_lists_fit`.
    images : sequence of Image
        The images that it was launched for.

    Returns
    -------
    list of Features or Unfit, or None
        None if the lists would exceed the memory's limit.
    """
    fitted = wait_until_lists_fit(memory, plan, copy, on_host)
    if fitted is None:
        return None
    n_values, has_shapes = memory.parameters.n_values if plan.key.descriptors else 0, memory.parameters.affine_shape
    return [
        Unfit(ValueError, intensities.why_unfit(image))
        if unfit
        else collection.features_of(memory.device.dtype, fitted.block[start:], n, n_values, has_shapes=has_shapes)
        for image, unfit, start, n in zip(
            images, fitted.header[UNFIT].tolist(), fitted.offsets, fitted.header[USABLE_FEATURES].tolist()
        )
    ]


def _entries(header: np.ndarray) -> int:
    """The entries that the lists of the images that are fit must have room for."""
    return int((header[[FOUND, FEATURES]] * (header[UNFIT] == 0)).max())


def _host_block(memory: Memory, plan: Plan, copied: np.ndarray, size: int) -> np.ndarray:
    """The features in memory of their own on the host; what was not expected is copied now."""
    begin = collection.header_bytes(plan.key.batch)
    plan.expect(begin + size)
    if begin + size > len(copied):
        copied = memory.device.download(plan.results[: begin + size], memory.downloads).wait()
    return memory.device.keep(copied[begin : begin + size])


def _device_block(memory: Memory, plan: Plan, size: int) -> Any:
    """The features in memory of their own on the device."""
    begin, device = collection.header_bytes(plan.key.batch), memory.device
    block = device.memory(size)
    if size:
        device.xp.copyto(block, plan.results[begin : begin + size])
    return block
