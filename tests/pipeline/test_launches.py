"""The number of launches of a run."""

import numpy as np
import pytest

from gpusift.devices import CpuDevice
from gpusift.parameters import Parameters
from gpusift.pipeline.plan import Key, Plans

MOST = 20
SHAPE = 1080, 1920


class Counter(CpuDevice):
    """The CPU device, which counts the launches that it prepares or makes, and makes none."""

    def __init__(self):
        super().__init__()
        self.names = []

    def prepare(self, name, grid, block, *arguments, constant=0, sizes=None):
        """Counts a launch."""
        self.names.append(name)
        return lambda: None

    def memory(self, size):
        """Memory of which no page is touched."""
        return np.empty(size, np.uint8)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("options", [{}, {"max_keypoints": 1000, "keep": "grid"}, {"sigma_min": 3.3}])
def test_an_image_of_8_octaves_takes_at_most_20_launches(batch, options):
    device = Counter()
    key = Key(batch, SHAPE)
    with Plans(device, Parameters(**options), "kernel").memory(key) as memory:
        plan = memory.plan(key)
    assert len(plan.space.shapes) == 8
    assert {"intensities", "describe", "collect"} <= set(device.names)
    assert len(device.names) == len(plan.launches) <= MOST
    assert device.names.count("blur") == (2 if "sigma_min" in options else 1)
