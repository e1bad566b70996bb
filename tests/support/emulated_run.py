"""Run every kernel in emulated threads on a small image, and print the hashes of the results. See emulated.py."""

import sys
from pathlib import Path

from gpusift.parameters import Parameters
from tests.support import alignment, brute_force
from tests.support.emulated import EmulatedDevice
from tests.support.same_bytes import every_digest

device = EmulatedDevice("float32", Path(sys.argv[1]))
print(*every_digest(device, Parameters(n_octaves=2)), brute_force.digest(device), alignment.digest(device))
