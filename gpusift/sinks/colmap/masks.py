"""Masks of images, as COLMAP's `mask_path` has them: a PNG file for each image, 0 where no keypoint is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.sinks.base import RefusedImageError
from gpusift.sinks.colmap.cameras import import_pycolmap, quiet
from gpusift.sinks.colmap.conventions import PIXEL_CENTRE


class Masks:
    """The masks in a folder: `<image name>.png`, or the image's name with `.png` in place of its suffix.

    Parameters
    ----------
    folder : str or None
        None: there are no masks.

    Raises
    ------
    ValueError
        There is no such folder.
    """

    def __init__(self, folder: str | None) -> None:
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"mask_path must be a folder on this machine, got {folder!r}")
        self._folder = None if folder is None else Path(folder)

    def applied(self, features: Features, name: str, image_shape: tuple[int, int]) -> Features:
        """Return the features at whose pixels the image's mask is not 0.

        Raises
        ------
        RefusedImageError
            The image has no mask, or one of another size.
        """
        if self._folder is None:
            return features
        mask = self._read(self._folder, name)
        if mask.shape != image_shape:
            raise RefusedImageError(
                f"mask must be of the image's size, {image_shape[0]} rows and {image_shape[1]} columns, got "
                f"{mask.shape[0]} and {mask.shape[1]}"
            )
        rows, cols = (features.to_host().unbiased().positions + PIXEL_CENTRE).astype(int).T
        inside = (rows >= 0) & (cols >= 0) & (rows < mask.shape[0]) & (cols < mask.shape[1])
        kept = np.zeros(len(features), bool)
        kept[inside] = mask[rows[inside], cols[inside]] != 0
        return features[kept]

    def _read(self, folder: Path, name: str) -> Any:
        candidates = folder / f"{name}.png", (folder / name).with_suffix(".png")
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise RefusedImageError(f"the image must have a mask, {candidates[0]}, but there is none")
        pycolmap = import_pycolmap()
        with quiet(pycolmap):
            bitmap = pycolmap.Bitmap.read(found, False)
        if bitmap is None:
            raise RefusedImageError(f"mask must be a picture that COLMAP reads, got {found}")
        return np.asarray(bitmap.to_array()).reshape(bitmap.height, bitmap.width)
