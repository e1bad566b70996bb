"""On which device an array lies."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_on_gpu(array: Any) -> bool:
    """Whether an array lies in a GPU's memory, by the protocols that it offers."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    cuda_kinds = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
    return hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] in cuda_kinds


def gpu_of(array: Any) -> int:
    """CUDA's number of the GPU that an array lies on; 0 for an array that does not tell."""
    return int(array.__dlpack_device__()[1]) if hasattr(array, "__dlpack_device__") else 0
