"""The stream: each image once, bounded queues, and what is wrong with one part told by the calling thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift import SIFT, stream
from gpusift.devices import CpuDevice
from gpusift.images import DEFAULT_MAX_PIXELS, Decoded, read_image
from gpusift.images.reader import Decoding
from gpusift.images.stderr import Listener
from gpusift.pipeline.key import Key
from gpusift.pipeline.plan import Memory
from gpusift.sinks import RefusedImageError
from gpusift.sources import Source, SourceFailure
from gpusift.stream import RunError, Summary, settings_of, worker
from gpusift.stream.worker import in_file, worker_here
from tests.support.memory_sink import MemorySink, run_here
from tests.support.same_bytes import digest, synthetic
from tests.support.small_device import SmallDevice

N_IMAGES = 13
CPU = SIFT(device="cpu", n_octaves=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(N_IMAGES):
        cv2.imwrite(str(folder / f"{index:02}.png"), synthetic(40 + index, 60, seed=index))
    return folder


@pytest.fixture(scope="module")
def expected(photos) -> dict[str, tuple[str, tuple[int, int]]]:
    images = {path.name: read_image(path) for path in sorted(photos.glob("*.png"))}
    return {name: (digest(CPU.compute(image)), image.shape) for name, image in images.items()}


def sources(folder: Path) -> list[Source]:
    return [Source(path.name, str(path)) for path in sorted(folder.glob("*.png"))]


def wait_for(condition) -> None:
    while not condition():
        time.sleep(0.005)


@given(batch_size=st.integers(1, 20), n_decoders=st.integers(1, 5), there=st.sets(st.integers(0, N_IMAGES - 1)))
def test_every_image_once_however_it_is_cut(photos, expected, batch_size, n_decoders, there):
    there = {f"{index:02}.png" for index in there}
    sink = MemorySink(committed=tuple(there))
    summary = run_here(sources(photos), sink, CPU, batch_size=batch_size, n_decoders=n_decoders)
    assert sink.written == {name: found for name, found in expected.items() if name not in there}
    assert (summary.images, summary.skipped) == (N_IMAGES - len(there), len(there))
    assert (summary.failures, summary.failed_before, summary.seen) == (0, 0, N_IMAGES)
    assert sink.committed == set(expected)


def test_a_callable_makes_the_sift_where_it_computes(photos, expected):
    sink, threads = MemorySink(), []

    def make() -> SIFT:
        threads.append(threading.current_thread())
        return SIFT(device="cpu", n_octaves=2)

    run_here(sources(photos), sink, make)
    assert sink.written == expected
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_several_workers_share_the_sources(photos, expected):
    sink = MemorySink()
    workers = [worker_here(CPU, decoding=Decoding()) for _ in range(3)]
    assert stream.run(sources(photos), sink, workers).images == N_IMAGES
    assert sink.written == expected


def test_failures_do_not_stop_the_rest(photos, expected, tmp_path):
    (tmp_path / "empty.png").touch()
    cv2.imwrite(str(tmp_path / "nan.tif"), np.full((30, 30), np.nan, np.float32))
    bad = [SourceFailure("no/where", "no such file"), Source("gone.png", str(tmp_path / "gone.png"))]
    bad += [Source("empty.png", str(tmp_path / "empty.png")), Source("nan.tif", str(tmp_path / "nan.tif"))]
    bad += [Source("known.png", str(photos / "00.png"))]
    sink, events = MemorySink(failed=("known.png",)), []
    good = sources(photos)
    summary = run_here([*good[:5], *bad, *good[5:]], sink, CPU, batch_size=4, on_event=events.append)
    assert sink.written == expected
    assert (summary.images, summary.failures, summary.failed_before) == (N_IMAGES, 4, 1)
    assert set(sink.failed) == {"no/where", "gone.png", "empty.png", "nan.tif", "known.png"}
    assert sink.failed["gone.png"] == "No such file or directory"
    assert "finite" in sink.failed["nan.tif"]
    told = {event["name"]: event["reason"] for event in events if event["event"] == "failed"}
    assert told == {name: reason for name, reason in sink.failed.items() if name != "known.png"}


def test_events(photos):
    sink, events = MemorySink(), []
    summary = run_here(sources(photos), sink, CPU, on_event=events.append)
    images = [event for event in events if event["event"] == "image"]
    assert sum(event["keypoints"] for event in images) == summary.keypoints > 100
    assert {event["name"]: (event["rows"], event["cols"]) for event in images}["03.png"] == (43, 60)
    assert events[-1] == summary.as_event()
    assert min(summary.seconds.values()) > 0


def with_memory_for(image_shape: tuple[int, int], batch: int = 1) -> SIFT:
    """A SIFT whose device has memory for so many images of that shape."""
    sift = SIFT(device="cpu", n_octaves=2)
    memory = Memory(SmallDevice(room=10**9), sift.parameters, sift.plans.blur)
    memory.plan(Key(batch, image_shape))
    sift.plans.device = SmallDevice(room=memory.device.largest)
    return sift


def test_a_batch_that_does_not_fit_is_halved(photos, expected):
    sink = MemorySink()
    run_here(sources(photos), sink, with_memory_for((52, 60), batch=3), batch_size=8)
    assert sink.written == expected


def test_an_image_that_does_not_fit_alone_fails(photos, expected, monkeypatch):
    monkeypatch.setattr(worker, "SMALL_PIXELS", 0)  # a small one that does not fit is a fault of the machine
    sink = MemorySink()
    summary = run_here(sources(photos), sink, with_memory_for((50, 60)), batch_size=8)
    assert summary.failures == 2
    assert set(sink.failed) == {"11.png", "12.png"}
    assert "must hold some" in sink.failed["11.png"]
    assert "pass memory_limit, smaller images or upsampling=1" in sink.failed["11.png"]
    assert set(sink.written) == set(expected) - set(sink.failed)


def test_a_device_that_fails_stops_the_run_and_blames_no_image(photos):
    class CUDARuntimeError(RuntimeError):
        __module__ = "cupy_backends.cuda.api.runtime"

    class Broken(CpuDevice):
        def memory(self, size):
            raise CUDARuntimeError("cudaErrorIllegalAddress")

    sink, sift = MemorySink(), SIFT(device="cpu")
    sift.plans.device = Broken()
    with pytest.raises(RunError, match="compute: cudaErrorIllegalAddress") as caught:
        run_here(sources(photos), sink, sift, batch_size=4)
    assert caught.value.stage == "compute"
    assert sink.failed == {}


def test_stop_writes_what_is_begun_and_a_second_run_the_rest(photos, expected):
    sink, stop = MemorySink(), threading.Event()

    def six_and_the_others_after_the_stop() -> Iterator[Source]:
        for number, source in enumerate(sources(photos)):
            if number == 6:
                stop.wait()
            yield source

    def at_the_third(event) -> None:
        if event["event"] == "image" and len(sink.written) == 3:
            stop.set()

    first = run_here(six_and_the_others_after_the_stop(), sink, CPU, on_event=at_the_third, stop=stop)
    assert 3 <= first.images == len(sink.written) <= 7  # one may be taken before the stop is seen
    assert sink.committed == set(sink.written)
    second = run_here(sources(photos), sink, CPU)
    assert second.skipped == first.images
    assert sink.written == expected


def test_ctrl_c_in_a_program_commits_and_is_raised(photos):
    sink = MemorySink()

    def interrupt(event) -> None:
        if event["event"] == "image":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(sources(photos), sink, CPU, on_event=interrupt)
    assert sink.committed == set(sink.written) != set()


def test_results_are_committed_every_so_often(photos, monkeypatch):
    sink = MemorySink()
    monkeypatch.setattr(stream, "COMMIT_SECONDS", 0.0)
    run_here(sources(photos), sink, CPU)
    assert sink.commits >= N_IMAGES / 2  # some come together


def test_a_sink_that_fails_stops_the_run(photos):
    class Full(MemorySink):
        def write(self, name, features, shape, url=None):
            if len(self.written) == 3:
                raise OSError(28, "No space left on device")
            super().write(name, features, shape)

    full = Full()
    with pytest.raises(RunError, match=r"write: .*No space left") as caught:
        run_here(sources(photos), full, CPU)
    assert caught.value.stage == "write"
    assert caught.value.summary.images == 3
    assert full.failed == {}


def test_sources_that_fail_stop_the_run_with_all_before_them_written(photos):
    def broken() -> Iterator[Source]:
        yield from sources(photos)[:4]
        wait_for(lambda: len(sink.written) == 4)
        raise PermissionError(13, "Permission denied")

    sink = MemorySink()
    with pytest.raises(RunError, match=r"sources: .*Permission denied"):
        run_here(broken(), sink, CPU)
    assert len(sink.committed) == 4


def test_a_name_that_the_sink_cannot_hold_is_a_failure(photos):
    class Picky(MemorySink):
        def write(self, name, features, shape, url=None):
            if name == "05.png":
                raise RefusedImageError("name must be even, got 05.png")
            super().write(name, features, shape)

    picky = Picky()
    assert run_here(sources(photos), picky, CPU).failures == 1
    assert picky.failed == {"05.png": "name must be even, got 05.png"}


def test_a_slow_list_of_sources_holds_nothing_back(photos):
    """Each result is written before the next source is there; a worker that waited for more would wait for ever."""
    sink = MemorySink()

    def slow() -> Iterator[Source]:
        for number, source in enumerate(sources(photos)):
            yield source
            wait_for(lambda number=number: len(sink.written) > number)

    assert run_here(slow(), sink, CPU, batch_size=4).images == N_IMAGES


def test_a_list_of_sources_that_never_ends_its_line_does_not_hold_up_a_stop(photos):
    sink, stop, for_ever = MemorySink(), threading.Event(), threading.Event()

    def blocked() -> Iterator[Source]:
        yield sources(photos)[0]
        for_ever.wait()

    summary = run_here(blocked(), sink, CPU, stop=stop, on_event=lambda event: stop.set())
    assert summary.images == 1
    for_ever.set()


def test_sources_are_taken_only_so_far_ahead(photos):
    """A million images take no more memory than a hundred: those between the list and the sink are so many at most."""
    batch_size, n_decoders, taken, ahead = 3, 2, 0, []
    one = sources(photos)[0]

    def endless() -> Iterator[Source]:
        nonlocal taken
        for taken in range(1, 200):
            yield Source(f"{taken}.png", one.url)

    class Slow(MemorySink):
        def write(self, name, features, shape, url=None):
            before = taken
            time.sleep(0.002)  # give the others the time to run ahead
            super().write(name, features, shape)
            ahead.append(before - len(self.written))

    slow = Slow()
    run_here(endless(), slow, CPU, batch_size=batch_size, n_decoders=n_decoders)
    assert len(slow.written) == 199
    queues = 2 * stream.QUEUE_LENGTH + batch_size
    in_hand = 1 + n_decoders + 2 * batch_size
    assert max(ahead) <= queues + in_hand


def test_features_of_a_smaller_picture_are_in_pixels_of_the_file(tmp_path):
    small = synthetic(90, 120)
    large = cv2.resize(small, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(tmp_path / "large.png"), large)

    class Kept(MemorySink):
        def write(self, name, features, shape, url=None):
            self.features, self.shape = features, shape

    kept = Kept()
    run_here([Source("large.png", str(tmp_path / "large.png"))], kept, SIFT(device="cpu"), max_size=120)
    assert kept.shape == (270, 360)
    shrunk = SIFT(device="cpu").compute(cv2.resize(large, (120, 90), interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(kept.features.positions, (shrunk.positions + 0.5) * 3 - 0.5, rtol=1e-6)
    np.testing.assert_allclose(kept.features.sigmas, shrunk.sigmas * 3, rtol=1e-6)
    np.testing.assert_array_equal(kept.features.descriptors, shrunk.descriptors)
    assert kept.features.positions.dtype == np.float32


def test_corners_stay_corners():
    """The outer edge of the picture, half a pixel outside of its first and last centres, stays where it is."""
    features = CPU.compute(synthetic(50, 60))[:2]
    features.positions[:] = [[-0.5, -0.5], [24.5, 33.5]]
    placed = in_file(features, Decoded(np.zeros((25, 34), np.uint8), (75, 101), 34 / 101))
    np.testing.assert_allclose(placed.positions, [[-0.5, -0.5], [74.5, 100.5]], atol=1e-5)
    assert in_file(features, Decoded(np.zeros((25, 34), np.uint8), (25, 34), 1.0)) is features


def test_what_decoders_print_goes_to_its_picture(photos, tmp_path, capfd):
    _, data = cv2.imencode(".jpg", synthetic(100, 100))
    data = data.tobytes()
    (tmp_path / "odd.jpg").write_bytes(data[: len(data) - 200] + b"\xff\xd9")  # cut, but properly ended
    png = bytearray((photos / "00.png").read_bytes())
    png[len(png) // 2] ^= 0xFF
    (tmp_path / "broken.png").write_bytes(png)
    items = sources(photos)
    for number in range(3):
        items.insert(4 * number, Source(f"odd{number}", str(tmp_path / "odd.jpg")))
        items.insert(5 * number, Source(f"broken{number}", str(tmp_path / "broken.png")))
    sink, events = MemorySink(), []
    with Listener() as listener:
        run_here(items, sink, CPU, n_decoders=4, on_event=events.append, listener=listener)
    warnings = {event["name"]: event["message"] for event in events if event["event"] == "warning"}
    assert set(warnings) == {"odd0", "odd1", "odd2"}
    assert all(message.startswith("Corrupt JPEG data") for message in warnings.values())
    assert set(sink.failed) == {"broken0", "broken1", "broken2"}
    assert all("(decoder: " in reason for reason in sink.failed.values())
    assert capfd.readouterr().err == ""


def test_settings_are_those_that_decide_the_results():
    same = settings_of({"device": "cpu", "num_threads": 1, "blur": "kernel", "c_edge": 10})
    assert same == settings_of({"device": "cuda:1"})
    for other in ({"n_octaves": 2}, {"dtype": "float64"}, {"blur": "ndimage"}, {"normalization": "root"}):
        assert settings_of(other) != same
    assert settings_of({}, max_size=100) != same
    assert settings_of({}, exif_orientation=False) != same
    assert DEFAULT_MAX_PIXELS > 0


def test_a_summary_counts_all_it_saw():
    assert Summary(images=1, failures=2, failed_before=4, skipped=8, keypoints=99).seen == 15
