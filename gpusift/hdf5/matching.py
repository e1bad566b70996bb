"""Matches of the features in a file with hloc's layout, see `gpusift.hdf5`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from gpusift.features import Features
from gpusift.hdf5.layout import hloc_matches, pair_name
from gpusift.hdf5.reading import read
from gpusift.hdf5.writing import write_group
from gpusift.matching import match_pairs
from gpusift.matching.blocks import blocks
from gpusift.storage.atomic import replacing


def match_file(
    path: str | os.PathLike[str],
    pairs: Iterable[tuple[str, str]],
    output: str | os.PathLike[str],
    *,
    on_pairs: Callable[[int], object] = lambda count: None,
    **matching: Any,
) -> tuple[int, int]:
    """Match pairs of the images in a file of features, and write hloc's file of matches.

    Parameters
    ----------
    path : str or path-like
        The file of features.
    pairs : iterable of (str, str)
        Names of images. A pair that is given twice, in either order, is matched once.
    output : str or path-like
        The file of matches. It is replaced if it exists, and appears whole or not at all.
    on_pairs : callable, optional
        Called with the number of pairs of each block that is matched.
    **matching
        `max_ratio`, `max_distance`, `symmetric_ratio` and `device` of `gpusift.matching.match`. Matches are mutual
        nearest neighbours.

    Returns
    -------
    pairs, matches : int
        The number of pairs, and of all their matches.

    Raises
    ------
    KeyError
        The file has no image of a name.
    OSError
        A file cannot be read or written.
    ValueError
        The features have no descriptors, or some that cannot be compared; or as `gpusift.matching.match`.
    """
    import h5py

    given = list(pairs)
    wanted = list({frozenset(pair): pair for pair in reversed(given)}.values())
    total = 0
    with replacing(output) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        for names, numbers in blocks(wanted):
            features: list[Features] = [each for _, _, each in read(path, names)]
            for (i, j), matches in zip(numbers, match_pairs(features, numbers, **matching)):
                arrays = hloc_matches(features[i], features[j], matches.to_host(), NORMALIZATION)
                write_group(file, pair_name(names[i], names[j]), arrays)
                total += len(matches)
            on_pairs(len(numbers))
    return len(wanted), total


NORMALIZATION = "root"  # of descriptors as `read` gives them
