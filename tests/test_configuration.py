"""A SIFT object as an object: parameters that are set later, copies, pickles, and what it looks like."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest
from skimage.feature import SIFT as Oracle

from gpusift import SIFT
from gpusift.opencv import SIFT_create
from gpusift.parameters import Parameters
from tests.support.arrays import COLUMNS, extracted
from tests.support.checkout import PYTHONPATH
from tests.support.same_bytes import digest, synthetic

IMAGE = synthetic(90, 120, seed=4)
CHANGES = {
    "upsampling": 1,
    "n_octaves": 2,
    "n_scales": 4,
    "sigma_in": 0.3,
    "c_edge": 7,
    "n_bins": 30,
    "lambda_ori": 2.0,
    "c_max": 0.6,
    "lambda_descr": 5,
    "n_hist": 3,
    "n_ori": 6,
    "max_keypoints": 20,
    "keep": "scale",
    "upright": True,
    "normalization": "root",
    "precise_upscale": True,
    "descriptor_layout": "ubc",
    "pooling": (0.5, 1.0, 1.5),
    "affine_shape": True,
    "upsampling_grid": "pixels",
    "extremum_rule": "vlfeat",
    "max_orientations": 1,
}
# Set as they are used, in scikit-image as here, and passed as others.
SCALED = {"sigma_min": (0.7, 1.4), "c_dog": (0.006, 0.006)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_parameter_that_is_set_is_that_of_a_new_object(device, name):
    sift = SIFT(device=device)
    sift.compute(IMAGE)
    setattr(sift, name, CHANGES[name])
    assert getattr(sift, name) == CHANGES[name]
    assert digest(sift.compute(IMAGE)) == digest(SIFT(device=device, **{name: CHANGES[name]}).compute(IMAGE))


@pytest.mark.parametrize("name", SCALED)
def test_a_parameter_that_is_kept_as_it_is_used_is_set_so(name):
    value, passed = SCALED[name]
    sift, oracle = SIFT(device="cpu"), Oracle()
    setattr(sift, name, value)
    setattr(oracle, name, value)
    assert getattr(sift, name) == pytest.approx(getattr(oracle, name))
    assert digest(sift.compute(IMAGE)) == digest(SIFT(device="cpu", **{name: passed}).compute(IMAGE))


def test_every_parameter_can_be_set():
    assert set(CHANGES) | set(SCALED) == set(Parameters.__dataclass_fields__)


@pytest.mark.parametrize(("name", "value", "error"), [("c_max", -1, ValueError), ("n_bins", 2.5, TypeError)])
def test_a_wrong_value_is_refused_and_the_object_stays_as_it_was(name, value, error):
    sift = SIFT(device="cpu")
    with pytest.raises(error, match=name):
        setattr(sift, name, value)
    assert sift.parameters == Parameters()


@pytest.mark.parametrize("name", ["device", "blur", "float_dtype", "delta_min", "deltas"])
def test_what_cannot_be_set_is_refused(name):
    with pytest.raises(AttributeError, match=name):
        setattr(SIFT(device="cpu"), name, "cpu")


def test_keypoints_survive_a_change_of_parameters():
    sift = extracted(IMAGE, device="cpu")
    before = sift.descriptors
    sift.normalization = "root"
    sift.extract(IMAGE)
    assert sift.descriptors.shape == before.shape
    assert (sift.descriptors != before).any()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda sift: pickle.loads(pickle.dumps(sift))])
@pytest.mark.parametrize("used", [False, True])
def test_copies_compute_the_same_and_keep_the_attributes(device, copied, used):
    sift = SIFT(c_dog=0.01, device=device, dtype="float64", memory_limit=10**8)
    expected = digest(sift.compute(IMAGE))
    if used:
        sift.detect_and_extract(IMAGE)
    twin = copied(sift)
    assert repr(twin) == repr(sift)
    assert (twin.plans is not sift.plans, twin.plans.memory_limit) == (True, 10**8)
    for name in (*COLUMNS, "keypoints", "responses", "scalespace_sigmas"):
        np.testing.assert_equal(getattr(twin, name), getattr(sift, name))
    assert twin.n_octaves == sift.n_octaves
    assert digest(twin.compute(IMAGE)) == expected


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_object_crosses_to_another_process(method):
    sift = SIFT(device="cpu", n_octaves=2)
    script = (
        "import multiprocessing, sys\n"
        "from gpusift import SIFT\n"
        "from tests.support.same_bytes import digest, synthetic\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:\n"
        "        features = pool.map(SIFT(device='cpu', n_octaves=2).compute, [synthetic(90, 120, seed=4)])[0]\n"
        "    print(digest(features))\n"
    )
    assert method in multiprocessing.get_all_start_methods()
    command = [sys.executable, "-c", script, method]
    done = subprocess.run(command, env={"PYTHONPATH": PYTHONPATH, "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(sift.compute(IMAGE))


def test_opencvs_face_can_be_copied():
    sift = SIFT_create(30, device="cpu")
    for twin in (copy.deepcopy(sift), pickle.loads(pickle.dumps(sift))):
        assert twin.getNFeatures() == 30
        assert len(twin.detect(IMAGE)) == len(sift.detect(IMAGE)) > 0


def test_repr_is_one_line_that_names_what_is_not_the_default():
    assert repr(SIFT(device="cpu")) == "SIFT(device='cpu', dtype='float32')"
    changed = SIFT(c_dog=0.01, max_keypoints=7, device="cpu", dtype="float64")
    assert repr(changed) == "SIFT(c_dog=0.01, max_keypoints=7, device='cpu', dtype='float64')"


def test_an_unknown_attribute_is_an_error():
    with pytest.raises(AttributeError, match="n_keypoints"):
        SIFT(device="cpu").n_keypoints  # noqa: B018
    assert not hasattr(SIFT, "__getattr__")  # with which a type checker takes any name
