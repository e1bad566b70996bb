"""Guided matching by COLMAP: a second search along the geometry that the first matches give."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpusift.colmap.pairs import Pair


def match(pycolmap: Any, path: Path, pairs: Iterable[Pair], seed: int) -> None:
    """Match and verify pairs of a database's images by COLMAP's own matcher, with guided matching.

    Parameters
    ----------
    pycolmap : module
        pycolmap.
    path : Path
        The database.
    pairs : iterable of (str, str)
        Names of images.
    seed : int
        Of the random samples that verification draws.

    Raises
    ------
    ValueError
        A name has a space in it, which COLMAP's lists of pairs cannot hold.
    """
    pairs = list(pairs)
    spaced = next((name for pair in pairs for name in pair if any(map(str.isspace, name))), None)
    if spaced is not None:
        raise ValueError(f"names must have no spaces for COLMAP's guided matching, got {spaced!r}; rename the image")
    if not pairs:
        return
    matching = pycolmap.FeatureMatchingOptions(guided_matching=True, use_gpu=bool(pycolmap.has_cuda))
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = seed
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as listed:
        listed.writelines(f"{first} {second}\n" for first, second in pairs)
        listed.flush()
        pairing = pycolmap.ImportedPairingOptions(match_list_path=listed.name)
        pycolmap.match_image_pairs(
            path, matching_options=matching, pairing_options=pairing, verification_options=geometry
        )
