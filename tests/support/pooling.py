"""Pooled descriptors in NumPy, window by window, from given levels: the oracle of `SIFT(pooling=...)`."""

import math

import numpy as np

from gpusift.parameters import DESCRIPTOR_NORM, SATURATION, Parameters


def describe(octaves, keypoints, parameters: Parameters) -> np.ndarray:
    """The pooled descriptors, or without `pooling` the plain ones, in scikit-image's layout.

    Parameters
    ----------
    octaves : list of (n_levels, rows, cols) arrays
        The levels.
    keypoints : oracle.Keypoints
        With orientations.
    """
    slopes = [[np.gradient(level) for level in levels] for levels in octaves]
    descriptors = []
    for i in range(len(keypoints)):
        total = np.zeros(parameters.n_values)
        for octave, scale, *place in windows(keypoints, i, len(octaves), parameters):
            window = histograms(slopes[octave][scale], *place, parameters)
            total += window / (window.sum() or 1)
        descriptors.append(quantized(total, parameters))
    return np.array(descriptors, np.uint8).reshape(-1, parameters.n_values)


def n_samples(octaves, keypoints, parameters: Parameters) -> int:
    """The samples in the windows of all keypoints."""
    return sum(
        len(window_samples(*place, octaves[octave][scale].shape, parameters)[0])
        for i in range(len(keypoints))
        for octave, scale, *place in windows(keypoints, i, len(octaves), parameters)
    )


def windows(keypoints, i, n_octaves, parameters: Parameters):
    """Yield octave and scale index of each window of keypoint `i`, and its row, column, sigma and orientation there."""
    for factor in parameters.pooling or (1.0,):
        octave, scale = keypoints.octaves[i], keypoints.scales[i]
        if parameters.pooling is not None:
            octave, scale = level_of(factor, octave, scale, n_octaves, parameters)
        delta = parameters.delta_min * 2**octave
        sigma = factor * keypoints.sigmas[i] / delta
        yield octave, scale, *(keypoints.positions[i] / delta), sigma, keypoints.orientations[i]


def level_of(factor, octave, scale, n_octaves, parameters: Parameters) -> tuple[int, int]:
    """Octave and scale index of a window's level: the octave by the window's samples, then the level by its blur."""
    n_scales = parameters.n_scales
    blur = octave + scale / n_scales + math.floor(n_scales * math.log2(factor) + 0.5 + 1e-9) / n_scales
    distances = np.abs(np.arange(n_octaves) - blur)  # between logarithms to base 2, as `blur` is one
    nearest = int(np.flatnonzero(distances <= distances.min() + 1e-6)[-1])  # of two the coarser one
    blurs = nearest + np.arange(parameters.n_levels) / n_scales
    return nearest, int(np.argmin(np.abs(blurs - blur)))


def window_samples(row, col, sigma, orientation, shape, parameters: Parameters):
    """Rows and columns of the samples of a window, and their turned offsets from its centre (Alg. 12, lines 1 to 6)."""
    half = parameters.lambda_descr * (1 + 1 / parameters.n_hist) * sigma
    reach = math.sqrt(2) * half
    first = [max(0, int(centre - reach + 0.5)) for centre in (row, col)]
    last = [min(max(int(centre + reach + 0.5), 0), side - 1) for centre, side in zip((row, col), shape)]
    rows, cols = np.meshgrid(*(np.arange(*ends) for ends in zip(first, last)), indexing="ij")
    cosine, sine = math.cos(orientation), math.sin(orientation)
    turned_rows = cosine * (rows - row) + sine * (cols - col)
    turned_cols = cosine * (cols - col) - sine * (rows - row)
    inside = np.maximum(np.abs(turned_rows), np.abs(turned_cols)) < half
    return rows[inside], cols[inside], turned_rows[inside], turned_cols[inside]


def histograms(slope, row, col, sigma, orientation, parameters: Parameters) -> np.ndarray:
    """(n_values,) the histograms of a window of size sigma, samples (Alg. 12, lines 6 to 13)."""
    rows, cols, *turned = window_samples(row, col, sigma, orientation, slope[0].shape, parameters)
    return histograms_of(slope[0][rows, cols], slope[1][rows, cols], *turned, sigma, orientation, parameters)


def histograms_of(by_row, by_col, turned_rows, turned_cols, sigma, orientation, parameters: Parameters) -> np.ndarray:
    """(n_values,) the histograms of samples with these gradients, at these turned offsets from the window's centre."""
    n_hist, n_ori = parameters.n_hist, parameters.n_ori
    spread = parameters.lambda_descr * sigma
    found = np.zeros((n_hist + 2, n_hist + 2, n_ori))  # with a rim
    weights = np.hypot(by_row, by_col) * np.exp(-(turned_rows**2 + turned_cols**2) / (2 * spread**2))
    places = [turned * n_hist / (2 * spread) + (n_hist + 1) / 2 for turned in (turned_rows, turned_cols)]
    direction = np.mod(np.arctan2(by_col, by_row) - orientation, 2 * np.pi) * n_ori / (2 * np.pi)
    cells = [np.floor(place).astype(int) for place in (*places, direction)]
    parts = [place - cell for place, cell in zip((*places, direction), cells)]
    for corner in np.ndindex(2, 2, 2):
        shares = [part if far else 1 - part for part, far in zip(parts, corner)]
        bins = [cell + far for cell, far in zip(cells, corner)]
        np.add.at(found, (bins[0], bins[1], bins[2] % n_ori), weights * shares[0] * shares[1] * shares[2])
    return found[1:-1, 1:-1].ravel()


def quantized(values, parameters: Parameters) -> np.ndarray:
    """The values as bytes (Alg. 12, lines 15 to 17; RootSIFT)."""
    values = np.minimum(values, SATURATION * np.linalg.norm(values))
    if parameters.normalization == "root":
        scaled = DESCRIPTOR_NORM * np.sqrt(values / (values.sum() or 1)) + 0.5
    else:
        scaled = DESCRIPTOR_NORM * values / (np.linalg.norm(values) or 1)
    return np.minimum(scaled, 255).astype(np.uint8)
