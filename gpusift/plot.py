"""Drawing keypoints on a photograph: oriented circles of their size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gpusift.features import Features

# Circles have this many sigmas as their radius. A Gaussian blob of standard deviation s is found at
# sigma = s, and sqrt(2) s is where its Laplacian, which SIFT's detector resembles, changes sign.
RADIUS = 2.0**0.5

# One colour an octave, red, green, blue: distinct from grey and from each other, also for readers
# with a colour vision deficiency. Finest octave first; after the last they start again.
OCTAVE_COLOURS = (
    (86, 204, 255),
    (255, 209, 64),
    (255, 110, 90),
    (120, 235, 130),
    (235, 120, 235),
    (255, 160, 60),
    (110, 150, 255),
    (240, 240, 240),
)

# In pixels of the picture: how wide lines are, and the radius from which circles get them, with a
# dark rim. Smaller circles are drawn one pixel wide.
LINE_WIDTH = 2
RIM_FROM = 9

# cv2 takes coordinates as integers with this many fractional bits.
_FRACTION_BITS = 6


def draw_keypoints(image: np.ndarray, features: Features, *, zoom: int = 1, dim: float = 0.85) -> np.ndarray:
    """Draw every keypoint as a circle with a line from its centre along its orientation.

    Parameters
    ----------
    image : (M, N) array
        Grey values of any dtype; integers are drawn over their dtype's range, floats over their
        own.
    features : Features
        On any device. Large keypoints are drawn first, so that small ones stay visible.
    zoom : int, optional
        Enlarge the picture this many times.
    dim : float, optional
        Factor on the photograph's brightness, below 1 to let the circles stand out.

    Returns
    -------
    picture : (zoom * M, zoom * N, 3) uint8 array
        Red, green, blue.
    """
    import cv2

    grey: np.ndarray = (_to_uint8(image) * np.float32(dim)).round().astype(np.uint8)
    if zoom > 1:
        grey = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)

    host = features.to_host()
    # cv2.resize keeps the corners of the picture, so pixel centres move: see its coordinate map.
    centres = (host.positions + 0.5) * zoom - 0.5
    radii = host.sigmas * RADIUS * zoom
    directions = np.stack([np.cos(host.orientations), np.sin(host.orientations)], axis=1)
    ends = centres + radii[:, None] * directions

    def fixed(values: np.ndarray) -> np.ndarray:
        return np.rint(values * (1 << _FRACTION_BITS)).astype(np.int64)

    strokes = list(
        zip(
            fixed(centres)[:, ::-1].tolist(),
            fixed(ends)[:, ::-1].tolist(),
            fixed(radii).tolist(),
            (host.octaves % len(OCTAVE_COLOURS)).tolist(),
            strict=True,
        )
    )
    rimmed = RIM_FROM << _FRACTION_BITS
    order = np.argsort(-host.sigmas, kind="stable").tolist()
    smooth = {"lineType": cv2.LINE_AA, "shift": _FRACTION_BITS}
    for index in order:
        centre, end, radius, octave = strokes[index]
        colour = OCTAVE_COLOURS[octave]
        if radius >= rimmed:  # a dark rim lets bright lines show on bright ground too
            cv2.circle(picture, centre, radius, (0, 0, 0), LINE_WIDTH + 2, **smooth)
            cv2.line(picture, centre, end, (0, 0, 0), LINE_WIDTH + 2, **smooth)
        width = LINE_WIDTH if radius >= rimmed else 1
        cv2.circle(picture, centre, radius, colour, width, **smooth)
        cv2.line(picture, centre, end, colour, width, **smooth)
    return picture


def _to_uint8(image: np.ndarray) -> np.ndarray:
    """Map grey values to 0..255, see `draw_keypoints`."""
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
    else:
        info = np.iinfo(image.dtype) if image.dtype != bool else None
        low, high = (max(info.min, 0), info.max) if info else (0, 1)
    scaled = (image.astype(np.float64) - low) * (255 / ((high - low) or 1))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def write_png(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Write a picture; the file appears whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists; its folder is made if it does not.
    picture : (M, N, 3) uint8 array
        Red, green, blue.
    """
    import cv2

    _, data = cv2.imencode(".png", picture[..., ::-1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
