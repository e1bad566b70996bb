"""The least memory traffic and arithmetic of each kernel of one run, from shapes alone: `roofline` prints them.

`SEQUENCE` is the sequence of launches, kernel by kernel. Each of its functions takes a `Job`, returns the kernel's
work, and documents its assumptions. Bytes are of device memory; each is counted once, no matter how many threads read
it. Samples are float32.

Operations are float32 instructions: an addition, a comparison or a fused multiply-add is one, a division or a square
root eight. Addresses, integers and loads are not counted, so this is a lower bound too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from gpusift.parameters import Parameters, gaussian_taps

SAMPLE = 4  # bytes
SECTOR = 32  # bytes: the granularity of reads from memory
KEY = 8  # bytes of a candidate: octave, row, column and scale in one number
KEYPOINT = 24  # bytes: position, sigma, response, octave, scale
COUNT = 4  # bytes

# Measured on four photographs of 0.4 to 9 MP: 1.4 to 3.1 candidates and 1.1 to 1.25 orientations for each keypoint.
CANDIDATES_PER_KEYPOINT = 2.0
FEATURES_PER_KEYPOINT = 1.2

# Instructions counted by hand in the kernels.
REFINEMENT = 150  # a candidate: gradient, Hessian, its inverse, one step
ORIENTATION = 55  # a sample: gradient once and a quarter, root, atan2, bin
DESCRIPTION = 95  # a sample: the same, turned, and eight parts of histograms


@dataclass(frozen=True)
class Job:
    """One run: images of one shape, and how many keypoints each has.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of an image.
    batch : int
        Images.
    keypoints : int
        Of one image, before orientations.
    pixel : int
        Bytes of an image's pixel.
    parameters : Parameters
        Of SIFT; `upsampling` is one of them.
    """

    shape: tuple[int, int]
    batch: int = 1
    keypoints: int = 5000
    pixel: int = 1
    parameters: Parameters = field(default_factory=Parameters)

    @cached_property
    def samples(self) -> list[int]:
        """Samples of a level of each octave, of all images."""
        return [self.batch * rows * cols for rows, cols in self.parameters.octave_shapes(self.shape)]

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return self.batch * self.shape[0] * self.shape[1]

    @property
    def all_keypoints(self) -> float:
        """Keypoints of all images, before orientations."""
        return self.batch * self.keypoints

    @property
    def features(self) -> float:
        """Keypoints of all images, one for each orientation."""
        return FEATURES_PER_KEYPOINT * self.all_keypoints

    @cached_property
    def mean_square_sigma(self) -> float:
        """Mean of a keypoint's sigma^2, in samples of its octave.

        The model: the number of keypoints of a scale is proportional to 1 / sigma^2, so each octave has a quarter of
        the keypoints of the one before it, and all octaves have the same mean. It gives 6.0, with 75 % of the keypoints
        in the first octave; photographs had 5.9 to 6.3, and 63 to 76 %.
        """
        n_scales = self.parameters.n_scales
        squares = [(self.parameters.sigma_min * 2 ** (s / n_scales)) ** 2 for s in range(1, n_scales + 1)]
        return n_scales / sum(1 / square for square in squares)


@dataclass(frozen=True)
class Work:
    """The least work of a kernel's launches.

    Attributes
    ----------
    kernel : str
        Its name in kernels/.
    label : str
        Distinguishes it from other launches of the kernel.
    constant : int
        Its compile-time constant, the radius of a blur; 0 if it has none.
    launches : int
        For all images.
    read, written : float
        Bytes.
    operations : float
        Float32 instructions.
    """

    kernel: str
    label: str
    constant: int
    launches: int
    read: float
    written: float
    operations: float

    @property
    def moved(self) -> float:
        """Bytes read and written."""
        return self.read + self.written

    @property
    def name(self) -> str:
        """The kernel with its label."""
        return f"{self.kernel}, {self.label}" if self.label else self.kernel


def radius_of(sigma: float) -> int:
    """Return the radius of a Gaussian, samples; 0 without a blur."""
    return len(gaussian_taps(sigma)) - 1 if sigma > 0 else 0


def blur_operations(radius: int) -> int:
    """Return the instructions of a blurred sample: two passes of an add, a subtract and an fma a tap, and two more."""
    return 2 * (3 * radius + 2) if radius else 0


def intensities(job: Job) -> list[Work]:
    """Read the raw image once, write it as float32."""
    return [Work("intensities", "", 0, 1, job.pixel * job.pixels, SAMPLE * job.pixels, job.pixels)]


def first_level(job: Job) -> list[Work]:
    """Level 0 of the first octave: read the image once, enlarge it by two interpolations, blur, write."""
    factor = job.parameters.upsampling
    radius = radius_of(job.parameters.first_blur)
    enlarging = 2 + 2 / factor if factor > 1 else 0  # columns of each enlarged row, then its samples
    operations = job.samples[0] * (enlarging + blur_operations(radius))
    return [Work("first_level", "", radius, 1, SAMPLE * job.pixels, SAMPLE * job.samples[0], operations)]


def blur(job: Job) -> list[Work]:
    """Each further level: read the previous level once, write the level once.

    Level n_scales also writes every second of its samples: level 0 of the next octave. All levels of all octaves are
    one launch, counted with the first of them. What it reads may still be in a cache.
    """
    works = []
    for level, sigma in enumerate(job.parameters.blurs, start=1):
        radius, samples = radius_of(sigma), sum(job.samples)
        halved = sum(job.samples[1:]) if level == job.parameters.n_scales else 0
        written = SAMPLE * (samples + halved)
        operations = samples * blur_operations(radius)
        works.append(Work("blur", f"level {level}", radius, int(level == 1), SAMPLE * samples, written, operations))
    return works


def find_extrema(job: Job) -> list[Work]:
    """Candidates of all octaves: read each level once, write a list of keys.

    Operations are the differences and their comparison with the threshold. Comparisons with neighbours are not counted,
    as few samples of a photograph exceed the threshold.
    """
    samples, levels = sum(job.samples), job.parameters.n_levels
    operations = samples * (levels - 1 + job.parameters.n_scales)
    return [Work("find_extrema", "", 0, 1, SAMPLE * samples * levels, KEY * candidates(job), operations)]


def order(job: Job) -> list[Work]:
    """Order the candidates: count rows, compute prefix sums, group keys by row, sort each row."""
    rows = job.batch * sum(rows for rows, _ in job.parameters.octave_shapes(job.shape))
    moved = KEY * candidates(job)
    return [
        sums("rows", rows),
        Work("group_by_row", "", 0, 1, moved, moved, 0),
        Work("sort_rows", "", 0, 1, moved, moved, candidates(job)),
    ]


def sums(label: str, counts: float) -> Work:
    """Prefix sums of counts: the offset of each entry of a list."""
    return Work("sum_counts", label, 0, 1, COUNT * counts, COUNT * counts, 2 * counts)


def refine(job: Job) -> list[Work]:
    """Move candidates to their extremum and test them: read a sector of each of three rows in four levels."""
    read = (KEY + 3 * 4 * SECTOR) * candidates(job)
    written = KEYPOINT * candidates(job)
    return [Work("refine", "", 0, 1, read, written, REFINEMENT * candidates(job))]


def keep_accepted(job: Job) -> list[Work]:
    """Write the indices of the accepted candidates."""
    read = 2 * COUNT * candidates(job)
    return [
        sums("candidates", candidates(job)),
        Work("keep_accepted", "", 0, 1, read, COUNT * job.all_keypoints, 0),
    ]


def assign_orientations(job: Job) -> list[Work]:
    """Histograms of directions over a square of side 6 lambda_ori sigma."""
    samples = job.all_keypoints * (6 * job.parameters.lambda_ori) ** 2 * job.mean_square_sigma
    read = window_bytes(job, samples) + KEYPOINT * job.all_keypoints
    written = SAMPLE * (job.all_keypoints + job.features)
    return [Work("assign_orientations", "", 0, 1, read, written, ORIENTATION * samples)]


def spread_orientations(job: Job) -> list[Work]:
    """Write a feature for each orientation of a keypoint: its candidate's index, and the angle."""
    moved = (COUNT + SAMPLE) * job.features
    return [
        sums("keypoints", job.all_keypoints),
        Work("spread_orientations", "", 0, 1, moved + 2 * COUNT * job.all_keypoints, moved, 0),
    ]


def describe(job: Job) -> list[Work]:
    """Descriptors over a rotated square of side 2 lambda_descr sigma (n_hist + 1) / n_hist."""
    parameters = job.parameters
    side = 2 * parameters.lambda_descr * (parameters.n_hist + 1) / parameters.n_hist
    samples = job.features * side**2 * job.mean_square_sigma
    read = window_bytes(job, samples) + (KEYPOINT + SAMPLE) * job.features
    return [Work("describe", "", 0, 1, read, parameters.n_values * job.features, DESCRIPTION * samples)]


def collect(job: Job) -> list[Work]:
    """Copy all features into one block of memory."""
    moved = (KEYPOINT + SAMPLE + job.parameters.n_values) * job.features
    return [Work("collect", "", 0, 1, moved, moved, 0)]


def candidates(job: Job) -> float:
    """Return the candidates of all images."""
    return CANDIDATES_PER_KEYPOINT * job.all_keypoints


def window_bytes(job: Job, samples: float) -> float:
    """Return the bytes that windows with `samples` samples read, at most those of the levels that they lie in."""
    return min(SAMPLE * samples, SAMPLE * job.parameters.n_scales * sum(job.samples))


SEQUENCE: tuple[Callable[[Job], list[Work]], ...] = (
    intensities,
    first_level,
    blur,
    find_extrema,
    order,
    refine,
    keep_accepted,
    assign_orientations,
    spread_orientations,
    describe,
    collect,
)


def works(job: Job) -> list[Work]:
    """Return the work of each kernel of a run, in the order of the launches.

    Raises
    ------
    ValueError
        If the images are too small for an octave.
    """
    if not job.samples:
        raise ValueError(f"the image must be large enough for an octave, got shape {job.shape}")
    return [work for step in SEQUENCE for work in step(job)]


def floor_seconds(work: Work, bandwidth: float, instructions: float) -> tuple[float, str]:
    """Return the least seconds of a kernel, and its bound: "memory" or "arithmetic"."""
    memory, arithmetic = work.moved / bandwidth, work.operations / instructions
    return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")
