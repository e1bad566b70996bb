"""The parameters of SIFT, validated, and what follows from them and an image's shape. No device is used here."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gpusift.floating_point import default_mode
from gpusift.provenance import Provenance

# scikit-image's numbers, named.
MIN_OCTAVE_SIZE = 12  # samples along the shorter side of the last octave
EXTREMUM_FRACTION = 0.8  # of c_dog, which a sample must reach to be a candidate (IPOL, Alg. 5)
MAX_REFINEMENT_STEPS = 5  # positions tried for a candidate (IPOL, Alg. 6)
MAX_OFFSET = 0.6  # largest distance of an extremum from its sample, samples (IPOL, Alg. 6)
N_SMOOTHINGS = 6  # of the orientation histogram (IPOL, Alg. 11)
SATURATION = 0.2  # fraction of the norm at which a descriptor's values are clipped (Lowe 2004, 6.1)
SHAPE_WINDOW = 2.0  # deviation of the window of an affine shape, sigmas (Mikolajczyk & Schmid 2004: 1.3 to 2)
SHAPE_TURNS = 4  # times that an affine shape is estimated in the window of the one before
MAX_ELONGATION = 5.0  # of an affine shape (VLFeat)
DESCRIPTOR_NORM = 512  # norm of a descriptor before it becomes bytes (IPOL, Alg. 12)
TRUNCATE = 4.0  # standard deviations at which a Gaussian is truncated (SciPy)

ROUNDING = 1e-9  # scales: a step of half a scale, such as that of 2 ** 0.5, is rounded up however its logarithm is

# Limits of the kernels: a candidate is packed into 64 bits, histograms live in 48 KiB of shared memory.
MAX_SCALES = 60
MAX_SIDE = 1 << 26  # samples along a side of the enlarged image
MIN_BINS, MAX_BINS = 4, 720  # smoothing makes all of fewer than 4 bins equal
MAX_RADIUS = 320
LARGEST, LARGEST_SIGMA = 1e30, 1e4  # the largest real parameters
MAX_FUSED_RADIUS = 8  # of a first blur that is fused with the enlargement
SHARED_BYTES = 48 * 1024 - 512

LEAST_FACTOR, LARGEST_FACTOR, MAX_FACTORS = 1 / 16, 16, 32  # of pooling

RULES = ("response", "scale", "grid")  # that choose max_keypoints
NORMALIZATIONS = ("l2", "root")
LAYOUTS = ("scikit-image", "ubc", "vlfeat")  # as kernels/descriptor.cu numbers them
SAMPLE_CENTRES = {"areas": 0.5, "pixels": 0.0}  # of upsampling_grid, as kernels/scale_space.cu has it


class ExtremumRule(NamedTuple):
    """What makes a candidate a keypoint, apart from the thresholds on contrast and edges.

    Attributes
    ----------
    largest_offset : float
        Distance of an extremum from its sample beyond which a candidate moves to the next sample, samples.
    accepted_offset : float
        Largest distance of an extremum from the last sample, samples.
    moves_in_scale : bool
        Whether a candidate may move to another level of its octave.
    saddles : bool
        Whether an extremum of the difference may be a saddle within its level.
    margin : float
        Least distance from the image's edges, sigmas.
    border : float
        To be added to it, samples of the octave.
    """

    largest_offset: float
    accepted_offset: float
    moves_in_scale: bool
    saddles: bool
    margin: float
    border: float


EXTREMUM_RULES = {
    "ipol": ExtremumRule(MAX_OFFSET, MAX_OFFSET, True, True, 1.0, 0.0),
    "vlfeat": ExtremumRule(0.6, 1.5, False, False, 0.0, 0.0),
    "opencv": ExtremumRule(0.5, 0.5, True, False, 0.0, 4.5),
}


@dataclass(frozen=True)
class Parameters:
    """scikit-image's parameters of SIFT and our own, as users pass them; see `gpusift.SIFT` for each.

    Raises
    ------
    TypeError
        If a value is not a number, or not an integer where one is needed.
    ValueError
        If a value is out of range; the message names it, what must hold and what was got.
    """

    upsampling: int = 2
    n_octaves: int = 8
    n_scales: int = 3
    sigma_min: float = 1.6
    sigma_in: float = 0.5
    c_dog: float = 0.04 / 3
    c_edge: float = 10
    n_bins: int = 36
    lambda_ori: float = 1.5
    c_max: float = 0.8
    lambda_descr: float = 6
    n_hist: int = 4
    n_ori: int = 8
    max_keypoints: int | None = None
    keep: str = "response"
    upright: bool = False
    normalization: str = "l2"
    precise_upscale: bool = False
    descriptor_layout: str = "scikit-image"
    pooling: tuple[float, ...] | None = None
    affine_shape: bool = False
    upsampling_grid: str = "areas"
    extremum_rule: str = "ipol"
    max_orientations: int | None = None

    @default_mode()
    def __post_init__(self) -> None:
        for name in ("upsampling", "n_octaves", "n_scales", "n_bins", "n_hist", "n_ori"):
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        for name in ("sigma_min", "sigma_in", "c_dog", "c_edge", "lambda_ori", "c_max", "lambda_descr"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.upsampling not in (1, 2, 4):
            raise ValueError(f"upsampling must be 1, 2 or 4, got {self.upsampling}")
        _require_range("n_octaves", self.n_octaves, 1)
        _require_range("n_scales", self.n_scales, 1, MAX_SCALES)
        _require_range("n_bins", self.n_bins, MIN_BINS, MAX_BINS)
        _require_range("n_hist", self.n_hist, 1)
        _require_range("n_ori", self.n_ori, 1)
        for name in ("sigma_min", "c_edge", "lambda_ori", "lambda_descr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("sigma_min", "c_edge", "lambda_ori", "lambda_descr", "c_dog", "c_max"):
            largest = LARGEST_SIGMA if name == "sigma_min" else LARGEST
            if getattr(self, name) > largest:
                raise ValueError(f"{name} must be at most {largest:g}, got {getattr(self, name):g}")
        for name in ("sigma_in", "c_dog", "c_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.sigma_in > self.first_sigma:
            raise ValueError(
                f"sigma_in must be at most sigma_min / upsampling = {self.first_sigma:g} (an image cannot be sharpened "
                f"to the first level), got {self.sigma_in:g}; with upsampling={self.upsampling} and "
                f"sigma_min={self.sigma_min:g}, pass sigma_in={self.first_sigma:g} or less"
            )
        for name in ("max_keypoints", "max_orientations"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _integer(name, getattr(self, name)))
                _require_range(name, getattr(self, name), 1)
        for name in ("upright", "precise_upscale", "affine_shape"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.upright and self.affine_shape:
            raise ValueError(
                "upright must be False with affine_shape, as an affine shape needs an orientation, got True; leave one "
                "of them out"
            )
        _require_one_of("keep", self.keep, RULES)
        _require_one_of("normalization", self.normalization, NORMALIZATIONS)
        _require_one_of("descriptor_layout", self.descriptor_layout, LAYOUTS)
        if self.pooling is not None:
            object.__setattr__(self, "pooling", pooling_factors(self.pooling))
        _require_one_of("upsampling_grid", self.upsampling_grid, tuple(SAMPLE_CENTRES))
        _require_one_of("extremum_rule", self.extremum_rule, tuple(EXTREMUM_RULES))
        cells, values = self.histogram_sizes
        needed = 8 * cells + (16 if self.pooling is None else 24) * values
        if needed > SHARED_BYTES:
            raise ValueError(
                f"the descriptor's histograms must fit {SHARED_BYTES} bytes of a GPU's shared memory, got n_hist="
                f"{self.n_hist}, n_ori={self.n_ori} which take {needed}; choose smaller ones"
            )
        for name, member in vars(type(self)).items():  # now, in the default mode, and kept
            if isinstance(member, cached_property):
                getattr(self, name)

    @cached_property
    def first_sigma(self) -> float:
        """Blur of the first level, input pixels."""
        return self.sigma_min / self.upsampling

    @cached_property
    def delta_min(self) -> float:
        """Distance of the first octave's samples, input pixels."""
        return 1 / self.upsampling

    @cached_property
    def final_c_dog(self) -> float:
        """The contrast threshold, made independent of n_scales."""
        return (2 ** (1 / self.n_scales) - 1) / (2 ** (1 / 3) - 1) * self.c_dog

    @cached_property
    def edge_threshold(self) -> float:
        """Largest edgeness of a keypoint (IPOL, Alg. 9)."""
        return (self.c_edge + 1) ** 2 / self.c_edge

    @cached_property
    def rule(self) -> ExtremumRule:
        """What makes a candidate a keypoint."""
        return EXTREMUM_RULES[self.extremum_rule]

    @cached_property
    def sample_centre(self) -> float:
        """The centre of a sample of the enlarged image, of its side, that lies on that of a pixel."""
        return SAMPLE_CENTRES[self.upsampling_grid]

    @cached_property
    def upsampling_bias(self) -> float:
        """The distance of positions from the true ones, unless it is subtracted, input pixels."""
        return self.sample_centre * (self.upsampling - 1) / self.upsampling

    @cached_property
    def position_shift(self) -> float:
        """What precise_upscale subtracts from positions, input pixels: the bias of area-aligned enlargement."""
        return self.upsampling_bias if self.precise_upscale else 0.0

    @cached_property
    def provenance(self) -> Provenance:
        """What features say of how they were computed."""
        bias = self.upsampling_bias - self.position_shift
        return Provenance(
            self.descriptor_layout, self.normalization, self.pooling, self.upsampling, bias, bool(self.affine_shape)
        )

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Parameters:
        """The parameters among the settings that an output records; those that are missing are the defaults."""
        return cls(**{each.name: settings[each.name] for each in fields(cls) if each.name in settings})

    @cached_property
    def bin_centre(self) -> float:
        """The centre of a bin of the orientation histogram, bins: half a bin high in scikit-image and IPOL."""
        return 0.5 if self.descriptor_layout == "scikit-image" else 0.0

    @cached_property
    def upright_orientation(self) -> float:
        """The orientation that upright gives, radians: along the first axis of the layout's convention."""
        return 0.0 if self.descriptor_layout == "scikit-image" else math.pi / 2

    @cached_property
    def n_levels(self) -> int:
        """Levels of an octave: n_scales, one more for the difference and one at either end."""
        return self.n_scales + 3

    @cached_property
    def n_values(self) -> int:
        """Length of a descriptor."""
        return self.n_hist**2 * self.n_ori

    @cached_property
    def histogram_sizes(self) -> tuple[int, int]:
        """Number of sums in which a descriptor is accumulated, and of its values."""
        return 4 * (self.n_hist + 1) ** 2 * (self.n_ori + 1), self.n_values

    @cached_property
    def level_sigmas(self) -> tuple[float, ...]:
        """(n_levels,) blur of the first octave's levels, input pixels (IPOL, eq. 10)."""
        return tuple(2.0 ** (s / self.n_scales) * self.first_sigma for s in range(self.n_levels))

    @cached_property
    def first_blur(self) -> float:
        """Blur that takes the enlarged image to the first level, samples of the first octave."""
        return self.upsampling * math.sqrt(self.first_sigma**2 - self.sigma_in**2)

    @cached_property
    def blurs(self) -> tuple[float, ...]:
        """(n_levels - 1,) blur from each level to the next, samples of its octave, in every octave (IPOL, eq. 7)."""
        sigmas = self.level_sigmas
        return tuple(math.sqrt(b * b - a * a) / self.delta_min for a, b in pairwise(sigmas))

    def n_octaves_of(self, image_shape: tuple[int, int]) -> int:
        """Octaves of an image of this shape: at most n_octaves, of at least MIN_OCTAVE_SIZE samples; 0 if too small."""
        shorter = min(image_shape) * self.upsampling
        if shorter < MIN_OCTAVE_SIZE:
            return 0
        return min(self.n_octaves, int(math.log2(shorter / MIN_OCTAVE_SIZE) + 1))

    def octave_shapes(self, image_shape: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of each octave's levels."""
        rows, cols = (side * self.upsampling for side in image_shape)
        shapes = []
        for _ in range(self.n_octaves_of(image_shape)):
            shapes.append((rows, cols))
            rows, cols = -(-rows // 2), -(-cols // 2)
        return shapes

    @default_mode()
    def levels_of(self, sigmas: np.ndarray, n_octaves: int) -> tuple[np.ndarray, np.ndarray]:
        """The levels nearest in blur to keypoints.

        Parameters
        ----------
        sigmas : (N,) array of float
            Input pixels.
        n_octaves : int
            Octaves of the image.

        Returns
        -------
        octaves, scales : (N,) arrays of int32
            Index of the octave, and of the scale within it: from 1 to n_scales, or the nearest that the image has.
        """
        number = np.rint(self.n_scales * np.log2(np.asarray(sigmas, np.float64) / self.first_sigma))
        octaves = np.clip((number - 1) // self.n_scales, 0, n_octaves - 1)
        scales = np.clip(number - octaves * self.n_scales, 0, self.n_levels - 1)
        return octaves.astype(np.int32), scales.astype(np.int32)

    @default_mode()
    def window_levels(self, n_octaves: int) -> np.ndarray:
        """The levels of the windows over which `pooling` pools a descriptor.

        A window of size f sigma is in the octave in which f sigma is nearest to sigma_min samples, by its logarithm, so
        that every window has about as many samples; there it is in the level whose blur is nearest to f sigma, or the
        first one. Where the image has no such octave, the first or the last octave takes its place. The levels of a
        keypoint count as having the blur of its octave and scale index.

        Parameters
        ----------
        n_octaves : int
            Octaves of the image.

        Returns
        -------
        levels : (len(pooling), n_octaves, n_levels, 2) array of int32
            For each factor, and each octave and scale index of a keypoint: the octave and scale index of the level.
        """
        steps = [math.floor(self.n_scales * math.log2(f) + 0.5 + ROUNDING) for f in self.pooling or ()]
        keypoints = np.arange(n_octaves)[:, None] * self.n_scales + np.arange(self.n_levels)
        numbers = np.array(steps, np.int64)[:, None, None] + keypoints
        octaves = np.clip((numbers + self.n_scales // 2) // self.n_scales, 0, max(n_octaves - 1, 0))
        scales = np.clip(numbers - octaves * self.n_scales, 0, self.n_levels - 1)
        return np.stack((octaves, scales), axis=-1).astype(np.int32)

    @default_mode()
    def scalespace_sigmas(self, n_octaves: int) -> np.ndarray:
        """(n_octaves, n_levels) float64: blur of every level, input pixels."""
        return 2.0 ** np.arange(n_octaves)[:, None] * np.array(self.level_sigmas)


@default_mode()
def gaussian_taps(sigma: float) -> np.ndarray:
    """Half of a Gaussian's weights, those of SciPy, centre first.

    Parameters
    ----------
    sigma : float
        Standard deviation, samples.

    Returns
    -------
    taps : (radius + 1,) float64 array
        w_0 ... w_radius with w_0 + 2 (w_1 + ... + w_radius) = 1 and radius = int(4 sigma + 1/2).
    """
    radius = int(TRUNCATE * sigma + 0.5)
    taps = [math.exp(-0.5 / (sigma * sigma) * k * k) for k in range(radius + 1)]
    total = math.fsum(taps + taps[1:])
    return np.array(taps) / total


def pooling_factors(pooling: object) -> tuple[float, ...]:
    """The factors of pooling, checked, in ascending order.

    Raises
    ------
    TypeError, ValueError
        If they are not as many numbers, or not of this size, as `gpusift.SIFT` says.
    """
    try:
        if isinstance(pooling, (str, bytes)):
            raise TypeError
        given: tuple[object, ...] = tuple(pooling)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"pooling must be several numbers or None, got {pooling!r}") from None
    if not 1 <= len(given) <= MAX_FACTORS:
        raise ValueError(f"pooling must be 1 to {MAX_FACTORS} numbers, or None, got {len(given)}")
    factors = tuple(sorted(_number("a factor of pooling", factor) for factor in given))
    for factor in factors:
        if not LEAST_FACTOR <= factor <= LARGEST_FACTOR:
            raise ValueError(
                f"the factors of pooling must be between {LEAST_FACTOR:g} and {LARGEST_FACTOR:g}, got {factor:g}"
            )
    return factors


def _integer(name: str, value: object) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _number(name: str, value: object) -> float:
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def _require_range(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} must be {allowed}, got {value}")


def _require_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
