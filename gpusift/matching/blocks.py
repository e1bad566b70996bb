"""Groups of pairs of images, so that the descriptors of a few images are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

IMAGES = 16  # the descriptors of twice as many images are held at once


def blocks(
    pairs: Iterable[tuple[str, str]], size: int | None = None
) -> Iterator[tuple[list[str], list[tuple[int, int]]]]:
    """Divide pairs into groups, so that only the descriptors of a few images are in memory at a time.

    Parameters
    ----------
    pairs : iterable of (str, str)
        In any order.
    size : int, optional
        A group has at most twice as many images; by default `IMAGES`.

    Yields
    ------
    names : list of str
        The images of the group.
    numbers : list of (int, int)
        Its pairs, as numbers of these.
    """
    pairs, size = list(pairs), size or IMAGES
    number = {name: i for i, name in enumerate(sorted({name for pair in pairs for name in pair}))}

    def block(pair: tuple[str, str]) -> tuple[int, int]:
        return number[pair[0]] // size, number[pair[1]] // size

    for _, group in groupby(sorted(pairs, key=block), key=block):
        members = list(group)
        names = sorted({name for pair in members for name in pair})
        place = {name: i for i, name in enumerate(names)}
        yield names, [(place[first], place[second]) for first, second in members]
