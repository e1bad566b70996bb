"""scikit-image's SIFT in float64, stage by stage, and the conformance table.

Arrays of this module are those of scikit-image's attributes: positions are (row, col) in input
pixels, orientations radians. Octaves have the scale first: (n_scales + 3, rows, cols).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree
from skimage import color, data
from skimage.feature import SIFT
from skimage.feature._sift import _local_max
from skimage.util import img_as_float

# A keypoint corresponds within this many samples of its octave.
CORRESPONDENCE = 0.5
# Distances are compared in these steps: rounding must not decide between equal keypoints.
POSITION_STEP = 0.02  # octave samples
ORIENTATION_STEP = 0.02  # radians
# Noise on the levels, relative to the image's largest value, of the size of float32's errors
# (observed worst: 2e-7 with blur="ndimage", 5e-7 with "kernel").
FLOAT32_NOISE = 3e-7
NOISE_TRIALS = 32


@dataclass(frozen=True)
class Keypoints:
    """Keypoints with the results of the stages so far."""

    positions: np.ndarray
    sigmas: np.ndarray
    scales: np.ndarray
    octaves: np.ndarray
    orientations: np.ndarray | None = None
    descriptors: np.ndarray | None = None

    @classmethod
    def of(cls, source) -> Keypoints:
        """Return the keypoints of a SIFT object, ours or scikit-image's, or of Features on the host."""
        return cls(**{name: getattr(source, name) for name in cls.__dataclass_fields__})

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Keypoints(**{n: None if a is None else a[index] for n, a in fields.items()})


class Oracle:
    """The stages of scikit-image's SIFT, each computed at its first use."""

    def __init__(self, sift: SIFT, octaves: list[np.ndarray], image_shape: tuple[int, int]):
        self.sift = sift
        self.octaves = octaves
        self.image_shape = image_shape

    @classmethod
    def of(cls, image: np.ndarray, **parameters) -> Oracle:
        sift = SIFT(**parameters)
        image = sift._preprocess(img_as_float(image).astype(np.float64))
        octaves = [np.moveaxis(octave, -1, 0) for octave in sift._create_scalespace(image)]
        return cls(sift, octaves, image.shape)

    def rounded(self, dtype) -> Oracle:
        """Return an oracle whose later stages work on this scale space, rounded to a dtype."""
        octaves = [octave.astype(dtype).astype(np.float64) for octave in self.octaves]
        return Oracle(self.sift, octaves, self.image_shape)

    @functools.cached_property
    def spaces(self) -> list[np.ndarray]:
        """The scale space in scikit-image's layout: the scale is the last axis."""
        return [np.moveaxis(octave, 0, -1) for octave in self.octaves]

    @functools.cached_property
    def extrema(self) -> np.ndarray:
        """Rows of octave, row, col, scale, in scikit-image's order."""
        found = []
        for o, space in enumerate(self.spaces):
            dog = np.ascontiguousarray(np.diff(space, axis=2))
            keys = _local_max(dog, 0.8 * self.sift.c_dog).reshape(-1, 3)
            found.append(np.insert(keys, 0, o, axis=1))
        return np.concatenate(found) if found else np.empty((0, 4), dtype=int)

    @functools.cached_property
    def refined(self) -> Keypoints:
        dogs = [np.diff(space, axis=2) for space in self.spaces]
        positions, scales, sigmas, octaves = self.sift._find_localize_evaluate(dogs, self.image_shape)
        return Keypoints(positions, sigmas, scales, octaves)

    @functools.cached_property
    def oriented(self) -> Keypoints:
        return self.orient(self.refined)

    @functools.cached_property
    def described(self) -> Keypoints:
        return self.describe(self.oriented)

    def orient(self, keypoints: Keypoints) -> Keypoints:
        self.sift._compute_orientation(
            keypoints.positions, keypoints.scales, keypoints.sigmas, keypoints.octaves, self.spaces
        )
        # Without further orientations, scikit-image's octaves become float.
        self.sift.octaves = self.sift.octaves.astype(int)
        return replace(Keypoints.of(self.sift), descriptors=None)

    def describe(self, keypoints: Keypoints) -> Keypoints:
        for name in ("positions", "scales", "sigmas", "octaves", "orientations"):
            setattr(self.sift, name, getattr(keypoints, name))
        self.sift._compute_descriptor([np.gradient(space) for space in self.spaces])
        return Keypoints.of(self.sift)

    def at_threshold(self, keypoint: Keypoints, noise: float = FLOAT32_NOISE) -> bool:
        """Whether noise of the size of float32's errors makes the oracle gain or lose this keypoint.

        Only the keypoint's octave is searched, and only keypoints next to it get orientations.
        """
        o = int(keypoint.octaves)
        level = max(1.0, max(float(np.abs(octave).max()) for octave in self.octaves))
        rng = np.random.default_rng(0)
        counts = set()
        for trial in range(NOISE_TRIALS):
            amplitude = 0.0 if trial == 0 else noise * level
            octaves = [np.zeros((3, 3, 3)) for _ in self.octaves]
            octaves[o] = self.octaves[o] + rng.uniform(-amplitude, amplitude, self.octaves[o].shape)
            counts.add(Oracle(self.sift, octaves, self.image_shape)._count_beside(keypoint))
            if len(counts) > 1:
                return True
        return False

    def _count_beside(self, keypoint: Keypoints) -> int:
        try:
            refined = self.refined
        except RuntimeError:  # no features
            return 0
        delta = self.sift.deltas[int(keypoint.octaves)]
        distances = np.linalg.norm(refined.positions - keypoint.positions, axis=1) / delta
        beside = (distances < CORRESPONDENCE) & (refined.scales == keypoint.scales)
        if not beside.any() or keypoint.orientations is None:
            return int(beside.sum())
        return len(self.orient(refined[beside]))


@dataclass(frozen=True)
class Agreement:
    """The agreement of two sets of keypoints: the rows of the conformance table.

    Percentiles are the 99th over the pairs; 0 without a pair.
    """

    ours: Keypoints
    theirs: Keypoints
    pairs: np.ndarray  # (N, 2) indices of counterparts, in our order
    position: float  # px
    sigma: float  # relative
    orientation: float  # rad
    descriptor_differs: float  # fraction of elements
    descriptor_off: float  # fraction of elements, by more than 1
    misplaced: int  # counterparts not in the oracle's order

    @property
    def alone(self) -> Keypoints:
        """Keypoints of either side without a counterpart."""
        mine = np.setdiff1d(np.arange(len(self.ours)), self.pairs[:, 0])
        others = np.setdiff1d(np.arange(len(self.theirs)), self.pairs[:, 1])
        return _join(self.ours[mine], self.theirs[others])

    def __str__(self):
        return (
            f"{len(self.ours)} of {len(self.theirs)} keypoints, {len(self.alone)} alone, "
            f"position {self.position:.1e} px, sigma {self.sigma:.1e}, "
            f"orientation {self.orientation:.1e} rad, elements: {self.descriptor_differs:.2e} "
            f"differ, {self.descriptor_off:.2e} by more than 1; {self.misplaced} out of order"
        )

    def check(self, dtype: str, oracle: Oracle, kind: str = "bytes") -> None:
        """Assert the rows of the conformance table for a dtype, and a kind of pictures."""
        limits = LIMITS[kind, dtype]
        alone = self.alone
        # One keypoint at a threshold is always allowed.
        allowed = max(1, int(limits.alone * len(self.theirs))) if limits.alone else 0
        assert len(alone) <= allowed, f"too many keypoints without a counterpart: {self}"
        for keypoint in alone:
            assert oracle.at_threshold(keypoint), f"not at a threshold: {keypoint} in {self}"
        for row in ("position", "sigma", "orientation", "descriptor_differs", "descriptor_off"):
            assert getattr(self, row) <= getattr(limits, row), f"{row} beyond {limits}: {self}"
        assert self.misplaced == 0, f"out of the oracle's order: {self}"


@dataclass(frozen=True)
class Limits:
    """The conformance table of one precision."""

    alone: float
    position: float
    sigma: float
    orientation: float
    descriptor_differs: float
    descriptor_off: float


# By kind of pictures: photographs of bytes, photographs whose greys are not rounded, and regular patterns.
#
# In patterns many gradients point exactly at the border of two bins of the orientation's histogram, and the last bit of
# an angle decides. In float64 the CPU takes angles from C's atan2, as scikit-image does (`ties.atan2_of_c`). CUDA's
# atan2 and exp round the last bit in another way.
LIMITS = {
    ("bytes", "float64"): Limits(0, 1e-6, 1e-6, 1e-6, 1e-4, 0),
    ("bytes", "float32"): Limits(1e-3, 5e-4, 1e-4, 1e-4, 5e-3, 1e-3),
    ("greys", "float64"): Limits(0, 1e-6, 1e-6, 1e-6, 1e-4, 0),
    ("greys", "float32"): Limits(5e-3, 5e-4, 1e-4, 1e-4, 5e-3, 1e-3),
    ("patterns", "float64"): Limits(0, 1e-6, 1e-6, 1e-6, 1e-4, 0),
    ("patterns on a GPU", "float64"): Limits(0, 1e-6, 1e-6, 1e-2, 1e-2, 0),  # 4.6e-3 and 4.5e-3 on an H200
    ("patterns", "float32"): Limits(0, 5e-4, 1e-4, np.inf, np.inf, np.inf),  # float32 breaks ties of directions
    ("patterns on a GPU", "float32"): Limits(0, 5e-4, 1e-4, np.inf, np.inf, np.inf),
}


def compare(ours: Keypoints, theirs: Keypoints, upsampling: int = 2) -> Agreement:
    """Pair the keypoints of two sets one to one, and measure how the pairs differ."""
    pairs = _pair(ours, theirs, upsampling)
    a, b = ours[pairs[:, 0]], theirs[pairs[:, 1]]
    position = np.linalg.norm(a.positions - b.positions, axis=1)
    sigma = np.abs(a.sigmas / b.sigmas - 1)
    orientation = np.zeros(0)
    if a.orientations is not None and b.orientations is not None:
        orientation = np.abs(_turn(a.orientations - b.orientations))
    off = np.zeros(0)
    if a.descriptors is not None and b.descriptors is not None:
        off = np.abs(a.descriptors.astype(int) - b.descriptors)
    return Agreement(
        ours=ours,
        theirs=theirs,
        pairs=pairs,
        position=_percentile(position),
        sigma=_percentile(sigma),
        orientation=_percentile(orientation),
        descriptor_differs=float((off > 0).mean()) if off.size else 0.0,
        descriptor_off=float((off > 1).mean()) if off.size else 0.0,
        misplaced=_misplaced(ours, theirs, pairs),
    )


def _pair(ours: Keypoints, theirs: Keypoints, upsampling: int) -> np.ndarray:
    """Pair counterparts greedily: by distance of position, then of orientation."""
    places = []
    for keypoints in (ours, theirs):
        delta = 2.0**keypoints.octaves / upsampling
        # Other octaves and scales are far away.
        far = 1e6 * np.stack([keypoints.octaves, keypoints.scales], axis=-1)
        places.append(np.hstack([keypoints.positions / delta[:, np.newaxis], far]))
    near = cKDTree(places[0]).query_ball_tree(cKDTree(places[1]), CORRESPONDENCE)
    i = np.repeat(np.arange(len(ours)), [len(js) for js in near])
    j = np.array([j for js in near for j in js], dtype=int)
    distance = np.linalg.norm(places[0][i] - places[1][j], axis=1) // POSITION_STEP
    turn = np.zeros(len(i))
    if ours.orientations is not None and theirs.orientations is not None:
        turn = np.abs(_turn(ours.orientations[i] - theirs.orientations[j])) // ORIENTATION_STEP
    free_i, free_j = np.ones(len(ours), dtype=bool), np.ones(len(theirs), dtype=bool)
    pairs = []
    # Equal keypoints (several extrema refined to one place) pair in their order.
    for k in np.lexsort((j, i, turn, distance)):
        if free_i[i[k]] and free_j[j[k]]:
            free_i[i[k]] = free_j[j[k]] = False
            pairs.append((i[k], j[k]))
    return np.array(sorted(pairs), dtype=int).reshape(-1, 2)


def _misplaced(ours: Keypoints, theirs: Keypoints, pairs: np.ndarray) -> int:
    """Count the pairs that follow a pair that comes later in the oracle's order.

    If an orientation of a keypoint has no counterpart, the keypoint's other orientations may change their order, so
    such keypoints do not count.
    """
    lone = np.setdiff1d(np.arange(len(theirs)), pairs[:, 1])
    lone_ours = np.setdiff1d(np.arange(len(ours)), pairs[:, 0])
    places = np.concatenate([theirs.positions[lone], ours.positions[lone_ours]])
    counted = pairs[:, 1]
    if len(places) and len(counted):
        distances, _ = cKDTree(places).query(theirs.positions[counted])
        counted = counted[distances > CORRESPONDENCE]
    return int((counted[1:] < np.maximum.accumulate(counted)[:-1]).sum()) if len(counted) else 0


def _turn(angle: np.ndarray) -> np.ndarray:
    """The same angle in (-pi, pi]."""
    return np.pi - np.mod(np.pi - angle, 2 * np.pi)


def _percentile(values: np.ndarray) -> float:
    return float(np.percentile(values, 99)) if len(values) else 0.0


def _join(a: Keypoints, b: Keypoints) -> Keypoints:
    columns = {}
    for name in Keypoints.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        columns[name] = None if x is None or y is None else np.concatenate([x, y])
    return Keypoints(**columns)


def run(image: np.ndarray, **parameters) -> Oracle:
    """The oracle of an image, kept for the session."""
    return _run(image.tobytes(), image.shape, image.dtype.str, tuple(sorted(parameters.items())))


@functools.lru_cache(maxsize=64)
def _run(buffer: bytes, shape: tuple, dtype: str, parameters: tuple) -> Oracle:
    image = np.frombuffer(buffer, dtype=dtype).reshape(shape)
    return Oracle.of(image, **dict(parameters))


def _grey(image: np.ndarray) -> np.ndarray:
    return np.round(255 * color.rgb2gray(image)).astype(np.uint8)


# Photographs of scikit-image's; crops of the large ones.
PHOTOGRAPHS = {
    "astronaut": lambda: _grey(data.astronaut()),
    "brick": data.brick,
    "camera": data.camera,
    "cell": data.cell,
    "chelsea": lambda: _grey(data.chelsea()),
    "clock": data.clock,
    "coffee": lambda: _grey(data.coffee()),
    "coins": data.coins,
    "grass": lambda: data.grass()[100:300, 200:400],
    "gravel": lambda: data.gravel()[0:250, 0:270],
    "hubble": lambda: _grey(data.hubble_deep_field())[300:600, 400:720],
    "moon": data.moon,
    "motorcycle": lambda: _grey(data.stereo_motorcycle()[0]),
    "page": data.page,
    "retina": lambda: _grey(data.retina())[400:800, 500:900],
    "rocket": lambda: _grey(data.rocket()),
    "text": data.text,
    "tissue": lambda: _grey(data.immunohistochemistry())[0:250, 0:250],
}


@functools.cache
def photograph(name: str) -> np.ndarray:
    return np.ascontiguousarray(PHOTOGRAPHS[name]())
