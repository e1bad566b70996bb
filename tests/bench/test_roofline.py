"""The floors that bench.kernels.roofline prints: bytes and operations from shapes, occupancy, timing."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.common import gpus
from bench.kernels import roofline, traffic
from bench.kernels.traffic import Job, Work
from gpusift import SIFT
from gpusift.parameters import Parameters
from gpusift.stages.scale_space import build
from tests.support.checkout import run_module

SCALE_SPACE = ("first_level", "blur", "find_extrema")


def moved(job, *kernels):
    return sum(work.moved for work in traffic.works(job) if work.kernel in kernels)


def of(job, kernel):
    (work,) = [work for work in traffic.works(job) if work.kernel == kernel]
    return work


# Bytes and operations


def test_the_scale_space_moves_seventeen_levels_and_a_third():
    rows, cols = 1080, 1920
    level = 16 * rows * cols
    assert moved(Job((rows, cols)), *SCALE_SPACE) == pytest.approx(17 * level * 4 / 3 + 4 * rows * cols, rel=0.001)


@pytest.mark.parametrize("upsampling", [1, 2])
def test_samples_are_those_of_the_scale_space(upsampling):
    parameters = Parameters(upsampling=upsampling)
    job = Job((67, 90), keypoints=0, parameters=parameters)
    space = build(SIFT(device="cpu").device, np.zeros(job.shape, np.float32), parameters)
    levels = [space.octave(o) for o in range(len(space.shapes))]
    assert of(job, "find_extrema").read == sum(octave.nbytes for octave in levels)
    written = sum(work.written for work in traffic.works(job) if work.kernel in ("first_level", "blur"))
    assert written == sum(octave.nbytes for octave in levels)  # each level once


def test_a_batch_takes_as_many_times_as_much_in_as_many_launches():
    one, eight = (traffic.works(Job((200, 300), batch=batch)) for batch in (1, 8))
    for single, batch in zip(one, eight, strict=True):
        assert (batch.name, batch.launches) == (single.name, single.launches)
        assert batch.moved == pytest.approx(8 * single.moved)
        assert batch.operations == pytest.approx(8 * single.operations)


def test_the_raw_image_is_read_once():
    narrow, wide = (of(Job((200, 300), pixel=pixel), "intensities") for pixel in (1, 2))
    assert (narrow.read, wide.read) == (200 * 300, 2 * 200 * 300)
    assert narrow.written == of(Job((200, 300)), "first_level").read == 4 * 200 * 300
    assert of(Job((200, 300)), "first_level").written == 4 * 400 * 600
    assert of(Job((200, 300), parameters=Parameters(upsampling=1)), "first_level").written == 4 * 200 * 300


def test_blurs_are_those_of_the_parameters():
    works = [work for work in traffic.works(Job((200, 300))) if work.kernel == "blur"]
    assert [work.constant for work in works] == [5, 6, 8, 10, 12]
    assert [work.operations / sum(Job((200, 300)).samples) for work in works] == [34, 40, 52, 64, 76]
    reaching_on = [work.label for work in works if work.written > work.read]
    assert reaching_on == ["level 3"]  # which writes level 0 of the next octave too
    unblurred = Job((200, 300), parameters=Parameters(sigma_in=0.8))
    assert of(unblurred, "first_level").constant == 0


def test_windows_need_no_more_bytes_than_there_are():
    few, many = Job((200, 300), keypoints=10), Job((200, 300), keypoints=10**6)
    assert traffic.window_bytes(few, 1000) == 4000
    assert traffic.window_bytes(many, 1e12) == 4 * 3 * sum(many.samples)
    assert of(many, "describe").operations == pytest.approx(1e5 * of(few, "describe").operations)


def test_assumed_keypoints_are_like_those_of_a_photograph():
    from skimage.data import camera

    features = SIFT(device="cpu").compute(camera())
    sigmas = features.sigmas / (0.5 * 2.0**features.octaves)
    job = Job(camera().shape)
    assert job.mean_square_sigma == pytest.approx(6.015, abs=0.001)
    assert np.mean(sigmas**2) == pytest.approx(job.mean_square_sigma, rel=0.15)
    n_keypoints = len(np.unique(features.positions, axis=0))
    assert len(features) / n_keypoints == pytest.approx(traffic.FEATURES_PER_KEYPOINT, abs=0.15)


def test_an_image_too_small_has_no_floor():
    with pytest.raises(ValueError, match=r"large enough for an octave, got shape \(5, 9\)"):
        traffic.works(Job((5, 9)))
    done = run_module("bench.kernels.roofline", "--shape", "5", "9")
    assert done.returncode == 1
    assert done.stderr.strip() == "the image must be large enough for an octave, got shape (5, 9)"


# Floors


@pytest.mark.parametrize(("operations", "seconds", "bound"), [(30, 3.0, "memory"), (90, 4.5, "arithmetic")])
def test_a_floor_is_the_longer_of_two_times(operations, seconds, bound):
    work = Work("blur", "", 5, 1, read=20, written=10, operations=operations)
    assert traffic.floor_seconds(work, bandwidth=10, instructions=20) == (seconds, bound)


def test_an_fma_is_one_instruction_and_two_operations_of_a_sheet():
    h200 = gpus.GPUS[0]
    assert h200.instructions == 33.5e12
    assert h200.architecture == "90"


def test_sheets_agree_with_multiprocessors_at_a_plausible_clock():
    for gpu in gpus.GPUS:
        hertz = gpu.instructions / gpu.multiprocessors / gpus.MULTIPROCESSORS[gpu.capability].lanes
        assert 1.2e9 < hertz < 2.6e9, gpu.name


def test_kept_tables_are_what_is_printed_now():
    kept = roofline.KEPT.read_text()
    assert kept.startswith(roofline.HEAD)
    assert "\n".join(roofline.floors_and_sheets(Job((1080, 1920)))) in kept, (
        "run python -m bench.kernels.roofline --write"
    )
    assert "x floor" not in kept  # measured times are not kept with paper ones


# Occupancy


@pytest.mark.parametrize(
    ("capability", "threads", "registers", "shared", "blocks", "limit"),
    [
        ("9.0", 1024, 32, 0, 2, "threads"),
        ("8.0", 256, 64, 0, 4, "registers"),
        ("8.0", 256, 65, 0, 3, "registers"),  # 72, as a warp is given 256 at a time
        ("8.0", 32, 104, 0, 16, "registers"),  # 4 in each quarter, not the 19 that fit the whole
        ("8.6", 32, 16, 0, 16, "blocks"),
        ("8.9", 32, 16, 0, 24, "blocks"),
        ("8.6", 256, 32, 48 * 1024, 2, "shared"),  # 49 KiB each, of 100
        ("8.6", 256, 32, 49 * 1024 + 1, 1, "shared"),
        ("7.5", 128, 32, 32 * 1024, 2, "shared"),  # nothing is reserved there
        ("7.5", 48, 32, 0, 16, "blocks"),  # half a warp is a warp
    ],
)
def test_resident_blocks(capability, threads, registers, shared, blocks, limit):
    found = gpus.occupancy(capability, threads, registers, shared)
    assert (found.blocks, found.limit) == (blocks, limit)
    warps = -(-threads // 32) * blocks
    assert found.share == pytest.approx(warps / gpus.MULTIPROCESSORS[capability].warps)


@pytest.mark.parametrize(("registers", "shared", "limit"), [(128, 0, "registers"), (32, 300 * 1024, "shared")])
def test_a_block_that_fits_nowhere_is_an_error(registers, shared, limit):
    with pytest.raises(ValueError, match=rf"1024 threads of {registers} registers .* too many {limit}"):
        gpus.occupancy("9.0", 1024, registers, shared)


def test_registers_come_from_the_compiler():
    from tests.support import nvrtc

    figures = roofline.ptxas_figures()
    work = of(Job((200, 300)), "find_extrema")
    launch = next(launch for launch in nvrtc.default_launches() if launch.kernel == "find_extrema")
    built = nvrtc.built(launch, "float32", "90").figures["find_extrema"]
    assert figures(work, "90") == (launch.threads, built.registers, built.shared)
    assert figures(Work("no_such_kernel", "", 0, 1, 1, 1, 1), "90") is None


def test_table_of_occupancy_says_what_it_lacks():
    lines = roofline.occupancy_table(
        Job((200, 300)), lambda work, architecture: (256, 64, 4096) if work.kernel == "blur" else None
    )
    (level_1,) = [line for line in lines if line.startswith("| blur, level 1 ")]
    assert level_1.startswith("| blur, level 1 | 256 | 4096 | 64: 4 blocks, 50% (registers) |")
    (refine,) = [line for line in lines if line.startswith("| refine ")]
    assert refine.count("not in kernels/") == len(gpus.GPUS)


# Times


class Clock:
    """A device on which each launch takes the seconds that it says."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def launch(self, name, seconds):
        def run():
            self.order.append(name)
            warming_up = len(self.order) <= 3 * roofline.WARM_UP
            self.now += seconds * (1000 if warming_up else 1)

        run.name = name
        return run


def test_launches_are_timed_in_order_and_summed_by_kernel(monkeypatch):
    monkeypatch.setattr(roofline, "MEASURED_CALLS", 1)  # so that the median would tell of a slow call
    clock = Clock()

    plan = SimpleNamespace(launches=[clock.launch("blur", 3.0), clock.launch("refine", 1.0), clock.launch("blur", 4.0)])
    seconds = roofline.measured(plan, mark=lambda: clock.now, between=lambda start, end: end - start)
    assert seconds == {"blur": 7.0, "refine": 1.0}
    assert clock.order == ["blur", "refine", "blur"] * (roofline.WARM_UP + roofline.MEASURED_CALLS)


def test_measured_times_are_shown_as_multiples_of_their_floor():
    gpu = gpus.Gpu("any", "9.0", 1e12, 1e20, 1, "")
    job = Job((1080, 1920))
    floor = moved(job, "blur") / 1e12
    lines = roofline.measured_table(job, {"blur": 2.5 * floor, "mystery": 1e-6}, gpu)
    assert lines[2] == f"| blur | {2.5e6 * floor:.1f} | {1e6 * floor:.1f} | 2.5 |"
    assert lines[3] == "| mystery | 1.0 |  | not in traffic.py |"


def test_without_a_gpu_the_reason_is_given():
    reason = roofline.plan_on_gpu(Job((200, 300)))
    if not isinstance(reason, str):
        pytest.skip("there is a GPU, and a plan on it")
    assert "device='cuda' cannot be had" in reason or "no plan" in reason
