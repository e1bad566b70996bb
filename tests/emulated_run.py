"""Runs every kernel in emulated threads on a small image; prints the hash of the features. See emulated.py."""

import sys
from pathlib import Path

import brute_force
from same_bytes import digest, small_image

from gpusift import host, pipeline
from gpusift.device import CpuDevice
from gpusift.parameters import Parameters

device = CpuDevice("float32", library=host.Library(Path(sys.argv[1])))
features = pipeline.run(device, small_image(), Parameters(n_octaves=2))
print(len(features), digest(features), brute_force.digest(device))
