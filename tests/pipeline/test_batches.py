"""Batches and streams of images: each image's features are those that it has alone."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift import SIFT, pipeline
from gpusift.devices import CpuDevice
from gpusift.devices.programs import Program
from gpusift.parameters import Parameters
from gpusift.pipeline import inputs, plan
from gpusift.pipeline.key import Key
from gpusift.pipeline.outcomes import Unfit
from gpusift.pipeline.plan import KEPT_AT_MOST, KEPT_CALLS, KEPT_PLANS, Memory, Plans
from gpusift.pipeline.results import outcomes_of, start_copy
from gpusift.stages import extrema
from gpusift.stages.feature_lists import TAKEN_FEATURES, TAKEN_KEYPOINTS
from gpusift.stages.intensities import image_of
from tests.support.budget import whole_bytes
from tests.support.same_bytes import digest, synthetic
from tests.support.small_device import SmallDevice

SHAPES = [(40, 52), (52, 40), (64, 64), (5, 90), (30, 33)]
IMAGES = [synthetic(*shape, seed=seed) for seed in (1, 2) for shape in SHAPES]
PARAMETERS = {"n_octaves": 2, "c_dog": 0.004}
ALONE = {}


def alone(number, device="cpu"):
    if (number, device) not in ALONE:
        ALONE[number, device] = digest(SIFT(device=device, **PARAMETERS).compute(IMAGES[number]))
    return ALONE[number, device]


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 64])
def test_a_batch_of_any_size_gives_each_image_its_features(device, batch_size):
    order = [0, 5, 0, 1, 2, 7, 5, 0, 3, 8, 4]
    found = SIFT(device=device, **PARAMETERS).compute_batch([IMAGES[i] for i in order], batch_size)
    assert [digest(features) for features in found] == [alone(i, device) for i in order]


def test_a_stage_may_run_again(device):
    """Blocks take keypoints from counters, which are back at 0 when a launch has ended."""
    sift = SIFT(device=device, **PARAMETERS)
    images = [image_of(IMAGES[0]), image_of(IMAGES[5])]
    key = Key.of(images)
    with sift.device.active(), sift.plans.memory(key) as memory:
        plan = memory.plan(key)
        memory.load_batch(plan, images)
        plan.run()
        for _ in range(3):
            plan.lists.orientations[...], plan.lists.descriptors[...] = 9, 9
            plan.run("orientation")
            plan.run("descriptor")
            plan.run("collection")
            outcomes = outcomes_of(memory, plan, images, start_copy(memory, plan, on_host=False), on_host=False)
            assert [digest(features) for features in outcomes] == [alone(0, device), alone(5, device)]
        assert not sift.device.to_host(plan.lists.counts[TAKEN_KEYPOINTS : TAKEN_FEATURES + 1]).any()


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(range(len(IMAGES))), max_size=9),
    st.sampled_from([None, 1, 2, 5]),
    st.sampled_from([1, 2, 3]),
)
def test_a_stream_is_in_order_with_any_number_of_streams(order, batch_size, n_streams):
    sift = SIFT(device="cpu", **PARAMETERS)
    found = pipeline.stream(sift.plans, (image_of(IMAGES[i]) for i in order), batch_size, n_streams)
    assert [digest(features) for features in found] == [alone(i) for i in order]


def test_map_on_every_device(device):
    order = [0, 5, 0, 1, 2, 7, 5, 0]
    found = list(SIFT(device=device, **PARAMETERS).map((IMAGES[i] for i in order), batch_size=2))
    assert [digest(features) for features in found] == [alone(i, device) for i in order]
    assert all(isinstance(features.descriptors, np.ndarray) for features in found)


@pytest.mark.parametrize("n_streams", [1, 3])
def test_a_stream_takes_images_as_it_needs_them(n_streams):
    taken = itertools.count()
    endless = ((next(taken), image_of(IMAGES[0]))[1] for _ in itertools.count())
    stream = pipeline.stream(SIFT(device="cpu", **PARAMETERS).plans, endless, 2, n_streams)
    for _ in range(9):
        next(stream)
    stream.close()
    assert next(taken) <= 9 + 2 * (n_streams + 1)


@pytest.mark.parametrize("bad", [np.full((40, 52), np.nan), np.zeros((3, 4, 3)), np.zeros((0, 4)), "text"])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_bad_image_is_named_when_those_before_it_have_been_given(device, bad, at):
    images = [IMAGES[0].astype(np.float32)] * 6
    images[at] = bad
    stream = SIFT(device=device, **PARAMETERS).map(images, batch_size=3)
    for _ in range(at):
        assert len(next(stream)) > 0
    with pytest.raises((TypeError, ValueError), match=f"^image {at}: "):
        next(stream)


def test_a_bad_image_of_a_batch_is_named(device):
    images = [IMAGES[0] / 255, IMAGES[1] / 255, IMAGES[0] / 255, np.full((40, 52), np.inf)]
    with pytest.raises(ValueError, match=r"^image 3 of the batch: image must be finite"):
        SIFT(device=device, **PARAMETERS).compute_batch(images, batch_size=4)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2"])
def test_a_wrong_batch_size(wrong):
    sift = SIFT(device="cpu")
    for call in (sift.compute_batch, sift.map):
        with pytest.raises(ValueError, match="batch_size must be an integer of at least 1 or None"):
            call([IMAGES[0]], batch_size=wrong)


def test_a_batch_is_halved_when_memory_runs_out():
    device = SmallDevice()
    plans = Plans(device, Parameters(**PARAMETERS))
    memory = Memory(device, plans.parameters, plans.blur)
    device.room = 10**9
    for size in range(1, 9):
        memory.plan(Key(size, (40, 52)))
    device.room = max(len(block) for block in memory._blocks.values()) // 3  # of eight
    images = 9 * [image_of(IMAGES[0])]
    assert [digest(features) for features in pipeline.compute(plans, images, 8)] == 9 * [alone(0)]
    for n_streams in (1, 3):
        outcomes = pipeline.stream(Plans(device, plans.parameters), images, 8, n_streams)
        assert [digest(features) for features in outcomes] == 9 * [alone(0)]


def test_an_image_for_which_memory_runs_out_is_unfit_and_the_others_are_computed():
    device = SmallDevice()
    device.room = 10**6
    plans = Plans(device, Parameters(**PARAMETERS))
    large = image_of(synthetic(300, 200))
    images = [image_of(IMAGES[0]), large, image_of(IMAGES[1]), large]
    for outcomes in (pipeline.compute(plans, images), list(pipeline.stream(plans, images, n_streams=3))):
        assert [digest(outcome) for outcome in outcomes[::2]] == [alone(0), alone(1)]
        assert outcomes[1] == outcomes[3]
        assert outcomes[1].error is MemoryError
        assert re.search("device cpu must hold some [0-9]+ bytes for an image of 300 x 200", outcomes[1].reason)
    sift = SIFT(device="cpu", **PARAMETERS)
    sift.plans.device = device
    with pytest.raises(MemoryError, match="pass memory_limit, smaller images or upsampling=1"):
        sift.compute(large.pixels)
    device.room = 10**9
    assert len(sift.compute(large.pixels)) > 0


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_an_unfit_image_is_an_outcome_beside_those_of_its_batch(device, batch_size):
    sift = SIFT(device=device, **PARAMETERS)
    nan, infinite = (np.full((40, 52), value, np.float32) for value in (np.nan, np.inf))
    tiny = np.array([[np.nan]])
    given = [IMAGES[0] / 255, nan, IMAGES[5] / 255, "text", infinite, tiny, np.zeros((2, 2, 3)), IMAGES[0] / 255]
    images = [inputs.open_image(sift.plans, image) for image in given]
    expected = [digest(sift.compute(given[i])) for i in (0, 2, 7)]
    compute, stream = pipeline.compute(sift.plans, images, batch_size), pipeline.stream(sift.plans, images, batch_size)
    for outcomes in (compute, list(stream)):
        assert [digest(outcomes[i]) for i in (0, 2, 7)] == expected
        assert [outcomes[i].error for i in (1, 3, 4, 5, 6)] == [
            ValueError,
            TypeError,
            ValueError,
            ValueError,
            ValueError,
        ]
        assert all(isinstance(outcomes[i], Unfit) for i in (1, 3, 4, 5, 6))


def test_an_unfit_image_does_not_disturb_lists_that_are_made_longer(monkeypatch):
    monkeypatch.setattr(extrema, "capacity_for", lambda shape: 5)
    sift = SIFT(device="cpu", **PARAMETERS)
    noise = np.random.default_rng(0).random((40, 52))
    noise[0, 0] = np.nan
    images = [image_of(image) for image in (IMAGES[0] / 255, noise, IMAGES[5] / 255)]
    outcomes = pipeline.compute(sift.plans, images, 3)
    assert [digest(outcomes[i]) for i in (0, 2)] == [digest(sift.compute(images[i].pixels)) for i in (0, 2)]
    assert isinstance(outcomes[1], Unfit)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(range(len(IMAGES))), st.booleans()), max_size=8))
def test_plans_that_share_a_memory_do_not_disturb_each_other(calls):
    sift = SIFT(device="cpu", **PARAMETERS)
    for number, masked in calls:
        if masked:
            assert len(sift.compute(IMAGES[number], np.zeros(IMAGES[number].shape, bool))) == 0
        else:
            assert digest(sift.compute(IMAGES[number])) == alone(number)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_memory_with_a_plan_for_the_images_is_taken(order):
    """Two threads with images of their own shapes would make plans anew if they took each other's memory."""
    plans, keys = Plans(CpuDevice(), Parameters(**PARAMETERS)), [Key(1, shape) for shape in SHAPES[:2]]
    memories = [plans.take(key) for key in keys]
    for memory, key in zip(memories, keys):
        memory.plan(key)
    for number in order:
        plans.give_back(memories[number])
    assert [plans.take(key) for key in keys] == memories
    assert plans.take(keys[0]) not in memories


def test_plans_of_shapes_that_alternate_are_kept_until_the_large_one_is_not_needed_any_more():
    memory = Memory(CpuDevice(), Parameters(**PARAMETERS), "auto")
    large, small = Key(1, (300, 400)), Key(1, (40, 52))
    plans = memory.plan(large), memory.plan(small)
    for _ in range(3):
        assert (memory.plan(large), memory.plan(small)) == plans
    held = sum(map(len, memory._blocks.values()))
    for _ in range(KEPT_CALLS + 1):
        memory.plan(small)
    assert sum(map(len, memory._blocks.values())) < held / KEPT_AT_MOST
    assert memory.plan(small) is not plans[1]


def test_no_more_plans_are_kept_than_allowed():
    memory = Memory(CpuDevice(), Parameters(), "auto")
    keys = [Key(1, (40, 40 + i)) for i in range(KEPT_PLANS + 3)]
    plans = [memory.plan(key) for key in reversed(keys)]  # the largest first: its memory serves all
    assert memory.plan(keys[0]) is plans[-1]
    assert len(memory._plans) == KEPT_PLANS
    assert memory.plan(keys[-1]) is not plans[0]


@pytest.mark.parametrize("capacity", [1, 7, 60])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_lists_that_fill_up_are_made_longer(monkeypatch, capacity, batch_size):
    monkeypatch.setattr(extrema, "capacity_for", lambda shape: capacity)
    sift = SIFT(device="cpu", **PARAMETERS)
    order = [0, 5, 0]
    found = sift.compute_batch([IMAGES[i] for i in order], batch_size)
    assert [digest(features) for features in found] == [alone(i) for i in order]
    assert digest(sift.compute(IMAGES[0])) == alone(0)


@pytest.mark.parametrize("fraction", [1, 10**9])
def test_results_that_are_longer_than_expected_are_copied_again(device, monkeypatch, fraction):
    monkeypatch.setattr(plan, "EXPECTED_OF_CAPACITY", fraction)
    sift, order = SIFT(device=device, **PARAMETERS), [0, 5, 0, 5]
    for _ in range(2):  # the second time as many bytes are expected as the first time were needed
        found = sift.compute_batch([IMAGES[i] for i in order], on_host=True, batch_size=4)
        assert [digest(features) for features in found] == [alone(i, device) for i in order]
    (memory,) = sift.plans._free
    (kept,) = memory._plans.values()
    needed = sum(array.nbytes for features in found for array in features.arrays().values())
    assert needed < kept.expected_bytes <= len(kept.results)


# A program is the plain steps, then a graph


def test_a_program_is_run_plainly_then_captured_then_replayed():
    done = []

    def capture(run):
        done.append("capture")
        return lambda: done.append("replay")

    program = Program([lambda: done.append(1), lambda: done.append(2)], capture)
    for _ in range(4):
        program()
    assert done == [1, 2, "capture", "replay", "replay", "replay"]


def test_a_program_that_cannot_be_captured_runs_plainly(caplog):
    done = []

    def capture(run):
        raise RuntimeError("not here")

    program = Program([lambda: done.append(1)], capture)
    for _ in range(3):
        program()
    assert done == [1, 1, 1]
    assert "no CUDA graph could be made of 1 launches: not here" in caplog.text


def test_a_program_with_steps_of_the_host_is_not_captured():
    done = []
    program = Program([lambda: done.append(1)], None)
    for _ in range(3):
        program()
    assert done == [1, 1, 1]


def test_features_on_the_host_are_the_same(device):
    sift = SIFT(device=device, **PARAMETERS)
    images = [IMAGES[0], np.zeros((3, 3), np.uint8), IMAGES[5], IMAGES[1]]
    found = sift.compute_batch(images, on_host=True)
    assert all(isinstance(array, np.ndarray) for features in found for array in features.arrays().values())
    assert [digest(features) for features in found] == [digest(f) for f in sift.compute_batch(images)]
    limited = SIFT(device=device, memory_limit=int(0.95 * whole_bytes(sift, IMAGES[0])), **PARAMETERS)
    assert digest(limited.compute_batch([IMAGES[0]], on_host=True)[0]) == digest(found[0])
