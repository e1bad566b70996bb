"""
Compare with OpenCV
===================

Detects and describes one photograph with OpenCV's SIFT and with gpusift's class of the same interface. Keypoints that
lie within one pixel and one octave of each other are paired, and the descriptors of each pair compared.
"""

import time

import cv2
import numpy as np
import skimage.data
from scipy.spatial import KDTree

from gpusift.opencv import SIFT_create

photograph = skimage.data.camera()  # (512, 512) uint8

results = {}
for name, sift in (("OpenCV", cv2.SIFT_create()), ("gpusift", SIFT_create())):
    sift.detectAndCompute(photograph, None)  # the first call loads libraries and reserves memory
    start = time.perf_counter()
    keypoints, descriptors = sift.detectAndCompute(photograph, None)  # tuple of cv2.KeyPoint, (N, 128) float32
    milliseconds = 1000 * (time.perf_counter() - start)
    print(f"{name}: {len(keypoints)} keypoints in {milliseconds:.0f} ms")
    results[name] = np.array([keypoint.pt for keypoint in keypoints]), keypoints, descriptors

points, keypoints, descriptors = results["gpusift"]
their_points, their_keypoints, their_descriptors = results["OpenCV"]
distances, nearest = KDTree(their_points).query(points)
sizes = np.array([keypoint.size for keypoint in keypoints])
their_sizes = np.array([their_keypoints[i].size for i in nearest])
paired = (distances < 1) & (np.abs(np.log2(sizes / their_sizes)) < 1)

ours, theirs = descriptors[paired], their_descriptors[nearest[paired]]
cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
print(f"{paired.mean():.0%} of gpusift's keypoints have one of OpenCV's within a pixel")
print(f"the cosine of two such descriptors is {np.median(cosines):.2f} in the median")

pictures = [
    cv2.drawKeypoints(photograph, found, None, flags=cv2.DRAW_MATCHES_FLAGS_DRAW_RICH_KEYPOINTS)
    for found in (their_keypoints, keypoints)
]
cv2.imwrite("keypoints.png", cv2.hconcat(pictures))
print(
    "keypoints.png: OpenCV's keypoints on the left, gpusift's on the right; a circle's diameter is the keypoint's size"
)
