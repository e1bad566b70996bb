"""The computation of a stream of pictures: neighbours of one shape make a batch, and consecutive batches overlap."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from gpusift.pipeline import batches, inputs
from gpusift.pipeline.batches import Batch
from gpusift.pipeline.computation import InFlight, Wanted
from gpusift.pipeline.outcomes import Outcome, Unfit
from gpusift.stages.intensities import Image

if TYPE_CHECKING:
    from gpusift.sift import SIFT

BATCH_ON_GPU = 16  # images; the CPU takes one at a time
WINDOW = 4  # a picture waits for others of its shape until this many batches of pictures have come after it

T = TypeVar("T")  # what belongs to an image


class Waiting(NamedTuple, Generic[T]):
    """A picture that waits for its batch: its image, what belongs to it, and its number among all pictures."""

    image: Image | Unfit
    item: T
    number: int


class Window(Generic[T]):
    """Pictures that wait to be computed, grouped by shape.

    Parameters
    ----------
    size_of : callable
        The largest batch with an image.
    """

    def __init__(self, size_of: Callable[[Image | Unfit], int]) -> None:
        self._size_of = size_of
        self._groups: dict[Any, list[Waiting[T]]] = {}
        self._n_taken = 0

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, image: Image | Unfit, item: T) -> None:
        """Takes a picture."""
        self._groups.setdefault(batches.kind_of(image), []).append(Waiting(image, item, self._n_taken))
        self._n_taken += 1

    def ready(self) -> list[Waiting[T]] | None:
        """A batch that need not wait any longer, as it is complete or its first picture has waited for many others."""
        for kind, group in self._groups.items():
            size = self._size_of(group[0].image)
            if len(group) >= size or self._n_taken - group[0].number > WINDOW * size:
                return self._first_of(kind)
        return None

    def oldest(self) -> list[Waiting[T]]:
        """The batch of the picture that has waited longest."""
        return self._first_of(min(self._groups, key=lambda kind: self._groups[kind][0].number))

    def _first_of(self, kind: Any) -> list[Waiting[T]]:
        group = self._groups.pop(kind)
        size = self._size_of(group[0].image)
        if len(group) > size:
            self._groups[kind] = group[size:]
        return group[:size]


class Computed(NamedTuple, Generic[T]):
    """The outcome for a picture, and its share of the time that its batch took of this thread."""

    item: T
    image: Image | Unfit
    outcome: Outcome
    seconds: float


class Batching(Generic[T]):
    """Computes pictures as they come; a context, as `InFlight` is.

    Parameters
    ----------
    sift : SIFT
        What computes.
    batch_size : int, optional
        Images of a batch, at most; by default 16 on a GPU, or less if that suits its memory, and 1 on the CPU.
    """

    def __init__(self, sift: SIFT, batch_size: int | None) -> None:
        self._plans, n_streams = sift.plans, sift.device.n_streams

        def size_of(image: Image | Unfit) -> int:
            return batch_size or min(BATCH_ON_GPU, batches.size_of(sift.plans, image, None, n_streams))

        self.window: Window[T] = Window(size_of)
        self._in_flight = InFlight(sift.plans, Wanted(on_host=True), n_streams)
        self._begun: deque[tuple[list[Waiting[T]], float]] = deque()  # the batches in flight, and the seconds so far

    def __enter__(self) -> Batching[T]:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._in_flight.__exit__(*raised)

    @property
    def is_idle(self) -> bool:
        """Whether no batch is being computed."""
        return self._in_flight.n == 0

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether no picture is here."""
        return self.is_idle and not self.window

    def add(self, pixels: Any, item: T) -> None:
        """Takes a picture, which waits for others of its shape."""
        self.window.add(inputs.open_image(self._plans, pixels), item)

    def advance(self, is_last: bool) -> Sequence[Computed[T]]:
        """Starts a batch if one is complete or the device is idle; otherwise finishes one that has ended.

        Waits for the device only if too many batches are in flight, or no other picture will come.

        Parameters
        ----------
        is_last : bool
            Whether no other picture will come.

        Returns
        -------
        sequence of Computed
            The outcomes of a batch that has ended; empty if none has.
        """
        group = self.window.ready()
        if group is None and self.window and (is_last or self.is_idle):
            group = self.window.oldest()
        if group is None:
            return self.finish() if is_last or (not self.is_idle and self._in_flight.first_has_ended) else ()
        ended = self.finish() if self._in_flight.is_full else ()
        begun = time.perf_counter()
        self._in_flight.start(Batch(list(range(len(group))), [waiting.image for waiting in group]))
        self._begun.append((group, time.perf_counter() - begun))
        return ended

    def finish(self) -> Sequence[Computed[T]]:
        """Waits for the batch that was started first; nothing if there is none."""
        if self.is_idle:
            return ()
        begun = time.perf_counter()
        _, outcomes = self._in_flight.finish_first()
        group, seconds = self._begun.popleft()
        each = (seconds + time.perf_counter() - begun) / len(group)
        return [Computed(waiting.item, waiting.image, outcome, each) for waiting, outcome in zip(group, outcomes)]
