"""The blurs of one launch: what each reads, writes and waits for, and the order in which blocks take their pieces.

A blur computes one level from another. Its level is cut into bands of rows, and these into pieces, of which a block
takes one. A piece needs some bands of the level that is read, and comes after them in the order. The block that takes
it waits until they are written (kernels/levels.cuh).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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
    times = _times(blurs, shapes, piece[0], max(1, -(-in_flight // max(1, _n_leading(blurs) * across[0]))))
    taps_at = list(accumulate((len(blur.taps) for blur in blurs), initial=0))
    table = [
        (*_positions(space, blur), blur.radius, taps_at[b], bands[b], *_needed(blurs, bands, across, blur))
        for b, blur in enumerate(blurs)
    ]
    return Order(
        np.array(table, np.int64),
        _pieces(times, across, piece, space.batch),
        np.concatenate([blur.taps for blur in blurs]),
        bands[-1],
    )


def _n_leading(blurs: Sequence[Blur]) -> int:
    """Levels of the first octave that later octaves depend on."""
    return sum(blur.leads_on and blur.octave == blurs[0].octave for blur in blurs)


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


def _times(blurs: Sequence[Blur], shapes: list[tuple[int, int]], piece_rows: int, lag: int) -> list[np.ndarray]:
    """When each band of each blur is taken, in bands of the first blur: later than all bands that it needs.

    Levels of the first octave follow each other at a distance of `lag` bands, so that what one writes is read from a
    cache by the next. Levels that no octave depends on are held back, until the first octave's others are through: they
    keep a device busy while the small octaves, each of whose levels has few pieces, are computed one after the other.
    """
    first = -(-shapes[0][0] // piece_rows)
    n_small = sum(blur.octave != blurs[0].octave for blur in blurs)
    times: list[np.ndarray] = []
    for blur, (rows, _) in zip(blurs, shapes):
        ends = np.minimum(np.arange(piece_rows, rows + piece_rows, piece_rows) + blur.radius, rows)
        if blur.needed is None:
            times.append(np.arange(len(ends), dtype=float))
            continue
        needed = _step(blurs, blur) * (ends - 1) // piece_rows
        is_first = blur.octave == blurs[0].octave
        is_held = is_first and not blur.leads_on and blurs[blur.needed].leads_on
        delay = lag + first * is_held if is_first else first / n_small
        times.append(times[blur.needed][needed] + delay)
    return times


def _pieces(times: list[np.ndarray], across: list[int], piece: tuple[int, int], batch: int) -> np.ndarray:
    """The pieces of a batch in order. An image begins when the one before it is through with its first blur."""
    blur = np.repeat(np.arange(len(times)), [len(of_blur) for of_blur in times])
    row = piece[0] * np.concatenate([np.arange(len(of_blur)) for of_blur in times])
    when = np.add.outer(len(times[0]) * np.arange(batch), np.concatenate(times)).reshape(-1)
    in_order = np.argsort(when, kind="stable")
    image, band = np.divmod(in_order, len(blur))
    n = np.array(across)[blur[band]]
    col = piece[1] * (np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n))
    band = np.repeat(band, n)
    return np.stack([blur[band], row[band], col, np.repeat(image, n)], 1).astype(np.int32)
