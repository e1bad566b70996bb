"""The computation of batches: how each is computed, and how they overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from enum import Enum
from typing import NamedTuple, TypeVar

from gpusift.devices import Copy
from gpusift.features import Features
from gpusift.pipeline import strips
from gpusift.pipeline.batches import Batch
from gpusift.pipeline.key import Key
from gpusift.pipeline.outcomes import Outcome, Unfit, with_provenance
from gpusift.pipeline.plan import Memory, Plan, Plans, bytes_of
from gpusift.pipeline.results import outcomes_of, start_copy
from gpusift.stages import collection, intensities
from gpusift.stages.intensities import Image

T = TypeVar("T")


class Way(Enum):
    """How a batch is computed."""

    NOTHING = "its images are too small for an octave: there are no features"
    WHOLE = "by one plan"
    HALVES = "each half of it on its own"
    STRIPS = "its only image strip by strip"
    TOO_LARGE = "not at all: the device has no memory for its only image"


def way_of(plans: Plans, key: Key, *, lists_fit: bool = True, memory_left: bool = True) -> Way:
    """How a batch is computed: the only place that decides.

    Parameters
    ----------
    plans : Plans
        With the memory limit.
    key : Key
        The plan that the batch needs.
    lists_fit : bool
        False if the lists of its features, whose lengths are known in the end, have exceeded the memory limit.
    memory_left : bool
        False if the memory of the device has run out.
    """
    if not plans.parameters.octave_shapes(key.shape):
        return Way.NOTHING
    if lists_fit and memory_left and not plans.exceeds_limit(key):
        return Way.WHOLE
    if key.batch > 1:
        return Way.HALVES
    return Way.STRIPS if memory_left else Way.TOO_LARGE


class Wanted(NamedTuple):
    """What callers want of their images.

    Attributes
    ----------
    descriptors : bool
        Whether to compute descriptors.
    on_host : bool
        Whether to copy the features to the host, all of a batch in one copy.
    on_stage : callable, optional
        Called with each stage's name when it has ended on the device, for measurements.
    """

    descriptors: bool = True
    on_host: bool = False
    on_stage: Callable[[str], None] | None = None


def compute(
    plans: Plans, batches: Iterable[Batch], wanted: Wanted, n_streams: int = 0
) -> Iterator[tuple[list[int], list[Outcome]]]:
    """Computes batches.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    batches : iterable of Batch
        Taken as they are needed.
    wanted : Wanted
        Of all images.
    n_streams : int
        Batches that are computed at once, each in a stream of its own. 0: one after the other, in the current stream.

    Yields
    ------
    numbers, outcomes : lists
        The numbers of a batch's images, and their outcomes. In the order of the batches.
    """
    with InFlight(plans, wanted, n_streams) as in_flight:
        for batch in batches:
            if in_flight.is_full:
                yield in_flight.finish_first()
            in_flight.start(batch)
        while in_flight.n:
            yield in_flight.finish_first()


class InFlight:
    """Batches that are computed at once: a context, which waits for them if it is left by an exception.

    Parameters
    ----------
    plans, wanted, n_streams
        As for `compute`.
    """

    def __init__(self, plans: Plans, wanted: Wanted, n_streams: int) -> None:
        self._plans, self._wanted, self._n_streams = plans, wanted, n_streams
        self._running: deque[Computation] = deque()

    def __enter__(self) -> InFlight:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for computation in self._running:
                computation.abandon()

    @property
    def n(self) -> int:
        """Number of batches that have begun and not been finished."""
        return len(self._running)

    @property
    def is_full(self) -> bool:
        """Whether a batch must be finished before another one is started."""
        return self.n == max(1, self._n_streams)

    @property
    def first_has_ended(self) -> bool:
        """Whether the device has computed the batch that was started first."""
        return self._running[0].has_ended

    def start(self, batch: Batch) -> None:
        """Launches the computation of a batch. Does not wait for the device."""
        self._running.append(Computation(self._plans, batch, self._wanted, own_stream=self._n_streams > 0))
        self._running[-1].start()

    def finish_first(self) -> tuple[list[int], list[Outcome]]:
        """Waits for the batch that was started first; the numbers of its images, and their outcomes."""
        first, others = self._running[0], list(self._running)[1:]
        first.collect()
        if first.outcomes is None:
            for other in others:  # then the first one can take all free memory
                other.collect()
                other.end()
            if others and first.way in (Way.HALVES, Way.TOO_LARGE):
                first.start()
                first.collect()
        outcomes = first.outcomes if first.outcomes is not None else first.in_pieces()
        first.end()
        self._running.popleft()
        return first.batch.numbers, [with_provenance(outcome, self._plans.parameters) for outcome in outcomes]


class Computation:
    """The computation of one batch: its memory, its plan and, in the end, its outcomes.

    Parameters
    ----------
    plans : Plans
        Of a device, parameters and a blur.
    batch : Batch
        Its images.
    wanted : Wanted
        Of the images.
    own_stream : bool
        Whether to compute in a stream of its own, rather than in the current one.

    Attributes
    ----------
    outcomes : list of Features or Unfit, or None
        None until they are known.
    way : Way
        How the batch is computed.
    """

    def __init__(self, plans: Plans, batch: Batch, wanted: Wanted, own_stream: bool) -> None:
        self.plans, self.batch, self.wanted, self.own_stream = plans, batch, wanted, own_stream
        self.outcomes: list[Outcome] | None = None
        self.way = Way.NOTHING
        self._memory: Memory | None = None
        self._plan: Plan | None = None
        self._copy: Copy | None = None

    def start(self) -> None:
        """Launches the plan, if the batch is computed as a whole. Does not wait for the device."""
        if self.batch.is_unfit:
            self.outcomes = self.batch.images
            return
        self.way = way_of(self.plans, self._key)
        if self.way is Way.NOTHING:
            with self._current():
                self.outcomes = [_nothing(self.plans, image, self.wanted) for image in self.batch.images]
        elif self.way is Way.WHOLE:
            self._unless_memory_runs_out(self._launch)

    @property
    def has_ended(self) -> bool:
        """Whether the device has nothing left to do for what was launched."""
        with self._current():
            return self._copy is None or self._copy.has_ended()

    def collect(self) -> None:
        """Waits for the plan and reads the outcomes. If there are none, `way` is another one then."""
        plan, copy = self._plan, self._copy
        if self.outcomes is None and plan is not None and copy is not None:
            self.outcomes = self._unless_memory_runs_out(lambda: self._read(plan, copy))
            if self.outcomes is None and self.way is Way.WHOLE:
                self.way = way_of(self.plans, self._key, lists_fit=False)

    def in_pieces(self) -> list[Outcome]:
        """The outcomes of a batch that is not computed as a whole."""
        self.end()
        images = self.batch.images
        if self.way is Way.HALVES:
            middle = len(images) // 2
            halves = [Batch(list(range(middle)), images[:middle], self.batch.mask)]
            halves.append(Batch(list(range(middle, len(images))), images[middle:], self.batch.mask))
            with self._current():
                return [outcome for _, some in compute(self.plans, halves, self.wanted) for outcome in some]
        if self.way is Way.STRIPS:
            outcome = self._unless_memory_runs_out(self._compute_strips)
            if outcome is not None:
                return [outcome]
        (rows, cols), needed = images[0].shape, bytes_of(self.plans.device, self.plans.parameters, self._key)
        reason = (
            f"the memory of device {self.plans.device.name} must hold some {needed} bytes for an image of {rows} x "
            f"{cols} pixels, and did not; pass memory_limit, smaller images or upsampling=1"
        )
        return [Unfit(MemoryError, reason)]

    def end(self) -> None:
        """Gives the memory of the computation back."""
        if self._memory is not None:
            with self._current():
                self.plans.give_back(self._memory)
        self._memory = self._plan = self._copy = None

    def abandon(self) -> None:
        """Waits for what has been launched, and gives the memory back if the device still works."""
        with suppress(Exception):
            with self._current():
                self.plans.device.synchronize()
            self.end()

    @property
    def _key(self) -> Key:
        return Key.of(self.batch.images, self.batch.mask, self.wanted.descriptors)

    def _current(self) -> ExitStack:
        """A context in which the device, and the stream of the computation, are the current ones."""
        context = ExitStack()
        context.enter_context(self.plans.device.active())
        if self.own_stream and self._memory is not None:
            context.enter_context(self._memory.stream)
        return context

    def _launch(self) -> None:
        """Takes a memory, copies the images to the device, launches the stages and starts to copy the results."""
        device, images = self.plans.device, self.batch.images
        with device.active():
            self._memory = self.plans.take(self._key, self.own_stream)
        with self._current():
            self._plan = plan = self._memory.plan(self._key)
            self._memory.load_batch(plan, images, self.batch.mask)
            loaded = device.mark() if self.own_stream and not images[0].on_host else None
            self._run(plan)
            self._copy = start_copy(self._memory, plan, self.wanted.on_host)
        if loaded is not None:
            with device.active():
                device.wait_for(loaded)  # the caller may write to its arrays again, in its own stream

    def _run(self, plan: Plan) -> None:
        """Launches all stages; one by one, waiting for each, if they are measured."""
        if self.wanted.on_stage is None:
            plan.run()
            return
        self._ended("upload", self.wanted.on_stage)
        for stage in plan.stages:
            plan.run(stage)
            self._ended(stage, self.wanted.on_stage)

    def _ended(self, stage: str, on_stage: Callable[[str], None]) -> None:
        self.plans.device.synchronize()
        on_stage(stage)

    def _read(self, plan: Plan, copy: Copy) -> list[Outcome] | None:
        assert self._memory is not None
        with self._current():
            return outcomes_of(self._memory, plan, self.batch.images, copy, self.wanted.on_host)

    def _compute_strips(self) -> Outcome:
        with self._current():
            (image,) = self.batch.images
            outcome = strips.compute(self.plans, image, self.batch.mask, self.wanted.descriptors)
            return outcome.to_host() if self.wanted.on_host and isinstance(outcome, Features) else outcome

    def _unless_memory_runs_out(self, step: Callable[[], T]) -> T | None:
        """What a step returns. If the device's memory runs out: None, memory is freed, and `way` is another one."""
        try:
            return step()
        except self.plans.device.OutOfMemoryError:
            pass
        if self._memory is not None:
            with self._current():
                self._memory.drop()
        self.end()
        self.plans.forget()
        self.way = way_of(self.plans, self._key, memory_left=False)
        return None


def _nothing(plans: Plans, image: Image, wanted: Wanted) -> Outcome:
    """The outcome for an image that is too small for an octave."""
    if not intensities.is_fit(image):
        return Unfit(ValueError, intensities.why_unfit(image))
    device, parameters = plans.device, plans.parameters
    features = collection.no_features(device, parameters, with_descriptors=wanted.descriptors)
    return features.to_host() if wanted.on_host else features
