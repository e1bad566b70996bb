"""Where an array lies."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_on_gpu(array: Any) -> bool:
    """Whether an array is in a GPU's memory, by the protocols that it has."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    cuda_kinds = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
    return hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] in cuda_kinds
