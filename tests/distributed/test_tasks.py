"""Waiting for the tasks of a cluster, and for the sources that they compute."""

import threading

import pytest

from gpusift.distributed import _SourceBatches, tasks
from gpusift.sources import Source

distributed = pytest.importorskip("distributed")


def test_an_error_of_the_thread_that_takes_sources_is_raised():
    sources = iter([Source("a", "a"), Source("b", "b")])

    def take():
        for source in sources:
            return source
        raise MemoryError

    batches = _SourceBatches(take, 2)
    assert [source.name for source in batches.next(wait=True)] == ["a", "b"]
    with pytest.raises(MemoryError):
        batches.next(wait=True)
    assert batches.next(wait=True) == []


def test_a_run_that_waits_for_workers_says_so(monkeypatch):
    monkeypatch.setattr(tasks, "WORKERLESS_SECONDS", 0.05)
    halt, messages = threading.Event(), []

    def stop(message):
        messages.append(message)
        halt.set()

    monkeypatch.setattr(tasks._log, "warning", stop)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        sent = tasks.Tasks(client, len, halt)
        sent.send([Source("a", "a")])
        assert sent.next() == ([], [])
    assert messages == ["the cluster has no worker left; the run waits until one joins"]
