"""The images of the accuracy study: sequences of one scene, with the homographies between them.

With a data folder these are four of the Oxford sequences (Mikolajczyk et al. 2005), a photograph with exact renderings,
and two more that are rendered here; without one, scikit-image's photographs, rendered here.

Points are (x, y): column, row; the centre of the upper left pixel is at (0, 0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.common.photographs import carried, grey

Image = NDArray[np.uint8]
Homography = NDArray[np.float64]

OXFORD = {"graf": "viewpoint", "boat": "zoom and rotation", "bikes": "blur", "leuven": "light"}
EXACT = "exact_park"
PHOTOGRAPHS = ("canyon_1920x1080.jpg", "coast_1920x1080.jpg")
CARRIED = ("motorcycle_left.png", "astronaut.png", "coffee.png")
CORNER = (-0.5, -0.5)  # of an image; resizing maps it to itself
SAMPLES = 4  # along a side of a rendered pixel
BLUR = 1.5  # standard deviation, pixels
NOISE = 8.0  # standard deviation, grey values
GAMMA = 0.6


@dataclass(frozen=True)
class Sequence:
    """Images of one scene; ``homographies[k]`` maps points of the first image to image k."""

    images: list[Image]
    homographies: list[Homography]


def standard(data: Path | None) -> dict[str, Callable[[], Sequence]]:
    """Return a function for each sequence, by name, that reads or renders it.

    Parameters
    ----------
    data : Path or None
        Folder that holds ``homography/`` and ``photos/``; None for scikit-image's photographs.

    Raises
    ------
    FileNotFoundError
        If `data` lacks one of the sequences.
    """
    if data is None:
        return {f"{word(name)}, rendered": partial(rendered, carried(name), 1.0) for name in CARRIED}
    folders = {name: data / "homography" / name for name in (*OXFORD, EXACT)}
    photographs = {name: data / "photos" / name for name in PHOTOGRAPHS}
    missing = [str(path.relative_to(data)) for path in (folders | photographs).values() if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{data} must hold the sequences of the study; it lacks {', '.join(missing)}. "
            "Give another --data, or none for scikit-image's photographs."
        )
    found = {f"{name}, {change}": partial(oxford, folders[name]) for name, change in OXFORD.items()}
    found["park, exact"] = partial(exact, folders[EXACT])
    return found | {f"{word(name)}, rendered": partial(rendered, path, 0.5) for name, path in photographs.items()}


def word(name: str) -> str:
    """Return the first word of a file's name."""
    return re.split("[_.]", name)[0]


def oxford(folder: Path) -> Sequence:
    """Read ``img1`` to ``img6`` and ``H1to2p`` to ``H1to6p``."""
    images = [grey(next(folder.glob(f"img{k}.p*"))) for k in range(1, 7)]
    return Sequence(images, [np.eye(3), *(np.loadtxt(folder / f"H1to{k}p") for k in range(2, 7))])


def exact(folder: Path) -> Sequence:
    """Read the images of ``homographies.json``, and the homographies from ``ref`` to each."""
    found = json.loads((folder / "homographies.json").read_text())["H"]
    names = ["ref", *(name for name in found if name != "ref")]
    return Sequence([grey(folder / f"{name}.png") for name in names], [np.array(found[name]) for name in names])


def rendered(path: Path, scale: float) -> Sequence:
    """Render a photograph, scaled by `scale`, unchanged and under known changes, identical in every run.

    A pixel is the mean of the photograph over its square, so that all images are equally sharp and without aliasing.
    """
    photograph = grey(path)
    rows, cols = (round(side * scale) for side in photograph.shape)
    reduction = similarity(CORNER, scale)
    middle = (cols - 1) / 2, (rows - 1) / 2
    stretch = np.diag([0.6, 1, 1])
    changes = [
        np.eye(3),
        similarity(middle, shift=(7.3, -4.6)),
        similarity(middle, degrees=33),
        similarity(middle, degrees=180),
        similarity(middle, 0.6, degrees=10),
        similarity(middle, 1.5, degrees=-60),
        translation(middle) @ stretch @ similarity((0, 0), degrees=20) @ translation(middle, -1),
        translation(middle)
        @ np.array([[1, 0.1, 0], [-0.1, 1, 0], [0.4 / cols, -0.3 / rows, 1]])
        @ translation(middle, -1),
    ]
    images = [render(photograph, change @ reduction, (rows, cols)) for change in changes]
    noise = np.random.default_rng(0).normal(0, NOISE, (rows, cols))
    images.append(np.clip(np.rint(images[0] + noise), 0, 255).astype(np.uint8))
    images.append(cv2.GaussianBlur(images[0], (0, 0), BLUR))
    images.append(np.rint(255 * (images[0] / 255.0) ** GAMMA).astype(np.uint8))
    return Sequence(images, changes + [np.eye(3)] * 3)


def render(photograph: Image, homography: Homography, shape: tuple[int, int]) -> Image:
    """Return the photograph under a homography, (rows, columns) of `shape`; mirrored beyond its edges."""
    rows, cols = shape
    finer = similarity(CORNER, SAMPLES) @ homography
    large = cv2.warpPerspective(
        photograph.astype(np.float32),
        finer,
        (cols * SAMPLES, rows * SAMPLES),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    means = large.reshape(rows, SAMPLES, cols, SAMPLES).mean(axis=(1, 3))
    return np.clip(np.rint(means), 0, 255).astype(np.uint8)


def similarity(
    centre: tuple[float, float], scale: float = 1, degrees: float = 0, shift: tuple[float, float] = (0, 0)
) -> Homography:
    """Return the homography that scales and rotates (from x towards y) about a point, then translates."""
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return translation(shift) @ translation(centre) @ rotation @ translation(centre, -1)


def translation(by: tuple[float, float], times: float = 1) -> Homography:
    """Return a translation."""
    return np.array([[1, 0, times * by[0]], [0, 1, times * by[1]], [0, 0, 1]])
