"""The blurs of one launch: what each reads, writes and waits for, and the order in which blocks take their pieces.

A blur computes one level from another. Its level is cut into bands of rows, and these into pieces, of which a block
takes one. A piece needs some bands of the level that is read, and comes after them in the order. The block that takes
it waits until they are written (kernels/levels.cuh).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, product

import numpy as np

from gpusift.stages.levels import ScaleSpace, pitch


@dataclass(frozen=True)
class Blur:
    """The blur of a level into another one of the same shape.

    Attributes
    ----------
    octave, level : int
        The level that is read.
    to : int
        The level of the octave that is written.
    taps : (radius + 1,) array
        Half of the Gaussian's weights, centre first.
    needed : int or None
        Index, in the launch, of the blur that writes what is read; None if that is there before the launch.
    to_next : bool
        Whether every second sample is also written to level 0 of the next octave.
    leads_on : bool
        Whether a later octave depends on the level.
    """

    octave: int
    level: int
    to: int
    taps: np.ndarray
    needed: int | None = None
    to_next: bool = False
    leads_on: bool = False

    @property
    def radius(self) -> int:
        """Of the Gaussian, samples."""
        return len(self.taps) - 1


def chain(octaves: range, taps: Sequence[np.ndarray], n_scales: int) -> list[Blur]:
    """The blurs of all levels of some octaves, the first level of the first of which is there.

    Parameters
    ----------
    octaves : range
        The octaves.
    taps : sequence of arrays
        Weights that take each level to the next one, the same in every octave.
    n_scales : int
        The level that the next octave begins with.
    """
    blurs: list[Blur] = []
    for o in octaves:
        is_last = o + 1 == octaves.stop
        for s, weights in enumerate(taps):
            before = len(blurs) - 1 if s else len(blurs) - len(taps) + n_scales - 1
            needed = None if o == octaves.start and s == 0 else before
            leads_on = not is_last and s < n_scales
            blurs.append(Blur(o, s, s + 1, weights, needed, leads_on and s + 1 == n_scales, leads_on))
    return blurs


@dataclass(frozen=True, eq=False)
class Order:
    """The tables of a launch, as kernels/scale_space.cu takes them.

    Attributes
    ----------
    blurs : (n_blurs, 13) array of int64
        Of each blur what `Blur` in kernels/levels.cuh has.
    pieces : (n_pieces, 4) array of int32
        Blur, first row, first column and image of each piece, in the order in which blocks take them.
    taps : (n,) array
        The weights of all blurs.
    n_bands : int
        Bands of all blurs, of an image.
    """

    blurs: np.ndarray
    pieces: np.ndarray
    taps: np.ndarray
    n_bands: int


def order_of(space: ScaleSpace, blurs: Sequence[Blur], piece: tuple[int, int], in_flight: int) -> Order:
    """The tables for some blurs.

    Parameters
    ----------
    space : ScaleSpace
        The levels.
    blurs : sequence of Blur
        Each after the one that it needs.
    piece : (int, int)
        Rows and columns of a piece.
    in_flight : int
        Blocks that run at once: a piece should come that many after those that it needs, or its block waits.
    """
    shapes = [space.shapes[blur.octave] for blur in blurs]
    down = [-(-rows // piece[0]) for rows, _ in shapes]
    across = [-(-cols // piece[1]) for _, cols in shapes]
    bands = list(accumulate(down, initial=0))
    taps_at = list(accumulate((len(blur.taps) for blur in blurs), initial=0))
    table = [
        (*_positions(space, blur), blur.radius, taps_at[b], bands[b], *_needed(blurs, bands, across, blur))
        for b, blur in enumerate(blurs)
    ]
    needed = [_needed_bands(blurs, blur, rows, piece[0]) for blur, (rows, _) in zip(blurs, shapes)]
    return Order(
        np.array(table, np.int64),
        _pieces(_Schedule(blurs, needed, across, in_flight, space.batch).order(), across, piece),
        np.concatenate([blur.taps for blur in blurs]),
        bands[-1],
    )


def _positions(space: ScaleSpace, blur: Blur) -> tuple[int, ...]:
    """Positions of the levels in an image's samples, and their shapes and pitches."""
    rows, cols = space.shapes[blur.octave]
    source, target = (space.position(blur.octave, level) for level in (blur.level, blur.to))
    following = (0, 0)
    if blur.to_next:
        following = space.position(blur.octave + 1, 0), pitch(space.shapes[blur.octave + 1][1])
    return source, target, following[0], rows, cols, pitch(cols), following[1]


def _needed(blurs: Sequence[Blur], bands: list[int], across: list[int], blur: Blur) -> tuple[int, int, int]:
    """First band that a blur waits for, the rows there for each row that it reads, and the pieces of each band."""
    if blur.needed is None:
        return -1, 1, 0
    return bands[blur.needed], _step(blurs, blur), across[blur.needed]


def _step(blurs: Sequence[Blur], blur: Blur) -> int:
    return 1 if blur.needed is None or blurs[blur.needed].octave == blur.octave else 2


def _needed_bands(blurs: Sequence[Blur], blur: Blur, rows: int, piece_rows: int) -> np.ndarray:
    """For each band of a blur the last band that it needs of the level that it reads; 0 if that was there before."""
    ends = np.minimum(np.arange(piece_rows, rows + piece_rows, piece_rows) + blur.radius, rows)
    return np.zeros(len(ends), int) if blur.needed is None else _step(blurs, blur) * (ends - 1) // piece_rows


class _Schedule:
    """List scheduling (Graham 1969) of bands, with pieces as the unit of time.

    A band is ready `in_flight` pieces after the last band that it needs, when the blocks that took that one have ended.
    Of the bands that are ready, one of the first image is taken; of these one of a level that leads on to a later
    octave, as the small octaves, each of whose levels has few pieces, are computed one after the other; of these the
    uppermost, so that what one blur writes is still in a cache when the next one reads it. If no band is ready, that
    which is ready first is taken.

    Parameters
    ----------
    blurs : sequence of Blur
        Each after the one that it needs.
    needed : list of arrays
        `_needed_bands` of each blur.
    across : list of int
        Pieces of each blur's bands.
    in_flight, batch : int
        Blocks that run at once, and images.
    """

    def __init__(
        self, blurs: Sequence[Blur], needed: list[np.ndarray], across: list[int], in_flight: int, batch: int
    ) -> None:
        self._blurs, self._across, self._in_flight = blurs, across, in_flight
        self._needed = [of_blur.tolist() for of_blur in needed]
        self._readers = [[b for b, blur in enumerate(blurs) if blur.needed == of] for of in range(len(blurs))]
        self._ends: list[list[list[int]]] = [[[] for _ in blurs] for _ in range(batch)]  # of the bands that are taken
        self._queued: set[tuple[int, int]] = set()  # images and blurs whose next band is in one of the queues
        self._waiting: list[tuple[int, int, int]] = []  # the time when it is ready, image, blur
        self._ready: list[tuple[int, bool, int, int]] = []  # image, whether it leads nowhere, row, blur

    def order(self) -> list[tuple[int, int, int]]:
        """Image, blur and band of all bands, in the order in which they are taken."""
        for image, b in product(range(len(self._ends)), range(len(self._blurs))):
            self._queue(image, b)
        order, now = [], 0
        while self._waiting or self._ready:
            if not self._ready:
                now = max(now, self._waiting[0][0])
            while self._waiting and self._waiting[0][0] <= now:
                self._make_ready(*heappop(self._waiting)[1:])
            image, _, _, b = heappop(self._ready)
            order.append((image, b, len(self._ends[image][b])))
            now += self._across[b]
            self._ends[image][b].append(now + self._in_flight)
            self._queued.remove((image, b))
            for other in (b, *self._readers[b]):
                self._queue(image, other)
        return order

    def _queue(self, image: int, b: int) -> None:
        """Lets the next band of a blur wait, if there is one and what it needs is taken."""
        source, band = self._blurs[b].needed, len(self._ends[image][b])
        if (image, b) in self._queued or band == len(self._needed[b]):
            return
        ends = [0] if source is None else self._ends[image][source]
        if self._needed[b][band] < len(ends):
            heappush(self._waiting, (ends[self._needed[b][band]], image, b))
            self._queued.add((image, b))

    def _make_ready(self, image: int, b: int) -> None:
        blur, band = self._blurs[b], len(self._ends[image][b])
        heappush(self._ready, (image, not blur.leads_on, band << blur.octave, b))


def _pieces(order: list[tuple[int, int, int]], across: list[int], piece: tuple[int, int]) -> np.ndarray:
    """The pieces of bands, from left to right."""
    image, blur, band = np.array(order, np.int64).reshape(-1, 3).T
    n = np.array(across)[blur]
    col = piece[1] * (np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n))
    return np.stack([np.repeat(blur, n), piece[0] * np.repeat(band, n), col, np.repeat(image, n)], 1).astype(np.int32)
