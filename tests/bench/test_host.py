"""The host's share without a GPU: what a batch asks of the driver, and that nothing is made anew call after call."""

import threading

import numpy as np
import pytest

from bench.speed import host
from bench.speed.null_cupy import null_cupy
from gpusift import SIFT

pytest.importorskip("cupy", reason="CuPy's arrays are needed, though no GPU")

ONCE = {"upload": 1, "launch of a graph": 1, "download": 1}
NEVER = ("launch", "capture", "memset", "copy on the device")


@pytest.mark.parametrize("case", [host.Case(host.SMALL, batch, 0, "map") for batch in (1, 5)], ids=str)
def test_a_row_of_the_bench(case):
    row = host.measure(case, rounds=3)
    assert row["calls"].items() >= ONCE.items()
    assert set(row["calls"]).isdisjoint(NEVER)
    assert row["seconds"]["n"] == 3
    assert f"batch {case.batch:2}" in host.shown(row)


OPTIONS = {
    "a limit": {"max_keypoints": 9, "keep": "grid"},
    "upright": {"upright": True},
    "precise": {"precise_upscale": True},
    "a layout": {"descriptor_layout": "ubc", "normalization": "root"},
    "double precision": {"dtype": "float64"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("mask", [None, np.ones(host.SMALL, bool), np.ones(host.SMALL, np.int64)], ids=str)
def test_every_option_takes_one_upload_one_graph_and_one_download(options, mask):
    images = [np.zeros(host.SMALL, np.uint8)]
    with null_cupy(lambda out: out.fill(0)) as null:
        sift = SIFT(device="cuda", **options)
        for _ in range(3):
            null.calls.clear()
            if mask is None:
                sift.compute_batch(images, on_host=True)
            else:
                with pytest.raises(RuntimeError, match="no features"):
                    sift.detect(images[0], mask)
    assert null.calls.items() >= ONCE.items()
    assert set(null.calls).isdisjoint(NEVER)


def test_features_that_stay_on_the_device_are_copied_there_once():
    with null_cupy(lambda out: host._fill(out, host.Case(host.SMALL, 1, 7, "compute"))) as null:
        sift = SIFT(device="cuda")
        for _ in range(3):
            null.calls.clear()
            features = sift.compute(np.zeros(host.SMALL, np.uint8))
        assert null.calls.items() >= {**ONCE, "copy on the device": 1}.items()
        null.calls.clear()
        assert len(features.to_host()) == 7
        assert null.calls["download"] == 1


def test_threads_and_streams_capture_no_more_than_once_in_each_memory():
    """Four threads take images of two shapes in turn, so that each memory could be given to any of them."""
    images = [[np.zeros(shape, np.uint8)] for shape in (host.SMALL, (40, 52))]
    with null_cupy(lambda out: out.fill(0)) as null:
        sift = SIFT(device="cuda")

        def work(first: int) -> None:
            for n in range(20):
                sift.compute_batch(images[(first + n) % 2], on_host=True)

        for _ in range(2):
            threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert null.calls["capture"] <= len(sift.plans._free) * len(images)
        assert len(sift.plans._free) <= 4
        for _ in range(4):  # each of the three streams has its plan and its graph then
            list(sift.map(images[0] * 12, batch_size=1))
        before = null.calls["capture"]
        for _ in range(3):
            list(sift.map(images[0] * 12, batch_size=1))
        assert null.calls["capture"] == before
