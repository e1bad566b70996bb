"""The stages of SIFT, in their order: the paper on one screen.

Each stage has a module, its host half, whose `steps` are the launches of the stage for a `Workspace`, and a file of the
same name in `kernels/`. Algorithms are those of Otero & Delbracio, "Anatomy of the SIFT Method", IPOL 2014.

A new stage is a row of `STAGES`. Plans, the bench's rows and the tests take their stages from there, and
tests/stages/test_table.py names what a row still lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gpusift.stages import (
    affine_shape,
    collection,
    descriptor,
    extrema,
    intensities,
    orientation,
    refinement,
    scale_space,
    selection,
)
from gpusift.stages.workspace import Step, Workspace


class Stage(NamedTuple):
    """One stage: its name, its steps, its file in `kernels/` (or None), and the algorithm that it computes."""

    name: str
    steps: Callable[[Workspace], list[Step]]
    kernels: str | None
    algorithm: str


STAGES = (
    Stage("intensities", intensities.steps, "intensities.cu", "skimage.util.img_as_float: intensities of the pixels"),
    Stage("scale space", scale_space.steps, "scale_space.cu", "Alg. 1 and 2: enlarged image and Gaussian levels"),
    Stage("extrema", extrema.steps, "extrema.cu", "Alg. 4 and 5: extrema of the difference of Gaussians"),
    Stage("refinement", refinement.steps, "refinement.cu", "Alg. 5 to 9: positions between samples, contrast, edges"),
    Stage("keypoint limit", selection.keypoint_steps, "selection.cu", "ours: at most max_keypoints keypoints"),
    Stage("affine shape", affine_shape.steps, "affine_shape.cu", "Baumberg 2000: affine shapes, if they are wanted"),
    Stage("orientation", orientation.steps, "orientation.cu", "Alg. 11: reference orientations"),
    Stage("feature limit", selection.feature_steps, "selection.cu", "ours: at most max_keypoints features"),
    Stage("descriptor", descriptor.steps, "descriptor.cu", "Alg. 12: descriptors"),
    Stage("collection", collection.steps, "collection.cu", "ours: the features of a batch in one block of memory"),
)
