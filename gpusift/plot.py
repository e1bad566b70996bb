"""Drawing: keypoints on a photograph as oriented circles or ellipses, and matches between two photographs as lines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.matching.matches import matched_points
from gpusift.opencv_package import import_cv2
from gpusift.storage.atomic import write_whole

# A circle's radius in sigmas. A Gaussian blob of standard deviation s is detected at sigma = s, and its Laplacian,
# which SIFT's detector resembles, changes sign at a radius of sqrt(2) s.
RADIUS = 2.0**0.5

# Colours of the octaves, the finest first, in red, green and blue; they repeat. They differ from grey and from each
# other, also for readers with a colour vision deficiency.
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

# Lengths in pixels of the picture. Circles of at least this radius have lines of LINE_WIDTH with a dark rim; smaller
# ones have lines of one pixel.
LINE_WIDTH = 2
RIM_FROM = 9

# Pictures of matches.
GAP = 12
MIN_WIDTH = 64
BACKGROUND = 24
MAX_ENLARGEMENT = 4
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
FAINTNESS = 0.35
LINE_OPACITY = 0.6
MAX_DOT = (
    3  # radius of a dot, pixels of the picture; smaller where dots of this size would cover more than DOT_FRACTION
)
DOT_FRACTION = 0.1
CAPTION_HEIGHT = 44

# cv2 takes coordinates as integers with this many fractional bits.
_FRACTION_BITS = 6
ONE = 1 << _FRACTION_BITS


def draw_keypoints(image: np.ndarray, features: Features, *, zoom: int = 1, dim: float = 0.85) -> np.ndarray:
    """Draw each keypoint as a circle, or its affine shape as an ellipse, with a line along its orientation.

    Parameters
    ----------
    image : (M, N) array
        Grey values of any dtype. Black to white is the range of an integer dtype, or that of the values of floats.
    features : Features
        On any device. Large keypoints are drawn first, so that small ones stay visible.
    zoom : int, optional
        Enlargement of the picture.
    dim : float, optional
        Factor of the photograph's brightness, below 1 to make the circles stand out.

    Returns
    -------
    picture : (zoom * M, zoom * N, 3) uint8 array
        Red, green, blue.
    """
    cv2 = import_cv2()
    grey = _dimmed(image, dim)
    if zoom > 1:
        grey = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    host = features.to_host()
    # cv2.resize keeps the corners of the image, so that pixel centres move: see its coordinate map.
    centres = (host.positions + 0.5) * zoom - 0.5
    radii = host.sigmas * RADIUS * zoom
    directions = np.stack([np.cos(host.orientations), np.sin(host.orientations)], axis=1)
    if host.affine_shapes is not None:
        directions = np.einsum("nij,nj->ni", host.affine_shapes, directions)
    ends = _fixed(centres + radii[:, None] * directions)[:, ::-1].tolist()
    middles, axes, angles = _fixed(centres)[:, ::-1].tolist(), *_ellipses(host, radii)
    for index in np.argsort(-host.sigmas, kind="stable").tolist():
        colour = OCTAVE_COLOURS[int(host.octaves[index]) % len(OCTAVE_COLOURS)]
        _draw_oriented_ellipse(picture, middles[index], axes[index], angles[index], ends[index], colour)
    return picture


def _ellipses(features: Features, radii: np.ndarray) -> tuple[list[list[int]], list[float]]:
    """Return the semi-axes of keypoints, and the angle of the first from the columns to the rows, as cv2 takes them."""
    if features.affine_shapes is None:
        return _fixed(np.stack([radii, radii], axis=1)).tolist(), [0.0] * len(radii)
    lengths, vectors = np.linalg.eigh(features.affine_shapes)
    angles = np.rad2deg(np.arctan2(vectors[:, 0, 0], vectors[:, 1, 0]))
    return _fixed(radii[:, None] * lengths).tolist(), angles.tolist()


def _fixed(values: np.ndarray) -> np.ndarray:
    """Round coordinates to cv2's fixed-point numbers."""
    return np.rint(values * ONE).astype(np.int64)


def _draw_oriented_ellipse(
    picture: np.ndarray, centre: Any, axes: list[int], angle: float, end: Any, colour: tuple[int, int, int]
) -> None:
    """Draw an ellipse and a line from its centre to an end; all lengths are fixed-point numbers."""
    cv2 = import_cv2()
    smooth = {"lineType": cv2.LINE_AA, "shift": _FRACTION_BITS}
    has_rim = min(axes) >= RIM_FROM * ONE
    strokes = [(colour, LINE_WIDTH if has_rim else 1)]
    if has_rim:  # a dark rim makes bright lines visible on bright ground
        strokes.insert(0, (BLACK, LINE_WIDTH + 2))
    for ink, width in strokes:
        if axes[0] == axes[1]:
            cv2.circle(picture, centre, axes[0], ink, width, **smooth)
        else:
            cv2.ellipse(picture, centre, axes, angle, 0, 360, ink, width, **smooth)
        cv2.line(picture, centre, end, ink, width, **smooth)


def draw_matches(
    image_a: np.ndarray,
    image_b: np.ndarray,
    features_a: Features,
    features_b: Features,
    matches: Any,
    inliers: np.ndarray | None = None,
    *,
    max_lines: int = 100,
    width: int = 2000,
    dim: float = 0.7,
) -> np.ndarray:
    """Draw two photographs side by side, lines between matches, and a caption with their numbers below.

    Every keypoint is a faint dot, every inlier a coloured one. The colour of an inlier and of its line shows the
    distance between its positions in the two photographs; in a stereo pair that is the disparity. Lines of outliers are
    faint and white.

    Parameters
    ----------
    image_a, image_b : (M, N) arrays
        Grey values of any dtype, as for `draw_keypoints`; the two shapes may differ.
    features_a, features_b : Features
        On any device.
    matches : Matches or (Q, 2) array of int
        Indices into the features of the first and of the second photograph.
    inliers : (Q,) array of bool, optional
        Which of the matches are inliers, see `gpusift.geometry.verify`. By default all.
    max_lines : int, optional
        Most lines of inliers, and of outliers. They are chosen evenly over the first photograph, and the caption says
        so. Dots are drawn for all.
    width : int, optional
        Width of the picture, pixels. Both photographs are scaled to it by one factor of at most `MAX_ENLARGEMENT`.
    dim : float, optional
        Factor of the photographs' brightness.

    Returns
    -------
    picture : (K, L, 3) uint8 array
        Red, green, blue; L is `width`, or less for small photographs.

    Raises
    ------
    ValueError
        An image is not 2-D, the matches are not pairs of indices into the features, the inliers are not one bool for
        each match, or the width is less than 64.
    """
    points_a, points_b = matched_points(features_a, features_b, matches)
    good = np.ones(len(points_a), dtype=bool) if inliers is None else np.asarray(inliers)
    if good.shape != (len(points_a),) or good.dtype != bool:
        raise ValueError(f"inliers must be {len(points_a)} bools, one a match, got {good.dtype} of shape {good.shape}")
    if width < MIN_WIDTH:
        raise ValueError(f"width must be at least {MIN_WIDTH} pixels, got {width}")

    pair = _Pair.beside(image_a, image_b, width, dim)
    ends = np.stack([pair.fixed(points_a, 0), pair.fixed(points_b, 1)], axis=1)
    outliers = np.flatnonzero(~good)
    few_outliers = outliers[_evenly(points_a[outliers], max_lines)]
    dots = [pair.fixed(each.to_host().positions[:, ::-1], side) for side, each in enumerate((features_a, features_b))]
    _draw_faint(pair.picture, np.concatenate(dots), ends[few_outliers])

    distances = np.linalg.norm(points_b - points_a, axis=1)
    verified = np.flatnonzero(good)
    verified = verified[np.argsort(distances[verified], kind="stable")]  # near things of a stereo pair are drawn last
    span = np.percentile(distances[verified], (2, 98)) if len(verified) else np.zeros(2)
    colours = _colours((distances - span[0]) / max(span[1] - span[0], 1e-6))
    few = verified[np.sort(_evenly(points_a[verified], max_lines))]
    _draw_lines(pair.picture, ends[few], colours[few])
    _draw_dots(pair.picture, ends[verified], colours[verified])

    text = f"{len(features_a)} and {len(features_b)} keypoints, {len(points_a)} matches"
    if inliers is not None:
        text += f", {len(verified)} verified"
    if len(few) < len(verified):
        text += f"; {len(few)} lines, evenly chosen"
    caption = _caption(pair.picture.shape[1], text, span if len(verified) else None)
    return np.concatenate([pair.picture, caption])


@dataclass(frozen=True)
class _Pair:
    """Two photographs in one picture."""

    picture: np.ndarray
    scale: float
    start: int  # column at which the second one begins

    @classmethod
    def beside(cls, image_a: np.ndarray, image_b: np.ndarray, width: int, dim: float) -> _Pair:
        """Put two photographs side by side."""
        scale = min((width - GAP) / (image_a.shape[1] + image_b.shape[1]), MAX_ENLARGEMENT)
        left, right = (_scaled(_dimmed(image, dim), scale) for image in (image_a, image_b))
        start = left.shape[1] + GAP
        picture = np.full((max(len(left), len(right)), start + right.shape[1], 3), BACKGROUND, np.uint8)
        picture[: len(left), : left.shape[1]] = left[..., None]
        picture[: len(right), start:] = right[..., None]
        return cls(picture, scale, start)

    def fixed(self, points: np.ndarray, side: int) -> np.ndarray:
        """Return (N, 2) points x, y of the first (0) or second (1) photograph as fixed-point ones of the picture."""
        # cv2.resize keeps the corners of the image, so that pixel centres move.
        return _fixed((points + 0.5) * self.scale - 0.5 + (side * self.start, 0))


def _draw_faint(picture: np.ndarray, dots: np.ndarray, lines: np.ndarray) -> None:
    """Draw faint white dots, (N, 2), and lines, (M, 2, 2), of fixed-point numbers."""
    cv2 = import_cv2()
    smooth = {"lineType": cv2.LINE_AA, "shift": _FRACTION_BITS}
    faint = picture.copy()
    for centre in dots.tolist():
        cv2.circle(faint, centre, ONE, WHITE, -1, **smooth)
    for begin, end in lines.tolist():
        cv2.line(faint, begin, end, WHITE, 1, **smooth)
    cv2.addWeighted(faint, FAINTNESS, picture, 1 - FAINTNESS, 0, dst=picture)


def _draw_lines(picture: np.ndarray, lines: np.ndarray, colours: np.ndarray) -> None:
    """Draw translucent lines, (N, 2, 2) fixed-point numbers."""
    cv2 = import_cv2()
    opaque = picture.copy()
    for (begin, end), colour in zip(lines.tolist(), colours.tolist(), strict=True):
        cv2.line(opaque, begin, end, colour, 1, lineType=cv2.LINE_AA, shift=_FRACTION_BITS)
    cv2.addWeighted(opaque, LINE_OPACITY, picture, 1 - LINE_OPACITY, 0, dst=picture)


def _draw_dots(picture: np.ndarray, ends: np.ndarray, colours: np.ndarray) -> None:
    """Draw a dot with a dark rim at both ends of each line, (N, 2, 2) fixed-point numbers."""
    cv2 = import_cv2()
    smooth = {"lineType": cv2.LINE_AA, "shift": _FRACTION_BITS}
    area = picture.shape[0] * picture.shape[1] / max(2 * len(ends), 1)  # for each dot
    radius = round(min(max((DOT_FRACTION * area / np.pi) ** 0.5, 1), MAX_DOT) * ONE)
    for pair, colour in zip(ends.tolist(), colours.tolist(), strict=True):
        for centre in pair:
            cv2.circle(picture, centre, radius + ONE, BLACK, -1, **smooth)
            cv2.circle(picture, centre, radius, colour, -1, **smooth)


def _dimmed(image: np.ndarray, dim: float) -> np.ndarray:
    """Return grey values of 0..255, times a factor."""
    return (_to_uint8(image) * np.float32(dim)).round().astype(np.uint8)


def _scaled(grey: np.ndarray, scale: float) -> np.ndarray:
    cv2 = import_cv2()
    rows, cols = (max(round(side * scale), 1) for side in grey.shape)
    return cv2.resize(grey, (cols, rows), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _evenly(points: np.ndarray, most: int) -> np.ndarray:
    """Choose at most this many of (N, 2) points: each the farthest from those chosen before. Return their indices."""
    if len(points) <= most:
        return np.arange(len(points))
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distances = np.full(len(points), np.inf)
    while len(chosen) < most:
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distances.argmax()))
    return np.array(chosen[:most], dtype=np.int64)


def _colours(values: np.ndarray) -> np.ndarray:
    """Return (N, 3) uint8 colours: blue for 0, over green, to red for 1."""
    cv2 = import_cv2()
    index = np.rint(np.clip(0.12 + 0.76 * values, 0, 1) * 255).astype(np.uint8)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO).reshape(-1, 3)[:, ::-1]
    return table[index]


def _caption(width: int, text: str, span: np.ndarray | None) -> np.ndarray:
    """Return a strip of a width with a text and, for a span of distances, the key to the colours."""
    cv2 = import_cv2()
    strip = np.full((CAPTION_HEIGHT, width, 3), BACKGROUND, np.uint8)
    font, size = cv2.FONT_HERSHEY_DUPLEX, 0.62

    def width_of(text: str) -> int:
        return int(cv2.getTextSize(text, font, size, 1)[0][0])

    def write(text: str, x: int) -> None:
        cv2.putText(strip, text, (x, 28), font, size, (235, 235, 235), 1, cv2.LINE_AA)

    size *= min(max(width - 28, 1) / width_of(text), 1)
    key = 120
    write(text, 14)
    if span is not None and width > width_of(text) + 3 * key:
        low, high = f"{span[0]:.0f}", f"{span[1]:.0f} px apart"
        x = width - 14 - width_of(high)
        write(high, x)
        strip[16:30, x - 10 - key : x - 10] = _colours(np.linspace(0, 1, key))
        write(low, x - 20 - key - width_of(low))
    return strip


def _to_uint8(image: np.ndarray) -> np.ndarray:
    """Map grey values to 0..255 as `draw_keypoints` describes."""
    if image.ndim != 2:
        raise ValueError(f"image must be (M, N) grey values, got shape {image.shape}; see gpusift.images.read_image")
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
    """Write a picture as a PNG file, which appears complete or not at all.

    Parameters
    ----------
    path : str or path-like
        The file, which is replaced if it exists. Its folder is made if it is missing.
    picture : (M, N, 3) uint8 array
        Red, green, blue.
    """
    cv2 = import_cv2()

    _, data = cv2.imencode(".png", picture[..., ::-1])
    write_whole(path, data.tobytes())
