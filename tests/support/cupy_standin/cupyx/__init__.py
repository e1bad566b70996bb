"""The part of CuPy's extensions that gpusift uses."""

from typing import Any

from standin import pinned


def empty_pinned(shape, dtype=float, order="C"):
    """A NumPy array in pinned memory, not set to anything."""
    return pinned.empty((shape,) if isinstance(shape, int) else tuple(shape), dtype, order)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"the stand-in has no cupyx.{name}")
