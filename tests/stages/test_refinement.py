"""Refinement of the oracle's candidates in the oracle's scale space."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpusift.devices import get_device
from gpusift.parameters import Parameters
from gpusift.stages import extrema, levels, refinement
from tests.support import oracle
from tests.support.oracle import Keypoints, compare


def keys_of(extrema_of_oracle):
    octaves, rows, cols, scales = extrema_of_oracle.astype(np.int64).T
    return octaves << 58 | rows << 32 | cols << 6 | scales


def refined(device, run, parameters, dtype):
    device = get_device(device, dtype)
    space = levels.from_octaves(device, [octave.astype(dtype) for octave in run.octaves])
    keys = keys_of(run.extrema)
    assert_array_equal(np.stack(extrema.unpack(keys), axis=-1), run.extrema)
    return refinement.refine(device, space, device.asarray(keys), parameters, run.image_shape).to_host()


def check(device, image, dtype, **options):
    run = oracle.run(image, **options).rounded(dtype)
    features = refined(device, run, Parameters(**options), dtype)
    assert features.descriptors is None
    assert features.positions.dtype == dtype
    ours = Keypoints.of(features)
    ours = Keypoints(ours.positions, ours.sigmas, ours.scales, ours.octaves)
    agreement = compare(ours, run.refined, options.get("upsampling", 2))
    agreement.check(dtype, run)
    if dtype == "float64":
        # The same arithmetic on the same input: nothing but rounding differs, nowhere.
        np.testing.assert_allclose(features.positions, run.refined.positions, atol=1e-9)
        np.testing.assert_allclose(features.sigmas, run.refined.sigmas, rtol=1e-9)
        assert_array_equal(features.scales, run.refined.scales)
        assert_array_equal(features.octaves, run.refined.octaves)
    return features


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["camera", "brick", "grass", "text", "hubble"])
def test_photographs(device, name, dtype):
    assert len(check(device, oracle.photograph(name), dtype)) > 100


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"upsampling": 1},
        {"upsampling": 4, "sigma_in": 0.3},
        {"n_scales": 1},
        {"n_scales": 2},
        {"n_scales": 6},
        {"c_dog": 0.001},
        {"c_edge": 3},
        {"c_edge": 100, "sigma_min": 1.2},
    ],
    ids=str,
)
def test_parameters(device, options, dtype):
    assert len(check(device, oracle.photograph("coins")[:140, :160], dtype, **options)) > 10


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(13, 200), (200, 12), (31, 17), (97, 61)])
def test_shapes(device, shape, dtype):
    """Candidates along all borders: some move out, some lie within a sigma of the edge."""
    rows, cols = shape
    image = oracle.photograph("gravel")[20 : 20 + rows, 30 : 30 + cols]
    check(device, image, dtype, c_dog=0.001)


def test_responses(device):
    """The response is D at the extremum of the quadric; its sign tells bright from dark."""
    rows, cols = np.mgrid[:61, :67]
    blob = np.exp(-((rows - 30) ** 2 + (cols - 33) ** 2) / (2 * 3.0**2))
    for image, sign in ((0.2 + 0.6 * blob, -1), (0.8 - 0.6 * blob, 1)):
        run = oracle.run(image)
        features = refined(device, run, Parameters(), "float64")
        strongest = np.argmax(np.abs(features.responses))
        assert np.sign(features.responses[strongest]) == sign
        assert (np.abs(features.responses) > run.sift.c_dog).all()
        # 0.25 px: the documented bias of the enlarged image
        np.testing.assert_allclose(features.positions[strongest], [30.25, 33.25], atol=0.02)


def test_no_candidates(device):
    device = get_device(device, "float64")
    space = levels.from_octaves(device, [np.zeros((6, 24, 24))])
    keys = device.asarray(np.empty(0, dtype=np.int64))
    features = refinement.refine(device, space, keys, Parameters(), (12, 12))
    assert len(features) == 0
    assert features.positions.shape == (0, 2)


def test_a_singular_hessian(device):
    """A candidate where the quadric has no extremum is dropped, as NaN and infinity are."""
    device = get_device(device, "float64")
    space = levels.from_octaves(device, [np.ones((6, 24, 24))])
    keys = device.asarray(keys_of(np.array([[0, 10, 10, 1], [0, 5, 7, 2]])))
    assert len(refinement.refine(device, space, keys, Parameters(), (12, 12))) == 0


def by_rule(octave, candidate, rule, thresholds):
    """VLFeat's and OpenCV's refinement of one candidate, as they write it: position in samples, scale, or None."""
    dog = np.diff(octave, axis=0)
    s, row, col = candidate
    for step in range(5):
        around = dog[s - 1 : s + 2, row - 1 : row + 2, col - 1 : col + 2]
        gradient = [(np.take(around, 2, a) - np.take(around, 0, a))[1, 1] / 2 for a in range(3)]
        at = (np.eye(3, dtype=int) + 1).tolist()
        back = (1 - np.eye(3, dtype=int)).tolist()
        hessian = np.empty((3, 3))
        for i in range(3):
            hessian[i, i] = around[tuple(at[i])] + around[tuple(back[i])] - 2 * around[1, 1, 1]
            for j in range(i):
                p, q, r, t = (np.ones(3, int) for _ in range(4))
                p[[i, j]], q[[i, j]], r[i], r[j], t[i], t[j] = 2, 0, 2, 0, 0, 2
                corners = (around[tuple(index)] for index in (p, q, r, t))
                plus, also, minus, less = corners
                hessian[i, j] = hessian[j, i] = (plus + also - minus - less) / 4
        offset = -np.linalg.solve(hessian, gradient)
        moves = (offset > rule.largest_offset).astype(int) - (offset < -rule.largest_offset)
        moves[0] *= rule.moves_in_scale
        following = np.array([s, row, col]) + moves
        inside = (following > 0) & (following < np.array(dog.shape) - 1)
        following = np.where(inside, following, [s, row, col])
        if step == 4 or (following == [s, row, col]).all():
            break
        s, row, col = following
    c_dog, edges = thresholds
    response = around[1, 1, 1] + 0.5 * np.dot(gradient, offset)
    inner = hessian[1:, 1:]
    edgeness = np.trace(inner) ** 2 / np.linalg.det(inner)
    keep = np.abs(offset).max() < rule.accepted_offset and abs(response) > c_dog and 0 <= edgeness < edges
    return np.array([row, col]) + offset[1:] if keep else None


@pytest.mark.parametrize("rule", ["vlfeat", "opencv"])
def test_other_rules(device, rule):
    run = oracle.run(oracle.photograph("camera")[200:330, 150:300])
    parameters = Parameters(extremum_rule=rule)
    features = refined(device, run, parameters, "float64")
    thresholds = parameters.final_c_dog, parameters.edge_threshold
    wanted, rows, cols = [], *run.image_shape
    for octave, row, col, scale in run.extrema.astype(int):
        delta = parameters.delta_min * 2**octave
        found = by_rule(run.octaves[octave], (scale, row, col), parameters.rule, thresholds)
        away = parameters.rule.border * delta
        if found is not None and (found * delta > away).all() and (found * delta < (rows - away, cols - away)).all():
            wanted.append(found * delta)
    assert len(wanted) > 50
    np.testing.assert_allclose(features.positions, wanted, atol=1e-9)
