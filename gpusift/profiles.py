"""Parameters of SIFT that give what other software's SIFT gives, and its readers expect; by one word.

===============  ===================================================================================================
`scikit-image`   the defaults of `SIFT`
`colmap`         COLMAP's `SiftExtractionOptions` (colmap/feature/sift.h) on the CPU, by VLFeat; also for hloc's files.
                 Of too many keypoints the largest are kept; COLMAP counts 8192 before orientations, and goes on to the
                 end of the level that exceeds them: nearly as many as 12288 features here
`lightglue`      the same with what LightGlue's SIFT extractor does to COLMAP's features (lightglue/sift.py), with which
                 its network was trained: 4096 features, one for each position, not rooted (`gpusift.torch.lightglue`
                 roots them)
`opencv`         `cv2.SIFT_create()`; with `upsampling_grid="pixels"` that with `enable_precise_upscale`
===============  ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpusift.parameters import Parameters

ALL_OCTAVES = 32  # more than any image has

COLMAP = Parameters(
    n_octaves=4,
    c_dog=0.02 / 3,
    max_keypoints=12288,
    keep="scale",
    normalization="root",
    descriptor_layout="ubc",
    upsampling_grid="pixels",
    extremum_rule="vlfeat",
    max_orientations=2,
)
LIGHTGLUE = Parameters(**{**asdict(COLMAP), "max_keypoints": 4096, "normalization": "l2", "max_orientations": 1})
OPENCV = Parameters(n_octaves=ALL_OCTAVES, descriptor_layout="ubc", extremum_rule="opencv")

PROFILES: Mapping[str, Parameters] = {
    "scikit-image": Parameters(),
    "colmap": COLMAP,
    "lightglue": LIGHTGLUE,
    "opencv": OPENCV,
}


def arguments_of(name: str) -> dict[str, Any]:
    """Return all parameters of a profile, as keyword arguments of `gpusift.SIFT`.

    Parameters
    ----------
    name : {"scikit-image", "colmap", "lightglue", "opencv"}
        The profile.

    Raises
    ------
    ValueError
        There is no profile of this name.
    """
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(map(repr, PROFILES))}, got {name!r}")
    return asdict(PROFILES[name])
