"""Copies within the host's memory: the same bytes in any number of threads, whatever happens to a thread."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift.devices import CpuDevice, host_copies

SHAPES = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple)
DTYPES = st.sampled_from([np.uint8, np.int16, np.float64])


@pytest.fixture
def threads(monkeypatch):
    """Four threads share each copy, in pieces of a few bytes."""
    monkeypatch.setattr(host_copies, "_n_threads", lambda: 4)
    monkeypatch.setattr(host_copies, "LEAST_BYTES", 0)
    monkeypatch.setattr(host_copies, "LEAST_PIECE", 1)


def pairs_of(n):
    """Pairs of an array of zeros and a random one."""
    sources = [np.random.default_rng(seed).integers(0, 255, (300, 7), np.uint8) for seed in range(n)]
    return [(np.zeros_like(source), source) for source in sources]


def size_of(pairs):
    """Bytes of pairs."""
    return sum(source.nbytes for _, source in pairs)


class InAnotherThread:
    """An executor that has ended each call when `submit` returns."""

    def submit(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        thread.join()


class OfNoThread:
    """An executor that fails as Python's does when no thread can be started."""

    def submit(self, function, *arguments):
        raise RuntimeError("can't start new thread")


class Late:
    """An executor that keeps its calls."""

    def __init__(self, calls):
        self.calls = calls

    def submit(self, function, *arguments):
        self.calls.append(lambda: function(*arguments))


@given(
    shapes=st.lists(st.tuples(SHAPES, DTYPES), max_size=5),
    least=st.integers(0, 20000),
    piece=st.integers(1, 5000),
    n_threads=st.integers(1, 4),
    turned=st.booleans(),
)
@settings(deadline=None)
def test_any_arrays_are_copied_in_any_number_of_threads(shapes, least, piece, n_threads, turned):
    draw = np.random.default_rng(0)
    sources = [draw.integers(0, 255, shape).astype(dtype) for shape, dtype in shapes]
    sources = [source[::-1].T if turned else source for source in sources]
    surroundings = [np.full(source.nbytes + 16, 7, np.uint8) for source in sources]
    pairs = [
        (memory[8:-8].view(source.dtype).reshape(source.shape), source)
        for memory, source in zip(surroundings, sources, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_copies, "_n_threads", lambda: n_threads)
        patch.setattr(host_copies, "LEAST_BYTES", least)
        patch.setattr(host_copies, "LEAST_PIECE", piece)
        host_copies.copy(pairs, size_of(pairs))
    for memory, (to, source) in zip(surroundings, pairs, strict=True):
        np.testing.assert_array_equal(to, source)
        assert set(memory[:8]) | set(memory[-8:]) == {7}


def test_a_large_copy_is_shared_and_a_small_one_is_not(monkeypatch):
    monkeypatch.setattr(host_copies, "_n_threads", lambda: 4)
    monkeypatch.setattr(host_copies, "_helpers", OfNoThread)
    shared = []
    monkeypatch.setattr(host_copies, "_share", lambda pieces: shared.append(len(pieces)))
    for size in (host_copies.LEAST_BYTES - 1, host_copies.LEAST_BYTES, 100 << 20):
        host_copies.copy([(np.empty(size, np.uint8), np.broadcast_to(np.uint8(0), size))], size)
    assert shared == [3, 8]


@pytest.mark.parametrize("executor", [InAnotherThread, OfNoThread])
def test_whichever_thread_copies(threads, monkeypatch, executor):
    monkeypatch.setattr(host_copies, "_helpers", executor)
    pairs = pairs_of(3)
    host_copies.copy(pairs, size_of(pairs))
    for to, source in pairs:
        np.testing.assert_array_equal(to, source)


@pytest.mark.parametrize("executor", [InAnotherThread, OfNoThread])
def test_the_error_of_a_thread_is_raised_when_the_others_have_ended(threads, monkeypatch, executor):
    monkeypatch.setattr(host_copies, "_helpers", executor)
    pairs = pairs_of(3)
    pairs[1][0].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        host_copies.copy(pairs, size_of(pairs))
    for to, source in pairs[::2]:
        np.testing.assert_array_equal(to, source)


def test_an_interrupted_copy_leaves_no_piece_to_another_thread(threads, monkeypatch):
    """Python raises KeyboardInterrupt in the main thread only, which may be in the middle of a piece then."""
    later = []
    monkeypatch.setattr(host_copies, "_helpers", lambda: Late(later))
    copyto = np.copyto
    calls = iter(range(2))

    def interrupted(to, source):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        copyto(to, source)

    pairs = pairs_of(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "copyto", interrupted)
        with pytest.raises(KeyboardInterrupt):
            host_copies.copy(pairs, size_of(pairs))
    for call in later:
        call()
    assert later
    assert not pairs[-1][0].any()


def test_the_cpu_device_copies_in_the_thread_that_waits(threads, monkeypatch):
    monkeypatch.setattr(host_copies, "_share", None)
    array = np.arange(5)
    kept = CpuDevice().keep(array)
    np.testing.assert_array_equal(kept, array)
    assert not np.shares_memory(kept, array)


BEGIN = """
import os, threading
import numpy as np
from gpusift.devices import host_copies

def copies():
    source = np.arange(1 << 20)
    to = np.zeros_like(source)
    host_copies.copy([(to, source)], source.nbytes)
    return (to == source).all()

host_copies._n_threads = lambda: 4
assert copies()
"""
AFTER_A_FORK = """
child = os.fork()
if child == 0:
    has_threads = host_copies._helpers().submit(lambda: True).result(60)
    os._exit(0 if copies() and has_threads else 1)
assert copies()
print("copied" if os.waitpid(child, 0)[1] == 0 else "failed")
"""
AT_THE_END = """
def late():
    threading.main_thread().join()
    print("copied" if copies() else "failed")

threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("script", [AFTER_A_FORK, AT_THE_END], ids=["fork", "end of the interpreter"])
def test_a_process_in_which_the_threads_have_ended(script):
    done = subprocess.run(
        [sys.executable, "-Wignore", "-c", BEGIN + script], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("copied\n", "")
