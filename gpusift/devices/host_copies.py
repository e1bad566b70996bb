"""Copies within the host's memory, which a few threads share if they are large.

One core copies a fraction of what the memory could deliver. New memory is slower still, as the system clears it first;
the threads share that work too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from queue import SimpleQueue

import numpy as np

from gpusift import processors

MOST_THREADS = 4  # a core copies some 10 GB/s, a server's memory delivers several times that
LEAST_BYTES = 3 << 20  # of a copy that threads share: one core takes 0.1 to 0.3 ms, waking the threads some 0.05 ms
LEAST_PIECE = 1 << 20  # bytes
PIECES_OF_THREAD = 2  # if a thread wakes late, another one copies its second piece

Pair = tuple[np.ndarray, np.ndarray]
"""The array that is written, and the array that is read, of the same shape and with at least one axis."""


def copy(pairs: Sequence[Pair], size: int) -> None:
    """Copies arrays, as `numpy.copyto` does, in the threads that `gpusift.processors.threads` allows, at most 4.

    Parameters
    ----------
    pairs : sequence of Pair
        Those that are written do not overlap.
    size : int
        Their bytes, which decide whether threads share them.

    Raises
    ------
    Exception
        The first that a copy raised. No thread writes any longer then.
    """
    if size < LEAST_BYTES or _n_threads() == 1:
        for to, source in pairs:
            np.copyto(to, source)
    else:
        length = max(LEAST_PIECE, size // (_n_threads() * PIECES_OF_THREAD))
        _share([piece for pair in pairs for piece in _pieces(*pair, length)])


def _pieces(to: np.ndarray, source: np.ndarray, length: int) -> Iterator[Pair]:
    """A pair in pieces of at most so many bytes, but at least one row."""
    n_rows = max(1, length * len(source) // max(source.nbytes, 1))
    for start in range(0, len(source), n_rows):
        yield to[start : start + n_rows], source[start : start + n_rows]


def _share(pieces: list[Pair]) -> None:
    """Copies pieces in this thread and others. Waits for the pieces, not for the threads, which may be busy."""
    waiting = deque(pieces)
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    try:
        with suppress(RuntimeError):  # no thread can be started, or the interpreter ends: this thread copies more
            for _ in range(min(_n_threads(), len(pieces)) - 1):
                _helpers().submit(_copy_next, waiting, ended)
        _copy_next(waiting, ended)
        errors = [ended.get() for _ in pieces]
    finally:
        waiting.clear()  # if this thread was interrupted
    for error in errors:
        if error is not None:
            raise error


def _copy_next(waiting: deque[Pair], ended: SimpleQueue[BaseException | None]) -> None:
    """Copies pieces as long as there are any."""
    while True:
        try:
            to, source = waiting.popleft()
        except IndexError:
            return
        error = None
        try:
            np.copyto(to, source)
        except Exception as raised:
            error = raised
        ended.put(error)


@cache
def _n_threads() -> int:
    return min(MOST_THREADS, processors.threads())


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS - 1, "gpusift-copy")


os.register_at_fork(after_in_child=_helpers.cache_clear)  # a new process has none of the threads
