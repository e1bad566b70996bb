"""SIFT for NVIDIA GPUs, and for machines without one: scikit-image's, much faster."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpusift.features import Features
    from gpusift.matching import Matches, match, match_descriptors, match_pairs
    from gpusift.refine import refine_matches
    from gpusift.sift import SIFT
    from gpusift.stream import extract

__version__ = "0.1.0"
__all__ = ["SIFT", "Features", "Matches", "extract", "match", "match_descriptors", "match_pairs", "refine_matches"]

_HOMES = {
    "SIFT": "gpusift.sift",
    "Features": "gpusift.features",
    "extract": "gpusift.stream",
    "refine_matches": "gpusift.refine",
    **dict.fromkeys(("Matches", "match", "match_descriptors", "match_pairs"), "gpusift.matching"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import gpusift` is fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gpusift' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
