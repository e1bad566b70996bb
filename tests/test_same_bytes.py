"""The same bytes on every run, number of threads, instruction set and device: the hashes in support/hashes.json."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpusift import SIFT, pipeline
from gpusift.cli import self_check
from gpusift.devices import CpuDevice, host_library
from gpusift.parameters import Parameters
from gpusift.pipeline.plan import Plans
from gpusift.stages.intensities import image_of
from tests.support.same_bytes import digest, synthetic

CASES = {
    "default": (synthetic(120, 160), {}),
    "odd and thin": (synthetic(23, 301, seed=2), {}),
    "16 bit": (synthetic(75, 90, seed=3).astype(np.uint16) * 257, {}),
    "signed": (synthetic(75, 90, seed=3).astype(np.int16) * 128 - 16384, {}),
    "upsampling 1": (synthetic(200, 131, seed=4), {"upsampling": 1}),
    "upsampling 4": (synthetic(45, 64, seed=5), {"upsampling": 4, "sigma_in": 0.4}),
    "five scales": (synthetic(96, 96, seed=6), {"n_scales": 5}),
    "other histograms": (synthetic(96, 96, seed=7), {"n_hist": 3, "n_ori": 12, "n_bins": 18}),
    "wide blurs": (synthetic(150, 110, seed=8), {"sigma_min": 3.3, "c_dog": 0.004}),
    "as COLMAP has it": (
        synthetic(110, 140, seed=10),
        {
            "normalization": "root",
            "descriptor_layout": "ubc",
            "precise_upscale": True,
            "max_keypoints": 60,
            "keep": "scale",
        },
    ),
    "a grid": (synthetic(140, 110, seed=11), {"max_keypoints": 40, "keep": "grid", "descriptor_layout": "vlfeat"}),
    "upright": (synthetic(90, 110, seed=12), {"upright": True, "max_keypoints": 30}),
    "pooled": (
        synthetic(130, 120, seed=13),
        {"pooling": (0.5, 2**-0.5, 1, 2**0.5, 2), "normalization": "root", "descriptor_layout": "ubc"},
    ),
    "affine shapes": (
        synthetic(120, 130, seed=14),
        {"affine_shape": True, "normalization": "root", "precise_upscale": True, "max_keypoints": 70},
    ),
    "a megapixel": (synthetic(900, 1200, seed=9), {}),
}
KEPT = Path(__file__).with_name("support") / "hashes.json"


@pytest.mark.parametrize("case", CASES)
def test_kept_hashes(device, case):
    image, parameters = CASES[case]
    sift = SIFT(**parameters, device=device, blur="kernel")
    for _ in self_check.RUNS:  # a GPU runs the launches one by one, then captures, then replays them
        features = sift.compute(image)
        assert len(features) > 10
        assert digest(features) == json.loads(KEPT.read_text())[case]


def features_on(device, image, **parameters):
    return pipeline.compute(Plans(device, Parameters(**parameters)), [image_of(image)])[0]


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_any_number_of_threads(num_threads):
    image, _ = CASES["a megapixel"]  # large enough for its launches to start threads
    expected = digest(features_on(CpuDevice(), image))
    assert digest(features_on(CpuDevice(num_threads=num_threads), image)) == expected


@pytest.mark.parametrize("case", CASES)
def test_every_instruction_set(case):
    image, parameters = CASES[case]
    found = {
        library.instruction_set: digest(features_on(CpuDevice(library=library), image, **parameters))
        for library in host_library.libraries()
    }
    assert set(found.values()) == {json.loads(KEPT.read_text())[case]}, found


def test_run_to_run(device):
    image, _ = CASES["a megapixel"]
    sift = SIFT(device=device, blur="kernel")
    assert len({digest(sift.compute(image)) for _ in range(3)}) == 1


def test_a_batch_changes_nothing(device):
    image, _ = CASES["default"]
    sift = SIFT(device=device, blur="kernel")
    _, second, _ = sift.compute_batch([CASES["odd and thin"][0], image, np.zeros((30, 30), np.uint8)])
    assert digest(second) == digest(sift.compute(image))


def test_the_hash_sees_one_bit():
    features = SIFT(device="cpu").compute(CASES["default"][0])
    before = digest(features)
    features.descriptors[3, 5] ^= 1
    assert digest(features) != before


def test_several_instruction_sets_are_compared():
    if len(host_library.libraries()) < 2:
        pytest.skip(f"this processor runs only the {host_library.libraries()[0].instruction_set} build")
    assert len({library.instruction_set for library in host_library.libraries()}) == len(host_library.libraries())


if __name__ == "__main__":  # python -m tests.test_same_bytes, after an intended change of results
    hashes = {case: digest(SIFT(**p, device="cpu", blur="kernel").compute(i)) for case, (i, p) in CASES.items()}
    KEPT.write_text(json.dumps(hashes, indent=1) + "\n")
    print("gpusift/cli/self_check.py: EXPECTED =", self_check.digests_of("cpu")[0])
