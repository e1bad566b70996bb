"""Features as PyTorch tensors and back, without a copy, and as LightGlue's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift.devices.cuda_info import load_cupy
from gpusift.features import ARRAYS, REQUIRED, Features
from gpusift.parameters import NORMALIZATIONS

if TYPE_CHECKING:
    import torch

LAYOUT = "ubc"  # of the descriptors that LightGlue's network was trained with


def tensors(features: Features) -> dict[str, torch.Tensor]:
    """Return the arrays of features as tensors that share their memory, on the same device.

    Parameters
    ----------
    features : Features
        On any device.

    Returns
    -------
    tensors : dict
        The attributes of `Features` by name, with their dtypes; without those that are None.

    Raises
    ------
    ImportError
        PyTorch is not installed.
    """
    torch = _torch()
    return {name: torch.from_dlpack(array) for name, array in features.arrays().items()}


def features(tensors: Mapping[str, torch.Tensor]) -> Features:
    """Return features that share the memory of tensors; the reverse of `tensors`.

    Parameters
    ----------
    tensors : mapping
        A tensor for each attribute of `Features`, of its shape; only `descriptors` and `affine_shapes` may be missing.
        Other names are ignored.

    Returns
    -------
    Features
        NumPy arrays for tensors on the CPU, CuPy arrays for those on a GPU.

    Raises
    ------
    ValueError
        A tensor is missing, or their numbers of keypoints or devices differ.
    ImportError
        The tensors are on a GPU, and CuPy is not installed.
    """
    known = {name: tensors[name].detach() for name in ARRAYS if name in tensors}
    missing = [name for name in REQUIRED if name not in known]
    if missing:
        raise ValueError(f"tensors must have all of {', '.join(REQUIRED)}; {', '.join(missing)} are missing")
    lengths = {name: (len(tensor), str(tensor.device)) for name, tensor in known.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"tensors must be of one length, on one device, got {lengths}")
    if known["positions"].is_cuda:
        try:
            cupy = load_cupy()
        except ImportError:
            raise ImportError(
                "tensors on a GPU become CuPy arrays, but CuPy is not installed: pip install 'gpusift[cuda13]' (or "
                "cuda12), or pass tensors of the CPU"
            ) from None
        return Features(**{name: cupy.from_dlpack(tensor) for name, tensor in known.items()})
    arrays: dict[str, Any] = {name: np.from_dlpack(tensor) for name, tensor in known.items()}
    return Features(**arrays)


def lightglue(
    features: Features, image_shape: Sequence[int], *, normalization: str | None = None
) -> dict[str, torch.Tensor]:
    """Return LightGlue's input for one image: ``LightGlue(features="sift")({"image0": ..., "image1": ...})``.

    Its network was trained with COLMAP's SIFT on the GPU (github.com/cvg/LightGlue/issues/110 and 130), so compute the
    features with ``SIFT.lightglue()``: the network does not know other orders of a descriptor's values, nor
    scikit-image's angles. The positions are without the bias of upsampling. For N features, with a batch dimension:

    ===================  ===================  ====================================================================
    `keypoints`          (1, N, 2) float32    x (column) and y (row), the centre of the upper left pixel at (0, 0)
    `scales`             (1, N) float32       sigma, input pixels, as COLMAP has it (OpenCV's size is twice that)
    `oris`               (1, N) float32       radians in [0, 2 pi), from the x axis towards the y axis
    `descriptors`        (1, N, 128) float32  RootSIFT of length 1
    `keypoint_scores`    (1, N) float32       absolute difference of Gaussians, times sigma (lightglue/sift.py)
    `image_size`         (1, 2) float32       width and height
    ===================  ===================  ====================================================================

    Parameters
    ----------
    features : Features
        Features with descriptors, on any device; the tensors are on the same device.
    image_shape : (2,) sequence of int
        Rows and columns of the image.
    normalization : {"l2", "root"}, optional
        Normalization of the SIFT that computed the features; by default the one that they are known to have, or "l2".

    Returns
    -------
    data : dict
        The tensors.

    Raises
    ------
    ValueError
        The features have no descriptors, or are known to have others than of layout "ubc", or of another normalization.
    ImportError
        PyTorch is not installed.
    """
    torch = _torch()
    if features.descriptors is None:
        raise ValueError("features must have descriptors, got None; compute them with SIFT.compute")
    layout = None if features.provenance is None else features.provenance.descriptor_layout
    if layout not in (None, LAYOUT):
        raise ValueError(
            f"features must have descriptors of the layout {LAYOUT!r} for LightGlue's network, got {layout!r}; compute "
            "them with SIFT.lightglue"
        )
    if normalization not in (None, *NORMALIZATIONS):
        raise ValueError(f"normalization must be one of {', '.join(map(repr, NORMALIZATIONS))}, got {normalization!r}")
    features = features.unbiased()
    arrays = tensors(features)
    descriptors = arrays["descriptors"].float()
    if features.normalization(normalization) == "l2":
        descriptors = descriptors.sqrt()
    data = {
        "keypoints": arrays["positions"].flip(1),
        "scales": arrays["sigmas"],
        "oris": torch.from_dlpack(features.angles).deg2rad(),
        "descriptors": torch.nn.functional.normalize(descriptors, dim=1),
        "keypoint_scores": arrays["responses"].abs() * arrays["sigmas"],
        "image_size": torch.tensor([image_shape[1], image_shape[0]], device=descriptors.device),
    }
    return {name: tensor.float()[None] for name, tensor in data.items()}


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError(
            "PyTorch must be installed, but it is not: pip install torch (for the CPU alone, with "
            "--index-url https://download.pytorch.org/whl/cpu)"
        ) from None
    return torch
