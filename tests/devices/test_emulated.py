"""The kernels in emulated threads: the GPU's block shapes give the bytes of one thread, and no sanitizer has a word."""

import re
from functools import cache

import numpy as np
import pytest

from gpusift.devices import CpuDevice, kernel_sources
from gpusift.matching import alignment as aligner
from gpusift.matching import nearest
from gpusift.parameters import Parameters
from tests.support import alignment, brute_force, emulated
from tests.support.emulated import EmulatedDevice
from tests.support.emulated_run import digests
from tests.support.same_bytes import every_digest, synthetic


@pytest.fixture(scope="session")
def library_of():
    """Builds the library of emulated threads under a sanitizer, once a session."""
    return cache(emulated.build)


@pytest.mark.xdist_group("emulated")
@pytest.mark.parametrize(
    ("parameters", "dtype"),
    [
        (Parameters(n_octaves=2), "float32"),
        (Parameters(n_octaves=2), "float64"),
        (Parameters(upsampling=1, n_scales=2, n_hist=3, n_ori=5, n_bins=20), "float32"),
        (Parameters(n_octaves=2, normalization="root", descriptor_layout="vlfeat", keep="grid"), "float32"),
        (Parameters(upsampling=4, sigma_in=0.2, n_octaves=3, n_scales=1), "float32"),  # radii beyond those compiled
    ],
)
def test_emulated_threads_give_the_bytes_of_one_thread(library_of, parameters, dtype):
    emulated_device = EmulatedDevice(dtype, library_of(""))
    launched = set()
    prepare = emulated_device.prepare
    emulated_device.prepare = lambda name, *rest, **options: (launched.add(name), prepare(name, *rest, **options))[1]
    ours = every_digest(emulated_device, parameters)
    assert launched == {
        name for name, kernel in kernel_sources.kernels().items() if kernel.stage not in ("matching", "alignment")
    }
    assert ours == every_digest(CpuDevice(dtype), parameters)


@pytest.mark.xdist_group("emulated")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block", [nearest.BLOCK, (1, 1), (7, 3), (64, 4)])
def test_matching_in_emulated_threads_gives_the_bytes_of_one_thread(library_of, monkeypatch, block, dtype):
    """With blocks of any shape: fewer threads than there is work for, and more."""
    expected = brute_force.digest(CpuDevice(dtype))
    monkeypatch.setattr(nearest, "BLOCK", block)
    assert brute_force.digest(EmulatedDevice(dtype, library_of(""))) == expected


@pytest.mark.xdist_group("emulated")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("block", "shaped"),
    [(aligner.BLOCK, False), (aligner.BLOCK, True), ((1, 1), False), ((7, 3), False), ((32, 4), True)],
)
def test_alignment_in_emulated_threads_gives_the_bytes_of_one_thread(library_of, monkeypatch, block, shaped, dtype):
    expected = alignment.digest(CpuDevice(dtype), shaped=shaped)
    monkeypatch.setattr(aligner, "BLOCK", block)
    assert alignment.digest(EmulatedDevice(dtype, library_of("")), shaped=shaped) == expected


@pytest.mark.xdist_group("emulated")
def test_a_list_that_fills_up_in_emulated_threads(library_of):
    from gpusift.stages import extrema, scale_space

    device = EmulatedDevice("float32", library_of(""))
    image = synthetic(40, 52, seed=9).astype(np.float32) / 255
    parameters = Parameters(n_octaves=1, c_dog=0)
    space = scale_space.build(device, image, parameters)
    np.testing.assert_array_equal(
        extrema.find(device, space, parameters, capacity=3), extrema.find(CpuDevice("float32"), space, parameters)
    )


@pytest.mark.xdist_group("emulated")
@pytest.mark.parametrize("sanitizer", emulated.SANITIZERS)
def test_sanitizers_are_silent(library_of, sanitizer):
    done = emulated.run(library_of(sanitizer), sanitizer)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not re.search(r"WARNING: ThreadSanitizer|ERROR: AddressSanitizer|runtime error", done.stderr), done.stderr
    assert done.stdout.split() == digests(CpuDevice("float32"), emulated.PARTS)


@pytest.mark.xdist_group("emulated")
@pytest.mark.parametrize("barrier", emulated.barriers(), ids=str)
def test_a_removed_barrier_is_missed(library_of, barrier):
    assert emulated.is_missed(library_of("thread"), barrier)
