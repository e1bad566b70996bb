"""Plans: all that images of one shape need, made once. And where plans are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from gpusift.devices import Device
from gpusift.parameters import Parameters
from gpusift.stages import (
    descriptor,
    extrema,
    feature_lists,
    intensities,
    orientation,
    refinement,
    scale_space,
    selection,
)
from gpusift.stages.feature_lists import UNFIT

KEPT_PLANS = 16  # of a memory
KEPT_AT_MOST = 4  # times what is asked for: memory larger than that is given back to the system
SPARE = 1.25  # times the entries that were too many for a list


class ListsTooLongError(Exception):
    """There is more in a strip of an image than memory allows; a smaller strip must be taken."""


class Strip(NamedTuple):
    """Some octaves of a large image, or a strip of one.

    Attributes
    ----------
    first, last : int
        The octaves from `first` to before `last`.
    rows : int
        Rows that are held of each level of the first of them; all of a level's, if there are several octaves.
    start : int
        The first of these rows.
    begin, end : int
        The rows in which candidates are looked for are those from `begin` to before `end`.
    """

    first: int
    last: int
    rows: int
    start: int
    begin: int
    end: int

    def shapes(self, octave_shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """What is held of the octaves of the whole image, of these shapes."""
        held = {self.first: self.rows}
        within = range(self.first, self.last)
        return [(held.get(o, rows) if o in within else 0, cols) for o, (rows, cols) in enumerate(octave_shapes)]


class Key(NamedTuple):
    """What tells plans apart: how many images, their shape, whether there are a mask and descriptors, which strip."""

    batch: int
    shape: tuple[int, int]
    masked: bool = False
    descriptors: bool = True
    strip: Strip | None = None

    def shapes(self, parameters: Parameters) -> list[tuple[int, int]]:
        """Rows and columns of what is held of each octave's levels."""
        whole = parameters.octave_shapes(self.shape)
        return whole if self.strip is None else self.strip.shapes(whole)

    @property
    def octaves(self) -> range | None:
        """The octaves of the strip; None: all."""
        return None if self.strip is None else range(self.strip.first, self.strip.last)


class Plan:
    """Buffers and prepared launches for a batch of images of one shape; `Memory.plan` makes them.

    Parameters
    ----------
    memory : Memory
        Where the buffers lie, and the device, the parameters and the blur.
    key : Key
        For what.
    capacity : int
        Entries of each image's lists.

    Attributes
    ----------
    stages : dict
        For each stage its steps, in their order.
    """

    def __init__(self, memory: Memory, key: Key, capacity: int) -> None:
        device, parameters = memory.device, memory.parameters
        self.key, self.device, self.parameters = key, device, parameters
        self._programs: dict[tuple[str, ...], Callable[[], None]] = {}
        shapes = key.shapes(parameters)
        samples = key.batch * scale_space.stride_of(parameters, shapes)
        levels = memory.block("levels", samples * device.dtype.itemsize).view(device.dtype)
        self.space = space = scale_space.lay_out(device, shapes, parameters.n_levels, key.batch, levels)
        if key.strip is not None and key.strip.last == key.strip.first + 1:
            rows, _ = parameters.octave_shapes(key.shape)[key.strip.first]
            space.hold_strip(device, key.strip.first, rows, key.strip.start, key.strip.begin, key.strip.end)
        self.lists = entries = feature_lists.allocate(
            device, parameters, key.batch, capacity, space.n_rows, lambda size: memory.block("lists", size)
        )
        pixels = key.shape[0] * key.shape[1]
        self.mask: Any = memory.block("mask", pixels).reshape(key.shape) if key.masked else None
        image_rows = shapes[0][0] // parameters.upsampling
        of_images = device, space, parameters
        self.stages = {
            "scale space": scale_space.steps(*of_images, (image_rows, key.shape[1]), memory.blur, key.octaves),
            "extrema": extrema.steps(*of_images, entries),
            "refinement": refinement.steps(*of_images, entries, key.shape, self.mask)
            + selection.steps(device, parameters, entries, key.shape, of_features=False),
            "orientation": orientation.steps(*of_images, entries)
            + selection.steps(device, parameters, entries, key.shape, of_features=True),
        }
        if key.descriptors:
            self.stages["descriptor"] = descriptor.steps(*of_images, entries)

    @property
    def launches(self) -> list[Any]:
        """The steps of all stages."""
        return [step for steps in self.stages.values() for step in steps]

    def load_images(self, images: Sequence[Any], are_bool: Sequence[bool]) -> None:
        """Empties the lists and takes images, which are on the device and of dtypes that `intensities` knows."""
        self.lists.clear()
        for number, (image, is_bool) in enumerate(zip(images, are_bool, strict=True)):
            unfit = self.lists.counts[UNFIT, number : number + 1]
            intensities.load_image(self.device, image, is_bool, self.space.staging_of(number, image.size), unfit)

    def run(self, *stages: str) -> None:
        """Runs stages, by default all."""
        stages = stages or tuple(self.stages)
        if stages not in self._programs:
            self._programs[stages] = self.device.program([step for stage in stages for step in self.stages[stage]])
        self._programs[stages]()


def bytes_of(device: Device, parameters: Parameters, key: Key, capacity: int | None = None) -> int:
    """The device memory that a plan takes, bytes; None: with lists as long as they are at first."""
    shapes = key.shapes(parameters)
    held = shapes[key.strip.first if key.strip else 0] if shapes else (0, 0)
    n_rows = sum(rows for rows, _ in shapes)
    levels = scale_space.stride_of(parameters, shapes) * device.dtype.itemsize
    entries = capacity or extrema.capacity_for(held)
    of_image = levels + feature_lists.bytes_of(device.dtype, parameters, 1, entries, n_rows)
    return key.batch * of_image + (key.shape[0] * key.shape[1] if key.masked else 0)


class Memory:
    """The memory of one call at a time, and the plans that use it.

    Parameters
    ----------
    device : Device
        Where.
    parameters : Parameters
        Of all plans.
    blur : str
        Of all plans; see `scale_space.steps`.
    limit : int, optional
        Bytes that a plan may take when its lists are made longer.
    """

    def __init__(self, device: Device, parameters: Parameters, blur: str, limit: int | None = None) -> None:
        self.device, self.parameters, self.blur, self.limit = device, parameters, blur, limit
        self.staging: Any = device.staging()
        self.free_from: Any = None  # the last call's end, in its stream
        self._blocks: dict[str, Any] = {}
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._capacities: dict[tuple[Any, ...], int] = {}

    def plan(self, key: Key) -> Plan:
        """The plan for that; made if it is not there."""
        plan = self._plans.pop(key, None)
        if plan is None:
            plan = self._make(key)
        self._plans[key] = plan
        if len(self._plans) > KEPT_PLANS:
            self._plans.popitem(last=False)
        return plan

    def with_room(self, key: Key, entries: int) -> Plan:
        """A plan with longer lists; the levels stay as the present plan has computed them.

        Raises
        ------
        ListsTooLongError
            If they would take the plan beyond the limit.
        """
        capacity = int(entries * SPARE) + 1
        if self.limit is not None and bytes_of(self.device, self.parameters, key, capacity) > self.limit:
            raise ListsTooLongError
        self._capacities[tuple(key.shapes(self.parameters))] = capacity
        self._plans.pop(key, None)
        return self.plan(key)

    def block(self, name: str, size: int) -> Any:
        """(size,) bytes; plans that use others of this name are forgotten when they must go."""
        kept = self._blocks.get(name)
        if kept is None or not size <= len(kept) <= KEPT_AT_MOST * size:
            self._plans.clear()
            self._blocks.pop(name, None)
            del kept  # before the new one is taken
            self._blocks[name] = kept = self.device.memory(size)
        return kept[:size]

    def _make(self, key: Key) -> Plan:
        shapes = tuple(key.shapes(self.parameters))
        held = next(shape for shape in shapes if shape[0])
        return Plan(self, key, self._capacities.get(shapes, extrema.capacity_for(held)))


class Plans:
    """The memories that calls take in turn: one that is free, or, when another thread has it, one of their own."""

    def __init__(
        self, device: Device, parameters: Parameters, blur: str = "auto", memory_limit: int | None = None
    ) -> None:
        self.device, self.parameters, self.blur, self.memory_limit = device, parameters, blur, memory_limit
        self._free: list[Memory] = []

    @contextmanager
    def memory(self) -> Iterator[Memory]:
        """A memory that nobody else uses meanwhile."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = Memory(self.device, self.parameters, self.blur, self.memory_limit)
        else:
            self.device.wait_for(memory.free_from)
        try:
            yield memory
        finally:
            memory.free_from = self.device.mark()
            self._free[:] = [memory]

    def exceeds_limit(self, key: Key) -> bool:
        """Whether a plan would take more memory than allowed."""
        return self.memory_limit is not None and bytes_of(self.device, self.parameters, key) > self.memory_limit

    def forget(self) -> None:
        """Gives back the memory that no call uses."""
        self._free.clear()
        self.device.free_memory()
