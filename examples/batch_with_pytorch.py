"""
Batch of PyTorch tensors
========================

Computes the features of a batch of tensors. On a GPU the tensors are read where they are, and the features are tensors
in the same memory: nothing passes through the host. Without a GPU the same program runs on the CPU.
"""

import numpy as np
import skimage.data
import torch

from gpusift import SIFT, match
from gpusift.torch import tensors

device = "cuda" if torch.cuda.is_available() else "cpu"
photograph = skimage.data.camera()
turned = [np.ascontiguousarray(np.rot90(photograph, quarter)) for quarter in range(4)]
batch = torch.from_numpy(np.stack(turned)).to(device)  # (4, 512, 512) uint8

sift = SIFT(device=device, max_keypoints=1000)
several = sift.compute_batch(list(batch))  # one sequence of launches for all four
for quarter, features in enumerate(several):
    data = tensors(features)  # {"positions": (N, 2) float32, "descriptors": (N, 128) uint8, ...}
    kept = len(match(several[0], features, max_ratio=0.8))
    print(
        f"turned by {90 * quarter} degrees: {len(data['positions'])} features on {data['positions'].device}, "
        f"{kept} match those of the first"
    )
