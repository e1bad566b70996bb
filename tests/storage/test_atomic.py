"""Files are written whole or not at all."""

from __future__ import annotations

import fcntl
import os

import pytest

from gpusift.storage.atomic import Lock, remove_temporaries, write_at, write_whole


def test_a_file_is_made_and_replaced(tmp_path):
    for data in (b"first", b"second"):
        write_whole(tmp_path / "new" / "a.png", data)
        assert (tmp_path / "new" / "a.png").read_bytes() == data
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_was_there_stays_until_the_new_is_whole(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")

    def fail(source, target):
        assert path.read_bytes() == b"precious"
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_whole(path, b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.png", b"precious")]


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in (".a[1].png.123.tmp", ".a[1].png.tmp", ".a1.png.123.tmp", "a[1].png"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path / "a[1].png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a1.png.123.tmp", ".a[1].png.tmp", "a[1].png"]


def test_a_lock_is_held_by_one(tmp_path):
    lock = Lock(tmp_path / "new" / "lock")
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "new" / "lock")
    lock.release()
    lock.release()
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "new" / "lock").touch()  # as a killed process leaves it
    Lock(tmp_path / "new" / "lock").release()


def test_a_lock_that_is_removed_while_another_waits_is_taken_anew(tmp_path, monkeypatch):
    """Between the opening of the file and its locking the holder may have removed it."""
    first, flock, calls = Lock(tmp_path / "lock"), fcntl.flock, []

    def release_first(descriptor, how):
        if not calls:
            first.release()
        calls.append(how)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", release_first)
    second = Lock(tmp_path / "lock")
    assert len(calls) == 2
    assert (tmp_path / "lock").exists()
    second.release()


def test_write_at_writes_all(tmp_path, monkeypatch):
    """The system may take less than it is given."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))
    with open(tmp_path / "a", "wb") as file:
        write_at(file.fileno(), b"0123456789", 2)
    assert (tmp_path / "a").read_bytes() == b"\0\x000123456789"
