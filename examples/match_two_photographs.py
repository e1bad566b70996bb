"""
Match two photographs
=====================

Finds the features of a stereo pair, matches them, keeps the matches that agree with one epipolar geometry, and draws
them. Any two photographs of one scene will do:

    python match_two_photographs.py left.jpg right.jpg
"""

import sys
from pathlib import Path

import skimage.data

from gpusift import SIFT, match
from gpusift.geometry import NAMES, verify
from gpusift.images import read_image
from gpusift.plot import draw_matches, write_png

shipped = Path(skimage.data.__file__).parent
paths = sys.argv[1:3] or [shipped / "motorcycle_left.png", shipped / "motorcycle_right.png"]
left, right = (read_image(path) for path in paths)  # (rows, columns), grey

sift = SIFT(normalization="root", precise_upscale=True)  # on a GPU if there is one
features_left, features_right = sift.compute_batch([left, right])  # positions (N, 2), descriptors (N, 128)

matches = match(features_left, features_right, max_ratio=0.8)  # indices (Q, 2), distances (Q,)
geometry = verify(features_left, features_right, matches)  # a homography or a fundamental matrix
print(f"{len(features_left)} and {len(features_right)} features on {sift.device.name}")
print(f"{len(matches)} matches, {geometry.inliers.sum()} of them agree with one {NAMES[geometry.model]}")

picture = draw_matches(left, right, features_left, features_right, matches, geometry.inliers)
write_png("matches.png", picture)
print("matches.png: the two photographs, with a line for each match")
