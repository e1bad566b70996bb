"""OpenCV's interface: `SIFT_create` and `SIFT`, which replace `cv2.SIFT_create` in a script.

Keypoints are `cv2.KeyPoint` objects, which OpenCV's drawing, matchers and `compute` take. Their attributes:

==============  ====================================================================================================
`pt`            x (column) and y (row), pixels of the image, the centre of the upper left pixel at (0, 0)
`size`          2 sigma, pixels of the image
`angle`         degrees in [0, 360), from the x axis towards the y axis (clockwise as seen)
`response`      absolute value of the difference of Gaussians, intensities in [0, 1]
`octave`        three bytes, lowest first: the octave, signed, -1 for that of the enlarged image; the layer, from 1; the
                extremum's distance from the layer, -1/2 as 0 and 1/2 as 255
`class_id`      -1
==============  ====================================================================================================

Differences from OpenCV (5.0, modules/features/src/sift.dispatch.cpp):

- Keypoints are ordered by octave, row, column and layer; those with a further orientation follow, in the same order.
- `nfeatures` counts the keypoints that the mask allows, and is never exceeded. OpenCV counts those of the whole image,
  and keeps all that are as strong as the last one.
- The descriptor of a given keypoint does not depend on the other keypoints. It is computed on the level that `octave`
  names if the image has that level and its blur is within a layer of `size`, as is true of SIFT's own keypoints. For
  other keypoints (of another detector, or made by hand, with octave 0) it is computed on the level nearest in blur.
  OpenCV takes the level that `octave` names, whatever the size.
- What OpenCV ignores is an error: `detect` of no image, an image of 2 or 5 channels, a mask of another shape.
- `save` writes what `write` does. OpenCV's writes a file that it cannot read.
- `SIFT` is not a `cv2.Feature2D`, so that OpenCV's C++ classes refuse it: "Expected Ptr<cv::Feature2D>". In place of
  those that detect features themselves:

  ==================================================  ========================
  `cv2.AffineFeature_create(sift)`                    `affine_features`
  `cv2.BOWImgDescriptorExtractor(sift, matcher)`      `bow_descriptors`
  `cv2.detail.computeImageFeatures2(sift, image)`     `image_features`
  ==================================================  ========================
"""

from __future__ import annotations

from gpusift.opencv_package import import_cv2

import_cv2()  # before the modules that need it when they are imported; says what to install

from gpusift.opencv.consumers import affine_features, bow_descriptors, image_features  # noqa: E402
from gpusift.opencv.sift import SIFT, SIFT_create  # noqa: E402

__all__ = ["SIFT", "SIFT_create", "affine_features", "bow_descriptors", "image_features"]

# Names of cv2 that are not here -> what to call.
_INSTEAD = {
    "AffineFeature": "affine_features",
    "AffineFeature_create": "affine_features",
    "BOWImgDescriptorExtractor": "bow_descriptors",
    "computeImageFeatures": "image_features",
    "computeImageFeatures2": "image_features",
}


def __getattr__(name: str) -> object:
    if name in _INSTEAD:
        raise AttributeError(
            f"gpusift.opencv has no {name}: OpenCV's C++ classes cannot call gpusift; use gpusift.opencv."
            f"{_INSTEAD[name]} instead"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
