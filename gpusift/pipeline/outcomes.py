"""The outcome for an image: its features, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from gpusift.features import Features
from gpusift.parameters import Parameters

T = TypeVar("T")


@dataclass(frozen=True)
class Unfit:
    """An image whose features cannot be computed. The other images of its batch are not affected.

    Attributes
    ----------
    error : type
        The exception for a caller of one image: TypeError, ValueError or MemoryError.
    reason : str
        What must hold, what was got, and what to do.
    """

    error: type[Exception]
    reason: str


Outcome = Features | Unfit


def with_provenance(outcome: Outcome, parameters: Parameters) -> Outcome:
    """The outcome of SIFT with these parameters, which its features then say."""
    return outcome if isinstance(outcome, Unfit) else outcome.with_provenance(parameters.provenance)


def require(value: T | Unfit, which: str = "") -> T:
    """The value; raises the error of an unfit image, with `which` before the reason."""
    if isinstance(value, Unfit):
        raise value.error(f"{which}{value.reason}")
    return value
