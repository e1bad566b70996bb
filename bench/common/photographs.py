"""The photographs of the measurements: real ones of 0.4, 2 and 9 megapixels, for the peer run also of 24.

With a data folder (``--data`` or ``GPUSIFT_DATA``) they are its photographs. Without one they are scikit-image's, so
that the bench runs anywhere. Colour is converted to grey by Pillow (ITU-R 601-2 luma), uint8: the input of OpenCV's
SIFT.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE = 300, 375  # rows and columns of a mosaic's tiles; most of the photographs are larger
TILE_NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "camera.png",
    "hubble_deep_field.jpg",
    "grass.png",
    "coins.png",
    "motorcycle_right.png",
    "gravel.png",
    "brick.png",
)


@dataclass(frozen=True)
class Case:
    """One photograph to measure; `name` labels its row in tables."""

    name: str
    source: Path | tuple[int, int]  # a file, or the rows and columns of a mosaic
    dense: bool = False  # hundreds of thousands of keypoints

    def load(self) -> NDArray[np.uint8]:
        """Return the photograph in grey, (rows, columns)."""
        return grey(self.source) if isinstance(self.source, Path) else mosaic(*self.source)

    @property
    def image(self) -> str:
        """The image's file name, for the row."""
        return self.source.name if isinstance(self.source, Path) else "mosaic of photographs"


def data_folder() -> Path | None:
    """Return the folder that GPUSIFT_DATA names; None if the variable is unset or empty."""
    name = os.environ.get("GPUSIFT_DATA")
    return Path(name) if name else None


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, whose default is `data_folder`."""
    parser.add_argument("--data", type=Path, default=data_folder(), metavar="DIR", help="default: GPUSIFT_DATA")


def standard(data: Path | None) -> list[Case]:
    """Return the standard cases, small to large.

    Parameters
    ----------
    data : Path or None
        Folder that holds ``photos/``; None for scikit-image's photographs only.

    Raises
    ------
    FileNotFoundError
        If `data` lacks one of the photographs.
    """
    small = Case("0.4 MP, motorcycle", carried("motorcycle_left.png"))
    if data is None:
        return [
            small,
            Case("2 MP, mosaic", (1080, 1920)),
            Case("9 MP, mosaic", (3000, 3000)),
        ]
    photos = data / "photos"
    cases = [
        small,
        Case("2 MP, canyon", photos / "canyon_1920x1080.jpg"),
        Case("2 MP, coast", photos / "coast_1920x1080.jpg"),
        Case("9 MP, moon", photos / "moon_3000x3000.jpg"),
        Case("9 MP, park (dense)", photos / "park_4000x2250_dense.jpg", dense=True),
    ]
    paths = [case.source for case in cases if isinstance(case.source, Path)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{photos} must hold the photographs of the bench; it lacks {', '.join(missing)}. "
            "Give another --data, or none for scikit-image's photographs."
        )
    return cases


def for_peers(data: Path | None) -> list[Case]:
    """Return the cases of the peer run, one of each size, small to large.

    Parameters and exceptions are those of `standard`; the largest is a mosaic in any case.
    """
    chosen: dict[str, Case] = {}
    for case in standard(data):
        chosen.setdefault(case.name.split(",")[0], case)
    return [*chosen.values(), Case("24 MP, mosaic", (4000, 6000))]


def carried(name: str) -> Path:
    """Return the path of a photograph of scikit-image's."""
    import skimage.data

    return Path(skimage.data.__file__).parent / name


def grey(path: Path) -> NDArray[np.uint8]:
    """Read an image file as grey, uint8, (rows, columns)."""
    with Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("L"), dtype=np.uint8))


def mosaic(rows: int, columns: int) -> NDArray[np.uint8]:
    """Return a mosaic of crops of scikit-image's photographs; each lap through them is mirrored in another way.

    A small photograph that is enlarged instead would lack fine detail, and so have far fewer keypoints than a
    photograph of that size.
    """
    height, width = TILE
    tiles = [grey(carried(name)) for name in TILE_NAMES]
    out = np.zeros((-(-rows // height) * height, -(-columns // width) * width), np.uint8)
    corners = [(row, column) for row in range(0, out.shape[0], height) for column in range(0, out.shape[1], width)]
    for number, (row, column) in enumerate(corners):
        lap, which = divmod(number, len(tiles))
        tile = tiles[which]
        top = lap * 97 % (tile.shape[0] - height + 1)  # another crop of the photograph in each lap
        left = lap * 89 % (tile.shape[1] - width + 1)
        crop = tile[top : top + height, left : left + width]
        crop = crop[:: -1 if lap % 2 else 1, :: -1 if lap // 2 % 2 else 1]
        out[row : row + height, column : column + width] = crop
    return out[:rows, :columns].copy()


def texture(rows: int, columns: int) -> NDArray[np.uint8]:
    """Return a texture with twice as many keypoints as a mosaic: noise with the power spectrum of photographs."""
    size = 1024
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = np.inf  # no mean
    tile = np.fft.ifft2(noise / frequency**1.1).real
    tile = np.clip(128 + 45 * tile / tile.std(), 0, 255).astype(np.uint8)
    laps = [np.roll(tile, 331 * lap, axis=1) for lap in range(-(-rows // size))]
    return np.tile(np.concatenate(laps)[:rows], -(-columns // size))[:, :columns].copy()
