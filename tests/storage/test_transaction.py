"""Files that change by transactions: what is read, and what is on the disk at any moment."""

from __future__ import annotations

import io
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.storage import transaction
from gpusift.storage.transaction import FOOTER, PAGE, TransactionalFile, has_journal, recover
from tests.support import sink_writer

PLACES = st.integers(0, 3 * PAGE)
STEPS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.binary(min_size=1, max_size=2 * PAGE)),
    st.tuples(st.just("read"), PLACES, st.integers(0, 2 * PAGE)),
    st.tuples(st.just("truncate"), PLACES, st.just(0)),
    st.tuples(st.just("commit"), st.just(0), st.just(0)),
)
VERSIONS = ("v108", "v108")


@given(st.binary(max_size=2 * PAGE), st.lists(STEPS, max_size=12))
def test_it_is_a_file_that_the_disk_sees_at_commits(start, steps):
    """What follows on the disk meanwhile is gone when it is closed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(start)
        file, model = TransactionalFile(path), io.BytesIO(start)
        disk = start
        for step, place, what in steps:
            if step == "write":
                for each in (file, model):
                    each.seek(place)
                    each.write(what)
            elif step == "read":
                file.seek(place)
                model.seek(place)
                assert file.read(what) == model.read(what)
                assert file.tell() == max(model.tell(), place)
            elif step == "truncate":
                file.truncate(place)
                model.truncate(place)
                model.write(bytes(max(place - model.seek(0, os.SEEK_END), 0)))
            else:
                file.commit()
                disk = model.getvalue()
                assert path.read_bytes() == disk
            assert path.read_bytes()[: len(disk)] == disk
            assert file.seek(0, os.SEEK_END) == len(model.getvalue())
        file.close()
        assert path.read_bytes() == disk
        assert os.listdir(folder) == ["f"]


def test_what_is_appended_takes_no_memory(tmp_path):
    path, piece, times = tmp_path / "f", bytes(1 << 20), 20
    path.write_bytes(bytes(10 * PAGE))
    file = TransactionalFile(path)
    with traced() as peak:
        file.seek(8 * PAGE)
        for _ in range(times):
            file.write(piece)
        file.commit()
    assert path.stat().st_size == 8 * PAGE + times * len(piece)
    assert peak() < 16 * PAGE
    file.close()


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Give what tells the largest number of bytes that Python and NumPy have held at once meanwhile."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_killed_at_any_line_it_is_as_before_or_as_after(quick_path):
    """Every line of a commit: before the journal is whole nothing has changed, afterwards all of it does."""
    before = bytes(range(256)) * 80
    path, seen, codes = quick_path / "f", [], []
    after = bytearray(before)
    for place in sink_writer.PLACES:
        after[place : place + 15] = b"new" * 5
    while not codes or codes[-1]:
        path.write_bytes(before)
        process = sink_writer.start(sink_writer.change, str(path), len(codes))
        process.join()
        codes.append(process.exitcode)
        torn = path.read_bytes()[: len(before)] not in (before, after[: len(before)])
        assert not torn or has_journal(path)
        recover(path)
        assert [each.name for each in quick_path.iterdir()] == ["f"]
        found = path.read_bytes()
        assert found[: len(before)] in (before, bytes(after[: len(before)]))
        seen.append((torn, found == after))
    assert set(codes) == {-9, 0}
    assert len(codes) > 30
    assert {(False, False), (True, True), (False, True)} <= set(seen)
    assert sorted(after for _, after in seen) == [after for _, after in seen]


def interrupted(path: Path, before: bytes) -> bytes:
    """Make a file whose commit was interrupted when its journal was complete; return what it becomes."""
    path.write_bytes(before)
    file, after = TransactionalFile(path), b"new" + before[3:] + b"more"
    file.write(b"new")
    file.seek(0, os.SEEK_END)
    file.write(b"more")

    def stop(*arguments):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "_apply", stop)
        with pytest.raises(KeyboardInterrupt):
            file.commit()
    file.close()
    assert has_journal(path)
    return after


@given(st.data())
def test_a_journal_that_is_not_whole_counts_for_nothing(tmp_path_factory, data):
    """Cut anywhere, or with any byte of it changed, it changes no committed byte."""
    path, before = tmp_path_factory.mktemp("torn") / "f", b"old" * PAGE
    after = interrupted(path, before)
    whole = path.read_bytes()
    size = len(whole) - len(after)
    if data.draw(st.booleans()):
        damaged = whole[: -data.draw(st.integers(1, size))]
    else:
        damaged = bytearray(whole)
        damaged[-data.draw(st.integers(1, size))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    recover(path)
    assert path.read_bytes() == damaged
    assert path.read_bytes()[: len(before)] == before
    path.write_bytes(whole)
    recover(path)
    assert path.read_bytes() == after
    recover(path)
    assert path.read_bytes() == after


@given(st.binary(max_size=300))
def test_any_other_file_is_not_changed(tmp_path_factory, content):
    """Also one that ends as a journal does."""
    path = tmp_path_factory.mktemp("foreign") / "f"
    for data in (content, content + FOOTER.pack(0, 0, 0, transaction.MAGIC)):
        path.write_bytes(data)
        before = path.stat()
        recover(path)
        assert path.read_bytes() == data
        assert path.stat() == before or path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_copy_and_a_link_have_the_journal_too(tmp_path):
    path = tmp_path / "f"
    after = interrupted(path, b"old" * PAGE)
    (tmp_path / "copy").write_bytes(path.read_bytes())
    (tmp_path / "soft").symlink_to("f")
    os.link(path, tmp_path / "hard")
    for name in ("copy", "soft", "hard"):
        recover(tmp_path / name)
        assert (tmp_path / name).read_bytes() == after
    assert path.read_bytes() == after


def test_a_backup_that_was_put_back_is_not_changed(tmp_path):
    path, backup = tmp_path / "f", b"backup" * PAGE
    interrupted(path, b"old" * PAGE)
    path.write_bytes(backup)
    recover(path)
    assert path.read_bytes() == backup


@pytest.mark.parametrize(
    "call",
    [(os, "fsync"), (os, "pwrite"), (os, "ftruncate"), (transaction, "_apply")],
    ids=lambda call: call[1],
)
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_commit_that_fails_anywhere_is_done_or_not(tmp_path, monkeypatch, call, error):
    """And the file takes no more, so that `recover` finds what it was left with."""
    path, before = tmp_path / "f", b"old" * PAGE
    after = b"new" + before[3:-PAGE] + b"n"  # longer for a while, and shorter in the end
    done, number = [], 0
    while True:
        path.write_bytes(before)
        file = TransactionalFile(path)
        file.write(b"new")
        file.seek(len(before))
        file.write(b"more")
        file.truncate(len(before) - PAGE)
        file.seek(0, os.SEEK_END)
        file.write(b"n")
        with monkeypatch.context() as patch:
            fail_at(patch, *call, number, error)
            with suppress(OSError, KeyboardInterrupt):
                file.commit()
        with suppress(OSError):
            file.check()
            break
        file.seek(0)
        file.write(b"late")
        file.seek(0, os.SEEK_END)
        file.write(b"late")
        with pytest.raises(OSError, match=r"now|a commit was interrupted"):
            file.commit()
        file.close()
        recover(path)
        assert path.read_bytes()[: len(after)] in (before[: len(after)], after)
        done.append(path.read_bytes()[: len(after)] == after)
        if not done[-1]:
            assert path.read_bytes() == before
        number += 1
    file.close()
    assert path.read_bytes() == after
    assert done
    assert sorted(done) == done


def fail_at(patch: pytest.MonkeyPatch, owner: object, name: str, number: int, error: type[BaseException]) -> None:
    """Have the call of that number of a function raise an error."""
    real, calls = getattr(owner, name), count()

    def fail(*arguments, **options):
        if next(calls) == number:
            raise error("now")
        return real(*arguments, **options)

    patch.setattr(owner, name, fail)


def test_h5py_works_on_it(tmp_path):
    """Groups that grow, shrink and are replaced, over many transactions; plain h5py reads each of them.

    It does so at any moment: before a commit the file is as it was, but longer.
    """
    path, rng = tmp_path / "f.h5", np.random.default_rng(0)
    with h5py.File(path, "w", libver=VERSIONS):
        pass
    disk = TransactionalFile(path)
    expected: dict[str, np.ndarray] = {}
    with h5py.File(disk, "r+", libver=VERSIONS) as file:
        for step in range(60):
            committed = dict(expected)
            for _ in range(rng.integers(1, 6)):
                name = f"{rng.integers(4)}/{rng.integers(30)}"
                if name in file:
                    del file[name]
                expected[name] = rng.integers(0, 99, int(rng.integers(0, 3000)))
                file[name] = expected[name]
            file.flush()
            if step % 6 == 0:
                check(path, committed)
            disk.commit()
            if step % 6 == 0:
                check(path, expected)
    disk.commit()
    disk.close()
    check(path, expected)


def test_h5py_cuts_off_what_follows(tmp_path):
    """What a process has appended that was stopped: plain h5py reads the file, and what comes next takes its place."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=VERSIONS) as file:
        file["a"] = np.arange(1000)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 100_000)
    check(path, {"a": np.arange(1000)}, group="/")
    disk = TransactionalFile(path)
    with h5py.File(disk, "r+", libver=VERSIONS) as file:
        file.flush()
        disk.commit()
        assert path.read_bytes() == whole
        file["b"] = np.arange(2000)
    disk.commit()
    disk.close()
    assert path.stat().st_size < len(whole) + 20_000
    check(path, {"a": np.arange(1000), "b": np.arange(2000)}, group="/")


def test_h5py_on_a_full_disk(tmp_path, monkeypatch):
    """It is told nothing, and comes to its end in peace; the file is as before, and as long."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=VERSIONS) as file:
        file["a"] = np.arange(1000)
    whole = path.read_bytes()
    disk = TransactionalFile(path)
    file = h5py.File(disk, "r+", libver=VERSIONS)
    with monkeypatch.context() as patch:
        fail_at(patch, os, "pwrite", 2, OSError)
        for i in range(20):
            file[f"b/{i}"] = np.arange(100 * i)
            file.flush()
    with pytest.raises(OSError, match="now"):
        disk.check()
    file.close()
    with pytest.raises(OSError, match="now"):
        disk.commit()
    assert len(path.read_bytes()) > len(whole)
    disk.close()
    assert path.read_bytes() == whole


def check(path: Path, expected: dict[str, np.ndarray], group: str | None = None) -> None:
    with h5py.File(path) as file:
        assert sum(len(each) for each in ([file[group]] if group else file.values())) == len(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(file[name], array)
