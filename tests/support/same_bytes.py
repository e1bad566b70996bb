"""Synthetic images from integer arithmetic, so that they are identical on every machine, and hashes of features."""

import hashlib
from dataclasses import replace

import numpy as np

from gpusift import pipeline
from gpusift.pipeline.plan import Plans
from gpusift.stages.intensities import image_of


def digest(features) -> str:
    """SHA-256 of all arrays of the features, in a fixed order, types and byte order."""
    host = features.to_host()
    whole = hashlib.sha256()
    names = ("positions", "sigmas", "scales", "octaves", "orientations", "responses", "descriptors", "affine_shapes")
    for name in names:
        if getattr(host, name) is None:
            continue
        array = np.ascontiguousarray(getattr(host, name))
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def synthetic(rows: int, cols: int, seed: int = 1) -> np.ndarray:
    """Blocks and noise of several sizes: a uint8 image that depends on nothing but the arguments."""
    state = np.uint64(seed)
    total = np.zeros((rows, cols), np.int64)
    for size, weight in ((1, 20), (3, 40), (8, 80), (21, 115)):
        grid = (-(-rows // size), -(-cols // size))
        values = np.empty(grid[0] * grid[1], np.uint64)
        for i in range(values.size):  # Knuth's linear congruential generator, the upper bits
            state = np.uint64((int(state) * 6364136223846793005 + 1442695040888963407) % 2**64)
            values[i] = state >> np.uint64(40)
        blocks = (values % np.uint64(weight + 1)).astype(np.int64).reshape(grid)
        total += np.kron(blocks, np.ones((size, size), np.int64))[:rows, :cols]
    return np.clip(total, 0, 255).astype(np.uint8)


def every_digest(device, parameters) -> list[str]:
    """The hashes of the results of all kernels but matching's on a small image, also with unusual parameters."""
    return [
        *stage_digests(device, parameters),
        *selection_digests(device, parameters),
        *pooling_digests(device, parameters),
        *shape_digests(device, parameters),
    ]


def stage_digests(device, parameters) -> list[str]:
    """Those of the kernels that every image needs."""
    # the first blur is too wide to be fused with the enlargement, and windows are larger than PATCH
    wide = replace(parameters, sigma_min=3.3, lambda_descr=20)
    halved = np.zeros((20, 16), device.dtype)
    level = np.arange(40 * 48).reshape(40, 48).astype(device.dtype)
    device.launch("decimate", (20,), (32,), level, 40, 26, 48, 0, halved, 16)
    return [*_digests(device, parameters, wide), hashlib.sha256(halved[:, :13].tobytes()).hexdigest()]


def selection_digests(device, parameters) -> list[str]:
    """Those of the kernels that choose among keypoints, and of upright ones."""
    even = replace(parameters, max_keypoints=9, keep="grid")
    largest = replace(parameters, max_keypoints=5, keep="scale", upright=True)
    return _digests(device, even, largest)


def pooling_digests(device, parameters) -> list[str]:
    """Those of descriptors that are pooled over several sizes of their window."""
    return _digests(device, replace(parameters, pooling=(0.5, 1, 1.7)))


def shape_digests(device, parameters) -> list[str]:
    """Those of keypoints with affine shapes, with plain descriptors and with pooled ones."""
    plain = replace(parameters, affine_shape=True)
    return _digests(device, plain, replace(plain, pooling=(0.5, 1)))


def _digests(device, *several) -> list[str]:
    images = [image_of(small_image()), image_of(small_image().T.copy().T)]
    found = [pipeline.compute(Plans(device, p), images, batch_size=2) for p in several]
    assert all(digest(first) == digest(second) for first, second in found)
    assert all(len(first) for first, _ in found)
    return [digest(first) for first, _ in found]


def small_image() -> np.ndarray:
    """(40, 52) uint8: small enough for emulated threads."""
    return synthetic(40, 52, seed=5)
