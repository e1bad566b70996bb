"""Runs kernels in emulated threads on small inputs, and prints the hashes of the results. See emulated.py."""

import sys
from pathlib import Path
from unittest.mock import patch

from gpusift.parameters import Parameters
from gpusift.stages import selection
from tests.support import alignment, brute_force
from tests.support.emulated import EmulatedDevice
from tests.support.same_bytes import pooling_digests, selection_digests, shape_digests, stage_digests


def digests(device, parts) -> list[str]:
    """The hashes of the results of the kernels of some parts (`emulated.PARTS`)."""
    functions = {
        "stages": lambda: stage_digests(device, Parameters(n_octaves=2)),
        "selection": lambda: selection_of(device, (2,)) + selection_of(device, selection.BLOCK),
        "pooling": lambda: pooling_digests(device, Parameters(n_octaves=2)),
        "shapes": lambda: shape_digests(device, Parameters(n_octaves=2)),
        "matching": lambda: [brute_force.digest(device)],
        "alignment": lambda: [alignment.digest(device), alignment.digest(device, shaped=True)],
    }
    return [digest for part in parts for digest in functions[part]()]


def selection_of(device, block) -> list[str]:
    """The hashes of selections by blocks of a shape: small ones go through their lists in several turns."""
    with patch.object(selection, "BLOCK", block):
        return selection_digests(device, Parameters(n_octaves=2))


if __name__ == "__main__":
    print(*digests(EmulatedDevice("float32", Path(sys.argv[1])), sys.argv[2:]))
