"""Which images to match with which: lists of pairs of names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import combinations

from gpusift.sinks.colmap.cameras import import_pycolmap, quiet
from gpusift.sources.limits import DEFAULT_LIMITS
from gpusift.sources.lists import lines_of, open_local_list

Pair = tuple[str, str]
KINDS = ("exhaustive", "sequential", "pairs", "spatial", "vocabtree")
FROM_DATABASE = ("spatial", "vocabtree")  # which COLMAP chooses when the features are in the database


def exhaustive(names: Iterable[str]) -> list[Pair]:
    """Return every pair of images, in the order of their names."""
    return list(combinations(sorted(names), 2))


def sequential(names: Iterable[str], overlap: int = 10) -> list[Pair]:
    """Pair each image with the next ones in the order of names: COLMAP's sequential matcher without quadratic_overlap.

    Parameters
    ----------
    names : iterable of str
        The images' names.
    overlap : int, optional
        The number of next images.

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    ValueError
        If `overlap` is less than 1.
    """
    if overlap < 1:
        raise ValueError(f"overlap must be at least 1, got {overlap}")
    ordered = sorted(names)
    return [(first, second) for i, first in enumerate(ordered) for second in ordered[i + 1 : i + 1 + overlap]]


def choose(
    match: str | None,
    names: Sequence[str],
    overlap: int = 10,
    pairs: str | os.PathLike[str] | Iterable[Pair] | None = None,
) -> list[Pair]:
    """Return the pairs of a kind.

    Parameters
    ----------
    match : {"exhaustive", "sequential", "pairs", "spatial", "vocabtree"} or None
        The kind; None gives no pairs, as do the last two, for which see `from_database`.
    names : sequence of str
        The images' names.
    overlap : int, optional
        For "sequential".
    pairs : path or iterable of (str, str), optional
        For "pairs": a list of pairs, or a file of one.

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    OSError, ValueError
        See `sequential` and `read`; or the kind is unknown, or `pairs` is missing, or has other names.
    """
    if match is not None and match not in KINDS:
        raise ValueError(f"match must be one of {', '.join(map(repr, KINDS))} or None, got {match!r}")
    if (match == "pairs") != (pairs is not None):
        raise ValueError(f"pairs must be given with match='pairs', and only then; got match={match!r}, pairs={pairs!r}")
    if match is None or match in FROM_DATABASE:
        return []
    if match == "exhaustive":
        return exhaustive(names)
    if match == "sequential":
        return sequential(names, overlap)
    if isinstance(pairs, (str, os.PathLike)):
        return read(pairs, names)
    given, known = [(first, second) for first, second in pairs or ()], set(names)
    for pair in given:
        if not known.issuperset(pair) or pair[0] == pair[1]:
            raise ValueError(f"pairs must be of names of two different images, got {pair}")
    return given


def from_database(
    path: str | os.PathLike[str], match: str, vocab_tree: str | os.PathLike[str] | None = None
) -> list[Pair]:
    """Return the pairs that COLMAP chooses: with COLMAP's options, from what is in a database.

    Parameters
    ----------
    path : str or path-like
        A database with features.
    match : {"spatial", "vocabtree"}
        "spatial": images whose positions, by GPS in EXIF, are near each other. "vocabtree": images that a vocabulary
        tree finds alike.
    vocab_tree : str or path-like, optional
        COLMAP's file of the tree, for "vocabtree".

    Raises
    ------
    ImportError
        pycolmap is not installed.
    ValueError
        The tree is missing, or COLMAP cannot read it; or no image has a position.
    """
    pycolmap = import_pycolmap()
    with quiet(pycolmap), pycolmap.Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        if match == "spatial":
            if not database.num_pose_priors():
                raise ValueError("match='spatial' needs images with positions (GPS in EXIF), and none has one")
            generator = pycolmap.SpatialPairGenerator(pycolmap.SpatialPairingOptions(), database)
        else:
            if vocab_tree is None or not os.path.isfile(vocab_tree):
                raise ValueError(f"match='vocabtree' needs COLMAP's vocabulary tree as a file, got {vocab_tree}")
            options = pycolmap.VocabTreePairingOptions(vocab_tree_path=os.fspath(vocab_tree))
            generator = pycolmap.VocabTreePairGenerator(options, database)
        return [(names[first], names[second]) for first, second in generator.all_pairs() if first != second]


def read(path: str | os.PathLike[str], names: Iterable[str]) -> list[Pair]:
    """Read a list of pairs in the format of COLMAP and hloc: on each line two names with a space between them.

    Parameters
    ----------
    path : str or path-like
        A text file, in UTF-8, or UTF-16 or UTF-32 with a byte order mark. Empty lines and lines that begin with # are
        skipped.
    names : iterable of str
        The names of all images; they may contain spaces.

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        A line is not two different names of these images.
    """
    known = set(names)
    pairs = []
    with open_local_list(path, DEFAULT_LIMITS) as file:
        for line in lines_of(file):
            text = line.text.strip()
            if not text or text.startswith("#"):
                continue
            gaps = [i for i, character in enumerate(text) if character.isspace()]
            splits = {(text[:gap].rstrip(), text[gap:].lstrip()) for gap in gaps}
            of_images = [(a, b) for a, b in splits if a in known and b in known and a != b]
            if len(of_images) != 1:
                raise ValueError(
                    f"{os.fspath(path)}, line {line.number}: must be the names of two different images, relative to "
                    f"the folder of all images, with a space between them, got {text!r}"
                )
            pairs += of_images
    return pairs
