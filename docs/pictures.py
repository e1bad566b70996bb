"""Draw the pictures of concepts.md from photographs: `python docs/pictures.py` writes them into docs/pictures.

The levels are those of the paper, by SciPy's Gaussian filter; keypoints, orientations and descriptors are gpusift's.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, minimum_filter

from gpusift import SIFT, Features

FOLDER = Path(__file__).resolve().parent / "pictures"
BLUR = 0.5  # of the photograph, in pixels: SIFT's sigma_in
BRIGHT, DARK, GREY = "#ff8c00", "#00b7ff", "#9a9a9a"
CROP = (slice(60, 260), slice(150, 350))  # rows and columns of the photograph, for pictures of details


def photograph() -> np.ndarray:
    """The cameraman, (512, 512), in [0, 1]."""
    return skimage.data.camera() / 255


def level(image: np.ndarray, sigma: float) -> np.ndarray:
    """The photograph blurred to a sigma, at its own resolution."""
    return gaussian_filter(image, np.sqrt(sigma**2 - BLUR**2))


def plain(axes: Axes, title: str) -> None:
    """Show a picture without ticks."""
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def scale_space(image: np.ndarray, sift: SIFT) -> Figure:
    """Three octaves of six levels, each octave half as large as the one before it."""
    figure, grid = plt.subplots(3, 6, figsize=(11, 4.4), layout="constrained", height_ratios=(4, 2, 1))
    for octave, row in enumerate(grid):
        for index, axes in enumerate(row):
            sigma = sift.scalespace_sigmas[octave, index]
            axes.imshow(level(image, sigma)[:: 2**octave, :: 2**octave], cmap="gray", vmin=0, vmax=1)
            plain(axes, f"$\\sigma$ = {sigma:.1f} px")
    figure.suptitle("Rows: octaves 0, 1 and 2, each half as large as the one before. Columns: levels.", fontsize=10)
    return figure


def extrema(image: np.ndarray, features: Features, sift: SIFT) -> Figure:
    """Differences of three pairs of levels, with the extrema of the middle one."""
    octave = 1  # whose samples are the photograph's
    sigmas = sift.scalespace_sigmas[octave]
    differences = np.stack([level(image, sigmas[i + 1]) - level(image, sigmas[i]) for i in range(1, 4)])
    is_extremum = (differences == maximum_filter(differences, 3)) | (differences == minimum_filter(differences, 3))
    is_candidate = is_extremum[1] & (np.abs(differences[1]) > 0.8 * sift.c_dog)
    rows, columns = np.nonzero(is_candidate[CROP])
    top, left = CROP[0].start, CROP[1].start
    figure, grid = plt.subplots(1, 3, figsize=(11, 4.3), layout="constrained")
    for index, axes in enumerate(grid):
        picture = axes.imshow(differences[index][CROP], cmap="gray", vmin=-0.12, vmax=0.12)
        plain(axes, f"$\\sigma$ = {sigmas[index + 2]:.1f} minus $\\sigma$ = {sigmas[index + 1]:.1f} px")
    figure.colorbar(picture, ax=grid, shrink=0.8, label="difference of intensities")
    grid[1].scatter(columns, rows, s=30, facecolors="none", edgecolors="red", label="candidate")
    near = (features.octaves == octave) & (features.scales == 2)
    positions = features.positions[near] - (top, left)
    bright = features.responses[near] < 0
    for chosen, colour, name in ((bright, BRIGHT, "keypoint, bright blob"), (~bright, DARK, "keypoint, dark blob")):
        grid[1].scatter(positions[chosen, 1], positions[chosen, 0], s=14, c=colour, label=name)
    grid[1].set_xlim(-0.5, 199.5)
    grid[1].set_ylim(199.5, -0.5)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def keypoints(image: np.ndarray, features: Features) -> Figure:
    """All features of a part of the photograph, and the 20 largest of the whole."""
    figure, grid = plt.subplots(1, 2, figsize=(11, 5.6), layout="constrained")
    largest = np.argsort(-features.sigmas, kind="stable")[:20]
    for axes, chosen, title in (
        (grid[0], np.arange(len(features)), "every feature of a part of the photograph"),
        (grid[1], largest, "the 20 of largest scale"),
    ):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        for index in chosen:
            row, column = features.positions[index]
            radius, angle = features.sigmas[index], features.orientations[index]
            colour = BRIGHT if features.responses[index] < 0 else DARK
            axes.add_patch(plt.Circle((column, row), radius, fill=False, color=colour, linewidth=1))
            # An angle's (cos, sin) points along (row, column).
            ends = ([column, column + radius * np.sin(angle)], [row, row + radius * np.cos(angle)])
            axes.plot(*ends, color=colour, linewidth=1)
        plain(axes, title)
    grid[0].set_xlim(CROP[1].start, CROP[1].stop)
    grid[0].set_ylim(CROP[0].stop, CROP[0].start)
    grid[1].set_xlim(0, 511)
    grid[1].set_ylim(511, 0)
    figure.suptitle(
        "Circle: its radius is sigma; its line points along the orientation. Orange: bright blob, blue: dark blob.",
        fontsize=10,
    )
    return figure


def window(
    image: np.ndarray, features: Features, index: int, radius: float, angle: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The blurred image around a feature, in units of sigma and turned by an angle, with its two derivatives."""
    sigma = features.sigmas[index]
    blurred = level(image, sigma)
    steps = np.linspace(-radius, radius, 121) * sigma
    along, across = np.meshgrid(steps, steps, indexing="ij")
    cos, sin = np.cos(angle), np.sin(angle)
    rows = features.positions[index, 0] + along * cos - across * sin
    columns = features.positions[index, 1] + along * sin + across * cos
    values, *slopes = (map_coordinates(array, [rows, columns], order=1) for array in (blurred, *np.gradient(blurred)))
    return values, slopes[0] * cos + slopes[1] * sin, slopes[1] * cos - slopes[0] * sin


def orientation(image: np.ndarray, features: Features, index: int, sift: SIFT) -> Figure:
    """The gradients of a window, and the histogram of their directions."""
    radius = 3 * sift.lambda_ori
    values, down, right = window(image, features, index, radius, 0.0)
    figure, (left, histogram) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    left.imshow(values, cmap="gray", extent=(-radius, radius, radius, -radius))
    steps = np.linspace(-radius, radius, 121)
    weights = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * sift.lambda_ori**2)) * np.hypot(down, right)
    every = np.zeros(weights.shape, bool)
    every[4::8, 4::8] = True
    shown = np.nonzero(every & (weights > 0.05 * weights.max()))
    lengths = weights[shown] / weights.max() / np.hypot(down, right)[shown]
    left.quiver(
        steps[shown[1]],
        steps[shown[0]],
        right[shown] * lengths,
        down[shown] * lengths,
        color=BRIGHT,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.005,
    )
    left.set_title("window of the keypoint; arrows: gradients, weighted", fontsize=9)
    left.set_xlabel("column, in sigma")
    left.set_ylabel("row, in sigma")
    degrees = np.degrees(np.arctan2(right, down)) % 360
    counts, edges = np.histogram(degrees, sift.n_bins, (0, 360), weights=weights)
    for _ in range(6):  # as SIFT smooths it
        counts = (np.roll(counts, 1) + counts + np.roll(counts, -1)) / 3
    histogram.bar(
        edges[:-1], counts, width=360 / sift.n_bins, align="edge", color=GREY, label="sum of weighted gradients"
    )
    histogram.axhline(
        sift.c_max * counts.max(),
        color="black",
        linestyle=":",
        label="a further peak above this line is an orientation, too",
    )
    histogram.axvline(
        np.degrees(features.orientations[index]) % 360, color=BRIGHT, label="orientation that gpusift finds"
    )
    histogram.set_ylim(0, counts.max() * 1.45)
    histogram.set_xlim(0, 360)
    histogram.set_xticks(range(0, 361, 60))
    histogram.set_xlabel("direction, degrees from row towards column")
    histogram.set_yticks([])
    histogram.set_title("histogram of directions", fontsize=9)
    histogram.legend(fontsize=8, loc="upper right")
    return figure


def descriptor(image: np.ndarray, features: Features, index: int, sift: SIFT) -> Figure:
    """The window of a descriptor with its histograms, and its values."""
    radius = sift.lambda_descr
    values, *_ = window(image, features, index, radius * (sift.n_hist + 1) / sift.n_hist, features.orientations[index])
    extent = radius * (sift.n_hist + 1) / sift.n_hist
    figure, (left, bars) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(1, 1.4))
    left.imshow(values, cmap="gray", extent=(-extent, extent, extent, -extent))
    cell = 2 * radius / sift.n_hist
    for edge in np.linspace(-radius, radius, sift.n_hist + 1):
        left.plot([edge, edge], [-radius, radius], color="white", linewidth=0.8)
        left.plot([-radius, radius], [edge, edge], color="white", linewidth=0.8)
    histograms = features.descriptors[index].reshape(sift.n_hist, sift.n_hist, sift.n_ori)
    angles = 2 * np.pi * np.arange(sift.n_ori) / sift.n_ori
    centres = (np.arange(sift.n_hist) - (sift.n_hist - 1) / 2) * cell
    for row, row_histograms in zip(centres, histograms, strict=True):
        for column, histogram in zip(centres, row_histograms, strict=True):
            lengths = histogram / histograms.max() * cell / 2
            for angle, length in zip(angles, lengths, strict=True):
                ends = ([column, column + length * np.sin(angle)], [row, row + length * np.cos(angle)])
                left.plot(*ends, color=BRIGHT, linewidth=1.5)
    left.set_title("window, turned by the orientation; lines: the histogram of each cell", fontsize=9)
    left.set_xlabel("across the orientation, in sigma")
    left.set_ylabel("along the orientation, in sigma")
    bars.bar(np.arange(128), features.descriptors[index], width=1, color=BRIGHT)
    for start in range(0, 129, sift.n_ori):
        bars.axvline(start - 0.5, color=GREY, linewidth=0.5 if start % (sift.n_ori * sift.n_hist) else 1.2)
    bars.set_xlim(-0.5, 127.5)
    bars.set_xlabel("value of the descriptor; thin lines part cells, thick lines rows of cells")
    bars.set_ylabel("byte")
    bars.set_title("the descriptor: 4 x 4 histograms of 8 directions", fontsize=9)
    return figure


def draw() -> dict[str, Figure]:
    """All pictures, by name."""
    image = photograph()
    sift = SIFT(device="cpu", precise_upscale=True)
    sift.detect_and_extract(image)  # sets the attributes, scalespace_sigmas among them
    features = sift.compute(image)
    rows, columns = features.positions.T
    # The largest feature of the detail whose whole window is inside the photograph.
    inside = np.minimum(np.minimum(rows, 511 - rows), np.minimum(columns, 511 - columns)) > 8 * features.sigmas
    index = int(np.argmax(np.where(inside & (features.sigmas < 12), features.sigmas, 0)))
    return {
        "scale_space": scale_space(image, sift),
        "extrema": extrema(image, features, sift),
        "keypoints": keypoints(image, features),
        "orientation": orientation(image, features, index, sift),
        "descriptor": descriptor(image, features, index, sift),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(exist_ok=True)
    for name, figure in draw().items():
        figure.savefig(folder / f"{name}.jpg", dpi=110, pil_kwargs={"quality": 85})
