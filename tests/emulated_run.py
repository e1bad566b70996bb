"""Runs every kernel in emulated threads on a small image; prints the hash of the features. See emulated.py."""

import sys
from pathlib import Path

import brute_force
from same_bytes import every_digest

from gpusift import host
from gpusift.device import CpuDevice
from gpusift.parameters import Parameters

device = CpuDevice("float32", library=host.Library(Path(sys.argv[1])))
print(*every_digest(device, Parameters(n_octaves=2)), brute_force.digest(device))
