"""Image files on this machine, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpusift.sources import Source, expand


@dataclass
class Found:
    """The image files that `find_images` found, and the paths without an image.

    Attributes
    ----------
    images : dict of str to Path
        Each image's name and file.
    failures : list of (str, str)
        Paths without an image, each with the reason.
    """

    images: dict[str, Path] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)


def find_images(paths: Sequence[str], root: str | None = None) -> Found:
    """Collect the local image files of `gpusift.sources.expand`, for callers that need all names at once.

    Parameters
    ----------
    paths : sequence of str
        Files, folders and globs as in `gpusift.sources.expand`; neither URLs nor lists.
    root : str, optional
        Make names relative to this folder.

    Returns
    -------
    found : Found
        Images in the order of the paths, sorted within each path; a file found twice counts once.

    Raises
    ------
    ValueError
        A file lies outside `root`.
    """
    found = Found()
    # An absolute path keeps `expand` from taking "-" for standard input and "a://b" for a URL.
    local = [os.path.abspath(path) if path == "-" or "://" in path else path for path in paths]
    for item in expand(local, root=root):
        if isinstance(item, Source):
            found.images[item.name] = Path(item.url)
        else:
            found.failures.append((item.name, item.reason))
    return found
