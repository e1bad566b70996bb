"""Plans: the buffers and prepared launches for images of one shape, made once. And the pool in which they are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from gpusift.devices import Device
from gpusift.parameters import Parameters
from gpusift.pipeline.key import Key
from gpusift.stages import STAGES, collection, extrema, feature_lists, intensities, levels
from gpusift.stages.intensities import Image
from gpusift.stages.workspace import Inputs, Table, Workspace

KEPT_PLANS = 16  # of a memory
# Memory of this many times the bytes that are needed is given back to the system when so many calls have needed less.
KEPT_AT_MOST = 4
KEPT_CALLS = 32
SPARE = 1.25  # length of longer lists over the entries that they must hold
EXPECTED_OF_CAPACITY = 8  # a list is at first expected to be filled to this fraction


class Plan:
    """Buffers and prepared launches for a batch of images of one shape; `Memory.plan` makes them.

    Parameters
    ----------
    memory : Memory
        The memory of the buffers.
    key : Key
        What the plan is made for.
    capacity : int
        Entries of each image's lists.

    Attributes
    ----------
    space : ScaleSpace
        The Gaussian levels.
    lists : FeatureLists
        The candidates, keypoints and features.
    inputs : Inputs
        What is copied to the device for the batch.
    results : (S,) array of uint8
        The features of all images; see `collection`.
    stages : dict
        The steps of each stage, by its name.
    expected_bytes : int
        Bytes of the results that a batch is expected to have.
    """

    def __init__(self, memory: Memory, key: Key, capacity: int) -> None:
        device, parameters = memory.device, memory.parameters
        self.key, self.device = key, device
        self._programs: dict[tuple[str, ...], Callable[[], None]] = {}
        shapes = key.shapes(parameters)
        samples = key.batch * levels.stride_of(parameters, shapes)
        buffer = memory.block("levels", samples * device.dtype.itemsize).view(device.dtype)
        self.space = levels.lay_out(device, shapes, parameters.n_levels, key.batch, buffer)
        if key.strip is not None and key.strip.is_one_octave:
            _, _, _, start, begin, end = strip = key.strip
            rows, _ = parameters.octave_shapes(key.shape)[strip.first]
            self.space.hold_strip(device, strip.first, rows, start, begin, end)
        self.lists = feature_lists.allocate(
            device, parameters, key.batch, capacity, self.space.n_rows, lambda size: memory.block("lists", size)
        )
        layout = key.layout(parameters)
        self.inputs = Inputs(layout, memory.block(f"inputs of {key.pixel_bytes} bytes", layout.size))
        size = collection.bytes_of(device.dtype, parameters, key.batch, capacity)
        self.results = memory.block("results", size)
        self.expected_bytes = max(size // EXPECTED_OF_CAPACITY, collection.header_bytes(key.batch))
        work = Workspace(
            device,
            parameters,
            self.space,
            self.lists,
            key.shape,
            inputs=self.inputs,
            results=self.results,
            blur=memory.blur,
            octaves=key.octaves,
            with_descriptors=key.descriptors,
        )
        steps = {stage.name: stage.steps(work) for stage in STAGES}
        self.stages = {name: of_stage for name, of_stage in steps.items() if of_stage}

    @property
    def launches(self) -> list[Any]:
        """The steps of all stages."""
        return [step for steps in self.stages.values() for step in steps]

    def expect(self, size: int) -> None:
        """Adapts the expected bytes of results to those of a batch: more at once, fewer by and by."""
        wanted = max(int(size * SPARE), self.expected_bytes * 7 // 8, collection.header_bytes(self.key.batch))
        self.expected_bytes = min(wanted, len(self.results))

    def run(self, *stages: str) -> None:
        """Runs the stages of these names, by default all."""
        stages = stages or tuple(self.stages)
        if stages not in self._programs:
            self._programs[stages] = self.device.program([step for stage in stages for step in self.stages[stage]])
        self._programs[stages]()

    def run_through(self, stage: str) -> None:
        """Runs the stages up to the one of this name."""
        names = list(self.stages)
        self.run(*names[: names.index(stage) + 1])

    def run_after(self, stage: str) -> None:
        """Runs the stages that come after the one of this name."""
        names = list(self.stages)
        self.run(*names[names.index(stage) + 1 :])


def bytes_of(device: Device, parameters: Parameters, key: Key, capacity: int | None = None) -> int:
    """The bytes of the device's memory that a plan takes; by default with lists of the length that they have first."""
    shapes = key.shapes(parameters)
    held = shapes[key.strip.first if key.strip else 0] if shapes else (0, 0)
    n_rows = sum(rows for rows, _ in shapes)
    of_levels = levels.stride_of(parameters, shapes) * device.dtype.itemsize
    entries = capacity or extrema.capacity_for(held)
    of_lists = feature_lists.bytes_of(device.dtype, parameters, 1, entries, n_rows)
    of_results = collection.bytes_of(device.dtype, parameters, 1, entries)
    return key.batch * (of_levels + of_lists + of_results) + key.shape[0] * key.shape[1] * key.mask_bytes


class Memory:
    """The memory of one call at a time, and the plans that use it.

    Parameters
    ----------
    device : Device
        The device of the memory.
    parameters : Parameters
        Of all plans.
    blur : str
        Of all plans; see `Workspace`.
    limit : int, optional
        Bytes that a plan may take when its lists are made longer.
    """

    def __init__(self, device: Device, parameters: Parameters, blur: str, limit: int | None = None) -> None:
        self.device, self.parameters, self.blur, self.limit = device, parameters, blur, limit
        self.uploads: Any = device.staging()
        self.downloads: Any = device.staging()
        self.free_from: Any = None  # the mark at which the last call has ended, in the stream of that call
        self._blocks: dict[str, Any] = {}
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._capacities: dict[tuple[Any, ...], int] = {}
        self._small_calls = 0  # one after the other that needed a fraction of the memory

    @cached_property
    def stream(self) -> AbstractContextManager[Any]:
        """A stream of its own, as a context in which it is the current one."""
        return self.device.stream()

    def plan(self, key: Key) -> Plan:
        """The plan for this key: a kept one, or a new one."""
        plan = self._kept_or_new(key)
        is_small = len(self._blocks["levels"]) > KEPT_AT_MOST * plan.space.levels.nbytes
        self._small_calls = self._small_calls + 1 if is_small else 0
        if self._small_calls > KEPT_CALLS:
            self._small_calls = 0
            self.drop()
            plan = self._kept_or_new(key)
        return plan

    def has_plan(self, key: Key) -> bool:
        """Whether a plan for this key is kept."""
        return key in self._plans

    def load_batch(self, plan: Plan, images: Sequence[Image], mask: Any = None) -> None:
        """Copies images, of the plan's shape, and a mask to a plan: what lies on the host in one copy.

        The current stream waits for images on the device, which another stream may still be writing. A strip that
        begins with a later octave takes no image.
        """
        layout, memory = plan.inputs.layout, plan.inputs.memory
        table = np.empty(Table.bytes_of(layout.batch), np.uint8)
        intensities.write_table(Table.of_bytes(table, layout.batch), images)
        parts = [(0, table)] if mask is None else [(0, table), (layout.mask_at, mask)]
        parts += [(layout.pixels_at + n * layout.image_bytes, image.pixels) for n, image in enumerate(images)]
        self.device.upload([part for part in parts if isinstance(part[1], np.ndarray)], memory, self.uploads)
        for image in images:
            if image.ready is not None:
                self.device.wait_for(image.ready)
        for start, array in parts:
            if not isinstance(array, np.ndarray):
                to = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
                self.device.xp.copyto(to, array)

    def with_room(self, key: Key, entries: int) -> Plan | None:
        """A plan with lists for more entries, or None if it would exceed the limit.

        The levels stay as the present plan has computed them.
        """
        capacity = int(entries * SPARE) + 1
        if self.limit is not None and bytes_of(self.device, self.parameters, key, capacity) > self.limit:
            return None
        self._capacities[tuple(key.shapes(self.parameters))] = capacity
        self._plans.pop(key, None)
        return self._kept_or_new(key)

    def block(self, name: str, size: int) -> Any:
        """(size,) bytes of the block of this name. A new block drops the plans, which use the old one."""
        kept = self._blocks.get(name)
        if kept is None or len(kept) < size:
            self.drop(name)
            del kept  # before the new block is allocated
            self._blocks[name] = kept = self.device.memory(size)
        return kept[:size]

    def drop(self, *names: str) -> None:
        """Frees the blocks of these names, by default all, and drops the plans, which use them.

        Waits for the current stream first: a block that is freed may be allocated again at once, for another stream.
        """
        if self._blocks:
            self.device.synchronize()
        self._plans.clear()
        for name in names or tuple(self._blocks):
            self._blocks.pop(name, None)

    def _kept_or_new(self, key: Key) -> Plan:
        plan = self._plans.pop(key, None)
        if plan is None:
            shapes = tuple(key.shapes(self.parameters))
            held = next(shape for shape in shapes if shape[0])
            plan = Plan(self, key, self._capacities.get(shapes, extrema.capacity_for(held)))
        self._plans[key] = plan
        if len(self._plans) > KEPT_PLANS:
            self._plans.popitem(last=False)
        return plan


class Plans:
    """A pool of memories with their plans. Each call takes a memory that no other call uses, and gives it back.

    Parameters
    ----------
    device : Device
        The device of the memories.
    parameters : Parameters
        Of all plans.
    blur : str
        Of all plans; see `Workspace`.
    memory_limit : int, optional
        Bytes that a plan may take.
    """

    def __init__(
        self, device: Device, parameters: Parameters, blur: str = "auto", memory_limit: int | None = None
    ) -> None:
        self.device, self.parameters, self.blur, self.memory_limit = device, parameters, blur, memory_limit
        self._free: list[Memory] = []
        self._lock = Lock()
        self._batch_sizes: dict[tuple[int, int], int] = {}

    def take(self, key: Key, own_stream: bool = False) -> Memory:
        """A memory for the current stream, or for its own one, which waits for the last call that used it.

        One with a plan for this key is taken if there is one.
        """
        with self._lock:
            ready = [memory for memory in self._free if memory.has_plan(key)] or self._free
            if not ready:
                return Memory(self.device, self.parameters, self.blur, self.memory_limit)
            memory = ready[-1]
            self._free.remove(memory)
        with memory.stream if own_stream else nullcontext():
            self.device.wait_for(memory.free_from)
        return memory

    def give_back(self, memory: Memory) -> None:
        """Makes a memory free for other calls, as soon as the work in the current stream has ended."""
        memory.free_from = self.device.mark()
        with self._lock:
            self._free.append(memory)

    @contextmanager
    def memory(self, key: Key) -> Iterator[Memory]:
        """A memory for a plan, which is given back at the end of the context."""
        memory = self.take(key)
        try:
            yield memory
        except BaseException:
            with suppress(Exception):  # a device that has failed fails again, and the first error is raised
                self.give_back(memory)
            raise
        self.give_back(memory)

    def exceeds_limit(self, key: Key) -> bool:
        """Whether a plan would take more memory than allowed."""
        return self.memory_limit is not None and bytes_of(self.device, self.parameters, key) > self.memory_limit

    def batch_size(self, shape: tuple[int, int]) -> int:
        """How many images of this shape suit the device and its free memory; chosen once for each shape."""
        if shape not in self._batch_sizes:
            needed = bytes_of(self.device, self.parameters, Key(1, shape))
            allowed = self.memory_limit // needed if self.memory_limit else needed
            self._batch_sizes[shape] = max(1, min(self.device.batch_size(needed), allowed))
        return self._batch_sizes[shape]

    def forget(self) -> None:
        """Frees the memory that no call uses, and chooses batch sizes anew."""
        with self._lock:
            unused, self._free = self._free, []
        with self.device.active():
            for memory in unused:
                self.device.wait_for(memory.free_from)
                memory.drop()
        self._batch_sizes.clear()
        self.device.free_memory()

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the interpreter
            self.forget()
