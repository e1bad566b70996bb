"""Drawing keypoints on a photograph: oriented circles of their size."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from gpusift.features import Features
from gpusift.matching.matches import matched_points
from gpusift.opencv_package import import_cv2
from gpusift.storage.atomic import write_whole

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

# Of pictures of matches.
GAP = 12
MIN_WIDTH = 64
BACKGROUND = 24
MAX_ENLARGEMENT = 4
WHITE = (255, 255, 255)
FAINTNESS = 0.35
LINE_OPACITY = 0.6
MAX_DOT = 3  # radius, pixels of the picture; less where points of this size would cover more than this share of it
DOT_SHARE = 0.1
CAPTION_HEIGHT = 44

# cv2 takes coordinates as integers with this many fractional bits.
_FRACTION_BITS = 6
ONE = 1 << _FRACTION_BITS


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
    cv2 = import_cv2()

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
        return np.rint(values * ONE).astype(np.int64)

    strokes = list(
        zip(
            fixed(centres)[:, ::-1].tolist(),
            fixed(ends)[:, ::-1].tolist(),
            fixed(radii).tolist(),
            (host.octaves % len(OCTAVE_COLOURS)).tolist(),
            strict=True,
        )
    )
    rimmed = RIM_FROM * ONE
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
    """Draw two photographs side by side, lines between what matches, and the counts below.

    Every keypoint is a faint point, every inlier a coloured one. Its colour, and that of its line, tells how far the
    two positions are apart, each in its own photograph: for a stereo pair that is depth. Lines that are no inliers are
    faint and white.

    Parameters
    ----------
    image_a, image_b : (M, N) arrays
        Grey values of any dtype, as for `draw_keypoints`; the two may differ in shape.
    features_a, features_b : Features
        On any device.
    matches : Matches or (Q, 2) array of int
        Indices into the one and the other.
    inliers : (Q,) array of bool, optional
        Which of the matches are right, see `gpusift.geometry.verify`. By default all.
    max_lines : int, optional
        At most so many lines, chosen evenly over the first photograph, so that one can follow them; the caption says
        so. Points are drawn for all.
    width : int, optional
        Of the picture, in pixels. Both photographs are scaled by one factor to fit, at most `MAX_ENLARGEMENT`.
    dim : float, optional
        Factor on the photographs' brightness.

    Returns
    -------
    picture : (K, L, 3) uint8 array
        Red, green, blue; L is `width`, or less where photographs are small.

    Raises
    ------
    ValueError
        If an image is not 2-D, the matches are no pairs of indices into the features, the inliers not one bool for
        each, or the width is under 64.
    """
    cv2 = import_cv2()

    points_a, points_b = matched_points(features_a, features_b, matches)
    good = np.ones(len(points_a), dtype=bool) if inliers is None else np.asarray(inliers)
    if good.shape != (len(points_a),) or good.dtype != bool:
        raise ValueError(f"inliers must be {len(points_a)} bools, one a match, got {good.dtype} of shape {good.shape}")
    if width < MIN_WIDTH:
        raise ValueError(f"width must be at least {MIN_WIDTH} pixels, got {width}")

    scale = min((width - GAP) / (image_a.shape[1] + image_b.shape[1]), MAX_ENLARGEMENT)
    left, right = (_scaled_grey(image, scale, dim) for image in (image_a, image_b))
    start = left.shape[1] + GAP  # of the right photograph
    picture = np.full((max(len(left), len(right)), start + right.shape[1], 3), BACKGROUND, np.uint8)
    picture[: len(left), : left.shape[1]] = left[..., None]
    picture[: len(right), start:] = right[..., None]

    def shown(points: np.ndarray, offset: int) -> np.ndarray:
        """To fixed-point x, y in the picture; cv2.resize keeps the corners, so pixel centres move."""
        return np.rint(((points + 0.5) * scale - 0.5 + (offset, 0)) * ONE).astype(np.int64)

    smooth = {"lineType": cv2.LINE_AA, "shift": _FRACTION_BITS}
    faint = picture.copy()
    for features, offset in ((features_a, 0), (features_b, start)):
        for centre in shown(features.to_host().positions[:, ::-1], offset).tolist():
            cv2.circle(faint, centre, ONE, WHITE, -1, **smooth)
    ends = np.stack([shown(points_a, 0), shown(points_b, start)], axis=1).tolist()
    wrong = np.flatnonzero(~good)
    for index in wrong[_evenly(points_a[wrong], max_lines)]:
        cv2.line(faint, ends[index][0], ends[index][1], WHITE, 1, **smooth)
    cv2.addWeighted(faint, FAINTNESS, picture, 1 - FAINTNESS, 0, dst=picture)

    apart = np.linalg.norm(points_b - points_a, axis=1)
    verified = np.flatnonzero(good)
    verified = verified[np.argsort(apart[verified], kind="stable")]  # what is near in a stereo pair comes on top
    span = np.percentile(apart[verified], (2, 98)) if len(verified) else np.zeros(2)
    colours = _colours((apart - span[0]) / max(span[1] - span[0], 1e-6)).tolist()
    drawn = verified[np.sort(_evenly(points_a[verified], max_lines))]
    lines = picture.copy()
    for index in drawn:
        cv2.line(lines, ends[index][0], ends[index][1], colours[index], 1, **smooth)
    cv2.addWeighted(lines, LINE_OPACITY, picture, 1 - LINE_OPACITY, 0, dst=picture)
    room = picture.shape[0] * picture.shape[1] / max(2 * len(verified), 1)  # of each point
    radius = round(min(max((DOT_SHARE * room / np.pi) ** 0.5, 1), MAX_DOT) * ONE)
    for index in verified:
        for end in ends[index]:
            cv2.circle(picture, end, radius + ONE, (0, 0, 0), -1, **smooth)
            cv2.circle(picture, end, radius, colours[index], -1, **smooth)

    text = f"{len(features_a)} and {len(features_b)} keypoints, {len(points_a)} matches"
    if inliers is not None:
        text += f", {len(verified)} verified"
    if len(drawn) < len(verified):
        text += f"; {len(drawn)} lines, evenly chosen"
    return np.concatenate([picture, _caption(picture.shape[1], text, span if len(verified) else None)])


def _scaled_grey(image: np.ndarray, scale: float, dim: float) -> np.ndarray:
    """Grey values of 0..255, dimmed and scaled."""
    cv2 = import_cv2()

    grey: np.ndarray = (_to_uint8(image) * np.float32(dim)).round().astype(np.uint8)
    rows, cols = (max(round(side * scale), 1) for side in grey.shape)
    return cv2.resize(grey, (cols, rows), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _evenly(points: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most so many of (N, 2) points: each the farthest from those before it."""
    if len(points) <= most:
        return np.arange(len(points))
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distances = np.full(len(points), np.inf)
    while len(chosen) < most:
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distances.argmax()))
    return np.array(chosen[:most], dtype=np.int64)


def _colours(values: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: from blue at 0 over green to red at 1."""
    cv2 = import_cv2()

    index = np.rint(np.clip(0.12 + 0.76 * values, 0, 1) * 255).astype(np.uint8)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO).reshape(-1, 3)[:, ::-1]
    return table[index]


def _caption(width: int, text: str, span: np.ndarray | None) -> np.ndarray:
    """A strip of this width with the text and, for a span of distances, the key to the colours."""
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
    """Map grey values to 0..255, see `draw_keypoints`."""
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
    """Write a picture; the file appears whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists; its folder is made if it does not.
    picture : (M, N, 3) uint8 array
        Red, green, blue.
    """
    cv2 = import_cv2()

    _, data = cv2.imencode(".png", picture[..., ::-1])
    write_whole(path, data.tobytes())
