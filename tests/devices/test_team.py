"""The threads that share a launch: every block is done once, without a race, and nothing is left behind."""

import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from gpusift import SIFT, pipeline
from gpusift.devices import CpuDevice
from gpusift.parameters import Parameters
from gpusift.pipeline.plan import Plans
from gpusift.stages.intensities import image_of
from tests.support.checkout import ROOT
from tests.support.same_bytes import digest, synthetic

SOURCE = ROOT / "tests" / "support" / "team.cpp"


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_work_is_shared_without_a_race(sanitizer, tmp_path):
    program = tmp_path / "team"
    flags = ["-std=c++17", "-O1", "-g", f"-fsanitize={sanitizer}", "-pthread"]
    subprocess.run(["c++", *flags, SOURCE, "-o", program], check=True)
    ran = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


def n_threads():
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to count threads")
def test_no_thread_outlives_a_call():
    image = synthetic(600, 700)
    sift = SIFT(device="cpu", num_threads=4)
    sift.compute(image)
    before = n_threads()
    for _ in range(3):
        sift.compute(image)
    assert n_threads() == before


def test_a_device_can_be_used_from_several_threads_at_once():
    image = synthetic(300, 320)
    sift = SIFT(device="cpu", num_threads=3)
    expected = digest(sift.compute(image))
    found = []
    workers = [threading.Thread(target=lambda: found.append(digest(sift.compute(image)))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == 4 * [expected]


def test_after_an_error_inside_a_call_the_device_still_works():
    device = CpuDevice("float32", num_threads=2)
    out = np.zeros((2, 16), np.float32)
    with pytest.raises(TypeError), device.active():
        device.launch("decimate", (2,), (32,), 1)
    with device.active(), device.active():
        device.launch("decimate", (2,), (32,), np.ones((4, 16), np.float32), 4, 4, 16, 0, out, 16)
    assert (out[:, :2] == 1).all()


def test_batches_of_a_call_share_one_team(monkeypatch):
    device = CpuDevice(num_threads=2)
    plans = Plans(device, Parameters(n_octaves=1))
    teams, team = [], device.library.team
    monkeypatch.setattr(device.library, "team", lambda n_threads: (teams.append(n_threads), team(n_threads))[1])
    images = [image_of(synthetic(40, 52, seed=seed)) for seed in range(3)]
    pipeline.compute(plans, images, batch_size=1)
    assert teams == [2]
