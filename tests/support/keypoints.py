"""The oracle's keypoints as `Features`, and the orientation stage on them."""

import numpy as np

from gpusift import Features
from gpusift.devices import get_device
from gpusift.stages import levels, orientation


def features_of(device, keypoints, dtype):
    """The oracle's keypoints as `Features`; the response is their index."""
    n = len(keypoints)
    columns = {
        "positions": keypoints.positions.astype(dtype),
        "sigmas": keypoints.sigmas.astype(dtype),
        "scales": keypoints.scales.astype(np.int32),
        "octaves": keypoints.octaves.astype(np.int32),
        "orientations": np.zeros(n, dtype),
        "responses": np.arange(n).astype(dtype),
    }
    return Features(**{name: device.asarray(column) for name, column in columns.items()})


def assigned(device, run, keypoints, parameters, dtype):
    device = get_device(device, dtype)
    space = levels.from_octaves(device, [octave.astype(dtype) for octave in run.octaves])
    features = features_of(device, keypoints, dtype)
    return orientation.assign(device, space, features, parameters).to_host()
