"""Matching of descriptors (Lowe 2004, section 7.1): scikit-image's function, and one for features and pairs of images.

Descriptors of bytes, and others of integers within a range of 255, are compared by their exact squared distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gpusift.devices import get_device
from gpusift.features import Features
from gpusift.matching import metrics, nearest
from gpusift.matching.inputs import as_bytes, descriptor_array, device_of, mask_array, require_alike
from gpusift.matching.matches import Matches as Matches
from gpusift.matching.matches import index_pairs
from gpusift.matching.nearest import Rules
from gpusift.provenance import require_comparable


def match_descriptors(
    descriptors1: Any,
    descriptors2: Any,
    metric: str | Callable[..., float] | None = None,
    p: float = 2,
    max_distance: float = np.inf,
    cross_check: bool = True,
    max_ratio: float = 1.0,
    *,
    device: str = "auto",
) -> Any:
    """Match each descriptor of one set with the nearest of another.

    The result is that of ``skimage.feature.match_descriptors``, to the last element. Among
    descriptors that are equally near, the one with the lowest index is taken. Memory does not grow
    with the product of the two numbers of descriptors.

    Descriptors that hold integers of one byte's range (SIFT's do) are compared on `device` under
    the Euclidean metric; all others on the host, by SciPy.

    Parameters
    ----------
    descriptors1 : (M, P) array
        Descriptors of the first image, of NumPy or, on a GPU, of CuPy or of anything with
        ``__cuda_array_interface__`` or DLPack.
    descriptors2 : (N, P) array
        Descriptors of the second image.
    metric : str or callable, optional
        A metric of `scipy.spatial.distance.cdist`. By default ``"hamming"`` for bool descriptors,
        ``"euclidean"`` for all others.
    p : float, optional
        The order of the norm for ``metric="minkowski"``.
    max_distance : float, optional
        Matches must be nearer than this.
    cross_check : bool, optional
        Whether each descriptor of a match must be the nearest to the other.
    max_ratio : float, optional
        Below 1, the distance to the nearest descriptor over that to the second nearest of the
        second set must be smaller than this; 0.8 is usual for SIFT.
    device : str, optional
        ``"auto"`` (where the descriptors are, if on a GPU; otherwise a GPU if there is one),
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Returns
    -------
    matches : (Q, 2) int64 array
        Indices into the first and the second set, in the order of the first. Empty if either set is
        empty. Of CuPy if descriptors were on a GPU, otherwise of NumPy.

    Raises
    ------
    TypeError
        If descriptors are not real numbers.
    ValueError
        If descriptors are not 2-D, hold NaN, differ in length, or are on a GPU and `device` is the
        CPU; or if there is no such device.
    RuntimeError
        If the device cannot be had.

    Examples
    --------
    >>> import numpy as np
    >>> from gpusift import match_descriptors
    >>> a = np.array([[0, 0], [9, 9], [50, 50]], dtype=np.uint8)
    >>> b = np.array([[8, 9], [1, 0]], dtype=np.uint8)
    >>> match_descriptors(a, b)
    array([[0, 1],
           [1, 0]])
    """
    descriptors = {"descriptors1": descriptors1, "descriptors2": descriptors2}
    rules = Rules(max_ratio, cross_check, max_distance)
    chosen, on_gpu = device_of(device, descriptors)
    with chosen.active():
        first, second = (descriptor_array(chosen, array, name) for name, array in descriptors.items())
        if first.shape[1] != second.shape[1]:
            raise ValueError(
                "Descriptor length must equal. Got descriptors1 of shape "
                f"{first.shape} and descriptors2 of shape {second.shape}."
            )
        if metric is None:
            metric = "hamming" if first.dtype == bool else "euclidean"
        xp = chosen.xp if on_gpu else np
        if not len(first) or not len(second):
            return xp.empty((0, 2), dtype=np.int64)
        integers = as_bytes([first, second], nearest.LARGEST_WIDTH) if metric == "euclidean" else None
        if integers is not None:
            sets = nearest.upload(chosen, integers)
            ((indices, _),) = nearest.match(sets, np.array([[0, 1]]), rules, on_host=not on_gpu)
            return indices
        indices = metrics.match(chosen.to_host(first), chosen.to_host(second), metric, p, rules)
        return xp.asarray(indices)


def match(
    features_a: Any,
    features_b: Any,
    *,
    max_ratio: float = 0.8,
    cross_check: bool = True,
    max_distance: float = np.inf,
    symmetric_ratio: bool = False,
    mask: Any = None,
    device: str = "auto",
) -> Matches:
    """Match the features of two images by their descriptors' Euclidean distances.

    Among descriptors that are equally near, the one with the lowest index is taken. Memory does not
    grow with the product of the two numbers of features (a mask does).

    Parameters
    ----------
    features_a, features_b : Features or (N, D) array
        Features with descriptors, or descriptors, of one dtype.
    max_ratio : float, optional
        Below 1, the distance to the nearest descriptor over that to the second nearest of
        `features_b` must be smaller than this (Lowe 2004). If the mask allows only one, the
        second nearest is infinitely far. 1: no such test.
    cross_check : bool, optional
        Whether each feature of a match must be the nearest to the other.
    max_distance : float, optional
        Matches must be nearer than this.
    symmetric_ratio : bool, optional
        Whether `max_ratio` must hold in both directions, as COLMAP's matcher has it: also for the descriptor of
        `features_b`, its nearest and its second nearest of `features_a`. Needs `cross_check`.
    mask : (M, N) array of bool, optional
        Which features may match: M of `features_a`, N of `features_b`.
    device : str, optional
        ``"auto"`` (where the descriptors are, if on a GPU; otherwise a GPU if there is one),
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Returns
    -------
    Matches
        Empty if a side has fewer than two features, as nearest and second nearest are compared.
        Arrays of CuPy if descriptors were on a GPU, otherwise of NumPy.

    Raises
    ------
    TypeError
        If descriptors are not real numbers or differ in dtype, or the mask does not hold booleans.
    ValueError
        If features have no descriptors, or are known to have descriptors of different layouts, normalizations or
        pooling; if these are not 2-D, not finite, differ in length, or are on a GPU and `device` is the CPU; if the
        mask's shape is not (M, N), `max_ratio` is not in (0, 1], `max_distance` is not above 0, `symmetric_ratio` is
        set without `cross_check`, or there is no such device.
    RuntimeError
        If the device cannot be had.
    """
    rules = Rules(max_ratio, cross_check, max_distance, symmetric_ratio)
    features = {"features_a": features_a, "features_b": features_b}
    return _match(features, [(0, 1)], rules, {"mask": mask}, device)[0]


def match_pairs(
    features: Sequence[Any],
    pairs: Iterable[tuple[int, int]],
    *,
    max_ratio: float = 0.8,
    cross_check: bool = True,
    max_distance: float = np.inf,
    symmetric_ratio: bool = False,
    mask: Sequence[Any] | None = None,
    device: str = "auto",
) -> list[Matches]:
    """Match many pairs of images in one call; each image's descriptors go to the device once.

    Parameters
    ----------
    features : sequence of Features or (N, D) array
        For each image its features with descriptors, or its descriptors, of one dtype.
    pairs : sequence of (int, int)
        Indices of the two images of each pair.
    max_ratio, cross_check, max_distance, symmetric_ratio
        As for `match`.
    mask : sequence of (M, N) array of bool or None, optional
        For each pair which features may match; None if all may.
    device
        As for `match`.

    Returns
    -------
    list of Matches
        For each pair what `match` gives.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `match`; and ValueError if a pair is not of two indices of images, or there is not one
        mask for each pair.
    """
    rules = Rules(max_ratio, cross_check, max_distance, symmetric_ratio)
    listed = index_pairs(pairs, len(features))
    if mask is not None and len(mask) != len(listed):
        raise ValueError(
            f"mask must be a sequence of one mask or None for each of {len(listed)} pairs, got {len(mask)}"
        )
    by_name = {f"features[{i}]": each for i, each in enumerate(features)}
    masks = {f"mask[{k}]": None if mask is None else mask[k] for k in range(len(listed))}
    return _match(by_name, listed, rules, masks, device)


def _match(
    features: dict[str, Any],
    pairs: list[tuple[int, int]],
    rules: Rules,
    masks: dict[str, Any],
    device: str,
) -> list[Matches]:
    """The matches of pairs; features and masks by the names that messages call them."""
    if not 0 < rules.max_ratio <= 1:
        raise ValueError(f"max_ratio must be above 0 and at most 1, got {rules.max_ratio}")
    if not rules.max_distance > 0:
        raise ValueError(f"max_distance must be above 0, got {rules.max_distance}")
    if rules.symmetric_ratio and not rules.cross_check:
        raise ValueError("symmetric_ratio must be used with cross_check=True, got cross_check=False; set both")
    require_comparable((name, each.provenance) for name, each in features.items() if isinstance(each, Features))
    descriptors = {}
    for name, each in features.items():
        descriptors[name] = each.descriptors if isinstance(each, Features) else each
        if descriptors[name] is None:
            raise ValueError(f"{name} must have descriptors, got none: compute them with SIFT.compute")
    chosen, on_gpu = device_of(device, descriptors)
    with chosen.active():
        arrays = [descriptor_array(chosen, array, name, finite=True) for name, array in descriptors.items()]
        require_alike(dict(zip(descriptors, arrays)))
        allowed = [
            mask_array(chosen, mask, name, (len(arrays[i]), len(arrays[j])))
            for (name, mask), (i, j) in zip(masks.items(), pairs)
        ]
        worth = [k for k, (i, j) in enumerate(pairs) if min(len(arrays[i]), len(arrays[j])) > 1]
        used = sorted({i for k in worth for i in pairs[k]})
        xp = chosen.xp if on_gpu else np
        empty = Matches(xp.empty((0, 2), np.int64), xp.empty(0, np.float32))
        matches = [empty] * len(pairs)
        if not worth or not arrays[0].shape[1]:
            return matches
        reals = [arrays[i] for i in used]
        integers = as_bytes(reals, nearest.LARGEST_WIDTH)
        if integers is None:
            single = reals[0].dtype.kind == "f" and reals[0].dtype.itemsize <= 4
            chosen = get_device(chosen.name, "float32" if single else "float64")
    with chosen.active():
        sets = nearest.upload(chosen, reals if integers is None else integers)
        numbers = np.searchsorted(used, np.array([pairs[k] for k in worth]))
        matched = nearest.match(sets, numbers, rules, masks=[allowed[k] for k in worth], on_host=not on_gpu)
    for k, (indices, distances) in zip(worth, matched):
        matches[k] = Matches(indices, distances)
    return matches
