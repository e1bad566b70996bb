"""Files that change by transactions: what is read, and what is on the disk at any moment."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import sink_writer
from hypothesis import given
from hypothesis import strategies as st

from gpusift.transaction import PAGE, TransactionalFile, journal_of, recover

PLACES = st.integers(0, 3 * PAGE)
STEPS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.binary(min_size=1, max_size=2 * PAGE)),
    st.tuples(st.just("read"), PLACES, st.integers(0, 2 * PAGE)),
    st.tuples(st.just("commit"), st.just(0), st.just(0)),
)


@given(st.binary(max_size=2 * PAGE), st.lists(STEPS, max_size=12))
def test_it_is_a_file_that_the_disk_sees_at_commits(start, steps):
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
            else:
                file.commit()
                disk = model.getvalue()
            assert path.read_bytes() == disk
            assert file.seek(0, os.SEEK_END) == len(model.getvalue())
        file.close()
        assert os.listdir(folder) == ["f"]


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
        assert not torn or journal_of(path).exists()
        recover(path)
        assert [each.name for each in quick_path.iterdir()] == ["f"]
        found = path.read_bytes()
        assert found[: len(before)] in (before, bytes(after[: len(before)]))
        seen.append((torn, found == after))
    assert set(codes) == {-9, 0}
    assert len(codes) > 30
    assert {(False, False), (True, True), (False, True)} <= set(seen)
    assert sorted(after for _, after in seen) == [after for _, after in seen]


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: data[:-1] + b"x"])
def test_a_journal_that_is_not_whole_counts_for_nothing(tmp_path, monkeypatch, damage):
    path = tmp_path / "f"
    path.write_bytes(bytes(PAGE))
    file = TransactionalFile(path)
    file.write(b"new")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", stop)
        with pytest.raises(KeyboardInterrupt):
            file.commit()
    file.close()
    whole = journal_of(path).read_bytes()
    journal_of(path).write_bytes(damage(whole))
    recover(path)
    assert path.read_bytes() == bytes(PAGE)
    journal_of(path).write_bytes(whole)
    recover(path)
    assert path.read_bytes() == b"new".ljust(PAGE, b"\0")
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_h5py_works_on_it(tmp_path):
    """Groups that grow, shrink and are replaced, over many transactions; plain h5py reads each of them."""
    path, rng = tmp_path / "f.h5", np.random.default_rng(0)
    with h5py.File(path, "w", libver=("v108", "v108")):
        pass
    disk = TransactionalFile(path)
    expected: dict[str, np.ndarray] = {}
    with h5py.File(disk, "r+", libver=("v108", "v108")) as file:
        for step in range(60):
            for _ in range(rng.integers(1, 6)):
                name = f"{rng.integers(4)}/{rng.integers(30)}"
                if name in file:
                    del file[name]
                expected[name] = rng.integers(0, 99, int(rng.integers(0, 3000)))
                file[name] = expected[name]
            file.flush()
            disk.commit()
            if step % 6 == 0:
                check(path, expected)
    disk.commit()
    disk.close()
    check(path, expected)


def check(path: Path, expected: dict[str, np.ndarray]) -> None:
    with h5py.File(path) as file:
        assert sum(len(group) for group in file.values()) == len(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(file[name], array)
