"""Features computed by a Dask cluster of worker processes: the same as here, whatever happens to the workers."""

import os
import random
import signal
import threading
import time
from contextlib import suppress

import cv2
import numpy as np
import pytest
from skimage import data

from gpusift import SIFT, npz, stream
from gpusift.devices import CpuDevice
from gpusift.distributed import connect, extract, worker_on
from gpusift.distributed.tasks import Tasks
from gpusift.images.reader import Decoding
from gpusift.parquet import read
from gpusift.sinks import SettingsDiffer
from gpusift.sinks.failures import read as read_failures
from gpusift.sources import Source, SourceFailure
from tests.support.memory_sink import MemorySink, run_here

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

pytestmark = pytest.mark.xdist_group("cluster")

PARAMETERS = {"n_octaves": 2, "device": "cpu", "num_threads": 1}


class Rows(MemorySink):
    """A sink that keeps its rows."""

    def __init__(self, on_write=lambda n_rows: None, **options):
        super().__init__(keep=lambda features, shape: (features, shape), **options)
        self.on_write = on_write

    def write(self, *arguments):
        super().write(*arguments)
        self.on_write(len(self.written))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """40 crops of a photograph, as sources."""
    folder = tmp_path_factory.mktemp("photographs")
    picture = data.camera()
    sources = []
    for number in range(40):
        row, column = divmod(number, 8)
        path = folder / f"{number:02}.png"
        cv2.imwrite(str(path), picture[row * 80 : row * 80 + 96, column * 50 : column * 50 + 96])
        sources.append(Source(f"crops/{path.name}", str(path)))
    return sources


@pytest.fixture(scope="module")
def expected(photographs):
    """What the same sources give without a cluster."""
    sink = Rows()
    run_here(photographs, sink, SIFT(**PARAMETERS))
    assert len(sink.written) == 40
    assert sum(len(features) for features, _ in sink.written.values()) > 500
    return sink.written


@pytest.fixture(scope="module")
def cluster():
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(processes=True, **settings) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, direct_to_workers=True) as client:
        try:
            client.wait_for_workers(2, timeout=30)
        except TimeoutError:  # Dask does not start every worker again that the test before has killed
            cluster.scale(0)
            cluster.scale(2)
            client.wait_for_workers(2, timeout=120)
        yield client


class Deadly(distributed.WorkerPlugin):
    """Gives workers two file systems: one whose files end the process that opens them, one whose files raise."""

    def setup(self, worker):
        import fsspec

        class Kill(fsspec.AbstractFileSystem):
            protocol = "kill"

            def _open(self, path, **kwargs):
                os.kill(os.getpid(), signal.SIGKILL)

        class Raise(fsspec.AbstractFileSystem):
            protocol = "raise"

            def _open(self, path, **kwargs):
                class Unheard(Exception):
                    pass

                raise Unheard("never heard of")

        fsspec.register_implementation("kill", Kill, clobber=True)
        fsspec.register_implementation("raise", Raise, clobber=True)


def run(client, sources, sink, batch_size=4, **options):
    worker = worker_on(client, PARAMETERS, decoding=Decoding(), batch_size=batch_size)
    return stream.run(sources, sink, [worker], **options)


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, (features, shape) in expected.items():
        assert found[name][1] == shape
        for field in features.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(found[name][0], field), getattr(features, field), strict=True)


def test_results_are_those_of_one_process(client, photographs, expected):
    sink = Rows()
    events = []
    summary = run(client, photographs, sink, on_event=events.append)
    assert_same(sink.written, expected)
    assert sink.committed == set(sink.written)
    assert not sink.failed
    keypoints = sum(len(features) for features, _ in expected.values())
    assert (summary.images, summary.keypoints, summary.failures, summary.skipped) == (40, keypoints, 0, 0)
    assert sum(event["event"] == "image" for event in events) == 40
    assert summary.seconds["compute"] > 0


def test_what_is_there_is_skipped_and_what_fails_recorded(client, photographs, expected, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    sources = [
        *photographs,
        SourceFailure("../x.png", "leaves the folder"),
        Source("text.jpg", str(tmp_path / "text.jpg")),
        Source("none.jpg", str(tmp_path / "none.jpg")),
    ]
    sink = Rows(committed=tuple(name for name in expected if name < "crops/30"))
    summary = run(client, sources, sink)
    assert_same(sink.written, {name: row for name, row in expected.items() if name >= "crops/30"})
    assert sorted(sink.failed) == ["../x.png", "none.jpg", "text.jpg"]
    assert (summary.images, summary.skipped, summary.failures) == (10, 30, 3)


def test_a_killed_worker_costs_no_image(client, photographs, expected):
    pids = client.run(os.getpid)
    killed = []

    def kill(n_rows):
        if n_rows == 5:
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

    sink = Rows(kill)
    summary = run(client, photographs, sink)
    assert killed
    assert_same(sink.written, expected)
    assert not sink.failed
    assert summary.images == 40


def test_images_that_end_their_worker_or_always_fail_do_not_stop_the_rest(client, photographs, expected):
    client.register_plugin(Deadly(), name="deadly")
    sources = list(photographs)
    sources.insert(7, Source("deadly.jpg", "kill://deadly.jpg"))
    sources.insert(22, Source("raises.jpg", "raise://raises.jpg"))
    sink = Rows()
    summary = run(client, sources, sink)
    client.unregister_worker_plugin("deadly")
    assert_same(sink.written, expected)
    assert sorted(sink.failed) == ["deadly.jpg", "raises.jpg"]
    assert "workers died with it" in sink.failed["deadly.jpg"]
    assert "never heard of" in sink.failed["raises.jpg"]
    assert (summary.images, summary.failures) == (40, 2)


class Broken(distributed.WorkerPlugin):
    """Has the device fail once, as a GPU does: for good, until the process ends."""

    def __init__(self, marker):
        self.marker = marker

    def setup(self, worker):
        class CUDARuntimeError(RuntimeError):
            __module__ = "cupy_backends.cuda.api.runtime"

        real, fails = CpuDevice.upload, not os.path.exists(self.marker)

        def upload(device, *given):
            if fails:
                open(self.marker, "w").close()
                raise CUDARuntimeError("cudaErrorIllegalAddress")
            real(device, *given)

        CpuDevice.upload = upload


def test_a_worker_whose_device_fails_is_started_anew(client, photographs, expected, tmp_path):
    pids = set(client.run(os.getpid).values())
    client.register_plugin(Broken(str(tmp_path / "failed")), name="broken")
    sink = Rows()
    run(client, photographs[:8], sink)
    client.unregister_worker_plugin("broken")
    assert (tmp_path / "failed").exists()
    assert set(client.run(os.getpid).values()) != pids
    assert_same(sink.written, {source.name: expected[source.name] for source in photographs[:8]})
    assert not sink.failed


def test_workers_join_and_leave(cluster, client, photographs, expected):
    addresses = set(client.nthreads())
    cluster.scale(3)  # joins in the middle
    retired = []

    def retire(n_rows):
        if n_rows == 3:
            retired.append(sorted(addresses)[0])
            client.retire_workers(retired)

    sink = Rows(retire)
    run(client, photographs, sink, batch_size=1)
    client.wait_for_workers(2, timeout=120)
    assert retired
    assert set(client.nthreads()) - addresses
    cluster.scale(2)
    assert_same(sink.written, expected)
    assert not sink.failed


def test_a_folder_is_found_and_a_path_is_a_sink_and_resumed(client, photographs, expected, tmp_path):
    folder, output = os.path.dirname(photographs[0].url), str(tmp_path / "features")
    first = extract([folder], client, output, parameters=PARAMETERS)
    again = extract(folder, client, output, parameters={**PARAMETERS, "num_threads": 2})
    assert (first.images, again.images, again.skipped) == (40, 0, 40)
    found = npz.load(f"{output}/07.png.npz")
    np.testing.assert_array_equal(found.descriptors, expected["crops/07.png"][0].descriptors)


def test_a_stop_finishes_what_was_sent(client, photographs, expected):
    stop = threading.Event()
    sink = Rows(lambda n_rows: stop.set())
    summary = run(client, photographs, sink, batch_size=1, stop=stop)
    assert 0 < summary.images < 40
    assert_same(sink.written, {name: expected[name] for name in sink.written})
    assert sink.committed == set(sink.written)
    assert not any(client.processing().values())


def test_a_sink_that_fails_ends_the_run(client, photographs):
    def fail(n_rows):
        raise OSError(28, "No space left on device")

    with pytest.raises(stream.RunError) as raised:
        run(client, photographs, Rows(fail))
    assert raised.value.stage == "write"


def test_workers_that_cannot_compute_end_the_run(client, photographs, tmp_path):
    with pytest.raises(stream.RunError, match=r"a worker cannot compute: device='cuda.* cannot be had"):
        extract(photographs, client, tmp_path / "out", {"device": "cuda:99"})
    assert not list(tmp_path.rglob("*failures*"))


def test_without_workers_a_run_can_be_stopped(photographs):
    stop = threading.Event()
    sources = (stop.set() or source for source in photographs)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        assert run(client, sources, Rows(), stop=stop).images == 0


@pytest.mark.parametrize("address", ["local:", "local:0", "local:x", "localhost"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="local:N"), connect(address):
        pass


def test_connect_starts_a_cluster(photographs, expected):
    with connect("local:1", device="cpu") as client:
        sink = Rows()
        run(client, photographs[:6], sink)
    assert_same(sink.written, {source.name: expected[source.name] for source in photographs[:6]})


# Parts, which the tasks write themselves


def assert_each_once(folder, expected):
    rows = list(read(folder))
    assert sorted(name for name, _, _ in rows) == sorted(expected)
    for name, shape, features in rows:
        assert shape == expected[name][1]
        np.testing.assert_array_equal(features.positions, expected[name][0].positions)
        np.testing.assert_array_equal(features.descriptors, expected[name][0].descriptors)


def test_tasks_write_parts_and_the_next_run_goes_on(client, photographs, expected, tmp_path):
    url = f"file://{tmp_path}/out"
    first = extract(photographs[:11], client, url, parameters=PARAMETERS, batch_size=4)
    second = extract(photographs, client, f"parquet:{url}", parameters=PARAMETERS, batch_size=4)
    assert (first.images, second.images, second.skipped) == (11, 29, 11)
    assert first.keypoints + second.keypoints == sum(len(features) for features, _ in expected.values())
    assert len(list(tmp_path.glob("out/part-*.parquet"))) == 3 + 8
    assert_each_once(tmp_path / "out", expected)
    with pytest.raises(SettingsDiffer, match="n_octaves was 2, is 3"):
        extract(photographs, client, url, parameters={**PARAMETERS, "n_octaves": 3})


def test_failures_are_kept_and_tried_again_when_asked(client, photographs, expected, tmp_path):
    url = f"file://{tmp_path}/out"
    sources = [*photographs[:3], Source("late.png", str(tmp_path / "late.png"))]
    assert extract(sources, client, url, parameters=PARAMETERS).failures == 1
    assert [record["name"] for record in read_failures(tmp_path / "out" / "_failures.jsonl")] == ["late.png"]
    assert extract(sources, client, url, parameters=PARAMETERS).failed_before == 1

    os.link(photographs[3].url, tmp_path / "late.png")
    assert extract(sources, client, url, parameters=PARAMETERS, retry_failed=True).images == 1
    wanted = {source.name: expected[source.name] for source in photographs[:3]}
    assert_each_once(tmp_path / "out", {**wanted, "late.png": expected[photographs[3].name]})
    assert not list(read_failures(tmp_path / "out" / "_failures.jsonl"))


def test_killed_workers_leave_each_image_once(cluster, client, photographs, expected, tmp_path):
    client.register_plugin(Deadly(), name="deadly")
    sources = [*photographs[:9], Source("deadly.jpg", "kill://deadly.jpg"), *photographs[9:]]
    killed = []

    def kill(event):
        """Kill a worker that lives: one may have ended with the deadly image, another be on its way up."""
        if event["event"] == "image" and not killed:
            for nanny in list(cluster.workers.values()):
                with suppress(ProcessLookupError):
                    if nanny.pid and not killed:
                        os.kill(nanny.pid, signal.SIGKILL)
                        killed.append(nanny.pid)

    url = f"file://{tmp_path}/out"
    summary = extract(sources, client, url, parameters=PARAMETERS, batch_size=4, on_event=kill)
    client.unregister_worker_plugin("deadly")
    assert killed
    assert (summary.images, summary.failures) == (40, 1)
    assert_each_once(tmp_path / "out", expected)


class Lost:
    """A future whose worker was lost after its result, or error, had come."""

    def __init__(self, key):
        self.key, self.status = key, "pending"


class Told:
    """Tells of the ends of tasks, as `distributed.as_completed` does."""

    def __init__(self, ends):
        self.ends = ends

    def has_ready(self):
        return bool(self.ends)

    def __next__(self):
        return self.ends.pop(0)


@pytest.mark.parametrize("result", [[], ["a result"], (RuntimeError, RuntimeError("of a task"), None)], ids=str)
def test_the_event_decides_what_came_of_a_task(client, photographs, result):
    """Not the future's state, which the loss of its worker changes."""
    tasks = Tasks(client, len, threading.Event())
    tasks._completed = Told([(Lost("x"), result)])
    tasks._sent["x"] = None, photographs[:4], False
    batch, results = tasks.next()
    assert batch == photographs[:4]
    assert results == (result if isinstance(result, list) else None)


@pytest.mark.parametrize("seed", range(3))
def test_each_image_once_though_workers_are_lost_and_results_wait(
    cluster, client, photographs, expected, tmp_path, seed
):
    """Results wait behind a slow log, while workers are killed, stopped and continued at random."""
    chance, signals = random.Random(seed), (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL)

    def wake(pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def disturb(event):
        time.sleep(0.01)
        if event["event"] == "image" and chance.random() < 0.15:
            nanny = chance.choice(list(cluster.workers.values()))
            with suppress(ProcessLookupError):
                if nanny.pid:
                    os.kill(nanny.pid, chance.choice(signals))
                    threading.Timer(0.3, wake, [nanny.pid]).start()

    url = f"file://{tmp_path}/out"
    with dask.config.set({"distributed.scheduler.allowed-failures": 20}):
        summary = extract(photographs, client, url, parameters=PARAMETERS, batch_size=3, on_event=disturb)
    assert (summary.images, summary.failures) == (40, 0)
    assert_each_once(tmp_path / "out", expected)
    assert len(list(tmp_path.glob("out/part-*.parquet"))) == 14
    assert not list(tmp_path.glob("out/_pending-*"))
