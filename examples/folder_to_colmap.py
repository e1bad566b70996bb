"""
A folder of photographs to COLMAP
=================================

Writes a COLMAP database with the features and the verified matches of a folder of photographs, then reads it again with
pycolmap. `gpusift colmap photographs -o database.db --match exhaustive` does the same on the command line, and
`colmap mapper` goes on from the database.
"""

import shutil
import sys
from pathlib import Path

import skimage.data

from gpusift import colmap

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
else:  # the stereo pair that scikit-image ships
    folder = Path("photographs")
    folder.mkdir(exist_ok=True)
    for name in ("motorcycle_left.png", "motorcycle_right.png"):
        shutil.copy(Path(skimage.data.__file__).parent / name, folder)

summary = colmap.write_database(folder, "database.db", match="exhaustive", overwrite=True)
print(summary)

import pycolmap  # noqa: E402 - after OpenCV, see gpusift.sinks.colmap.cameras

with pycolmap.Database.open("database.db") as database:
    for image in database.read_all_images():
        print(f"{image.name}: {len(database.read_keypoints(image.image_id))} keypoints")
    print(f"{database.num_verified_image_pairs()} pairs verified")
