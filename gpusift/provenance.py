"""What descriptors and positions are comparable with: it is kept with features, in memory and in files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Provenance:
    """How features were computed, as far as it decides with which others they may be used.

    Attributes
    ----------
    descriptor_layout : {"scikit-image", "ubc", "vlfeat"}
        Order of a descriptor's values, and with it the zero of orientations; see `gpusift.SIFT`.
    normalization : {"l2", "root"}
        Normalization of descriptors.
    pooling : tuple of float or None
        Sizes over which descriptors are pooled.
    upsampling : int
        Enlargement of the image.
    bias : float
        Distance of positions, along both axes, from the true ones, input pixels.
    affine_shape : bool
        Whether windows have the affine shapes of their keypoints.
    """

    descriptor_layout: str
    normalization: str
    pooling: tuple[float, ...] | None
    upsampling: int
    bias: float
    affine_shape: bool = False

    @property
    def of_descriptors(self) -> tuple[object, ...]:
        """What must be the same of two descriptors that are compared."""
        return self.descriptor_layout, self.normalization, self.pooling, self.affine_shape

    @property
    def of_positions(self) -> tuple[int, float]:
        """What must be the same of keypoints and of the scale space that they are looked up in."""
        return self.upsampling, self.bias

    def as_json(self) -> str:
        """Return the text that files keep."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Provenance:
        """Return what `as_json` wrote.

        Raises
        ------
        ValueError
            It is some other text.
        """
        try:
            values = json.loads(text)
            pooling = values.pop("pooling")
            return cls(pooling=None if pooling is None else tuple(pooling), **values)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise ValueError(f"provenance of features must be JSON with its five values, got {text[:200]!r}") from None


def require_comparable(named: Iterable[tuple[str, Provenance | None]]) -> None:
    """Raise a ValueError if descriptors cannot be compared, as far as their provenance is known.

    Parameters
    ----------
    named : iterable of (str, Provenance or None)
        What messages call the features, and their provenance.
    """
    known = [(name, each) for name, each in named if each is not None]
    for name, each in known[1:]:
        first_name, first = known[0]
        if each.of_descriptors != first.of_descriptors:
            raise ValueError(
                "descriptors must be of one layout, normalization, pooling and affine_shape to be compared, got "
                f"{_in_words(first)} of {first_name} and {_in_words(each)} of {name}; compute both with one SIFT"
            )


def require_same_scale_space(name: str, provenance: Provenance | None, expected: Provenance) -> None:
    """Raise a ValueError if keypoints are known to be of another scale space than that of a SIFT.

    Parameters
    ----------
    name : str
        What the message calls the features.
    provenance : Provenance or None
        That of the features.
    expected : Provenance
        That of the SIFT's features.
    """
    if provenance is not None and provenance.of_positions != expected.of_positions:
        raise ValueError(
            f"{name} must have the upsampling and the bias of sift, {expected.upsampling} and {expected.bias:g} "
            f"pixels, got {provenance.upsampling} and {provenance.bias:g}; pass the SIFT that made them as sift"
        )


def _in_words(provenance: Provenance) -> str:
    pooled = "" if provenance.pooling is None else f", pooled over {provenance.pooling}"
    shaped = ", with affine shapes" if provenance.affine_shape else ""
    return f"{provenance.descriptor_layout!r}, {provenance.normalization!r}{pooled}{shaped}"
