"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import h5py
import pytest

from gpusift.storage.atomic import Lock, remove_temporaries, replacing, write_at, write_whole


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
    for name in (".a[1].png.x1_y.tmp", ".a[1].png.tmp", ".a1.png.123.tmp", "a[1].png"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path / "a[1].png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a1.png.123.tmp", ".a[1].png.tmp", "a[1].png"]


@pytest.mark.parametrize("name", ["a", "x" * 255, "é" * 127, "[*].png"])
def test_a_temporary_file_is_this_users_alone_and_goes_away(tmp_path, name):
    path, names = tmp_path / name, set()
    for _ in range(5):
        with replacing(path) as temporary:
            assert temporary.parent == tmp_path
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
            names.add(temporary.name)
            temporary.write_bytes(b"new")
        assert [each.name for each in tmp_path.iterdir()] == [name]
        with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
            raise KeyboardInterrupt
        assert [each.name for each in tmp_path.iterdir()] == [name]
    assert len(names) == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # as if the process were killed
        with pytest.raises(KeyboardInterrupt), replacing(path):
            raise KeyboardInterrupt
    left = [each for each in tmp_path.iterdir() if each != path]
    assert len(left) == 1
    remove_temporaries(path)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_a_file_has_the_permissions_of_a_new_one_or_those_that_it_had(tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a", b"first")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == expected
        (tmp_path / "a").chmod(0o640)
        write_whole(tmp_path / "a", b"second")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("fault", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_folders_is_written_to(tmp_path, monkeypatch, fault):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(fault, os.strerror(fault))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "a", b"first")
    assert (tmp_path / "a").read_bytes() == b"first"
    fault = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "a", b"second")


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_to_with_a_warning(tmp_path, monkeypatch, caplog, fault):
    def refuse(*_):
        raise OSError(fault, os.strerror(fault))

    (tmp_path / "f").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    lock = Lock(tmp_path / "lock", tmp_path / "f")
    assert "cannot lock files" in caplog.text
    lock.release()
    assert [each.name for each in tmp_path.iterdir()] == ["f"]
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        Lock(tmp_path / "lock")


def test_a_lock_is_that_of_the_file_by_whatever_name(tmp_path):
    (tmp_path / "f").touch()
    os.link(tmp_path / "f", tmp_path / "hard")
    (tmp_path / "folder").mkdir()
    os.link(tmp_path / "f", tmp_path / "folder" / "f")
    lock = Lock(tmp_path / "f.lock", tmp_path / "f")
    lock.hold(tmp_path / "f")
    for name in ("hard", "folder/f"):
        with pytest.raises(BlockingIOError):
            Lock(tmp_path / f"{name}.lock", tmp_path / name)
        assert not (tmp_path / f"{name}.lock").exists()
    lock.release()
    Lock(tmp_path / "hard.lock", tmp_path / "hard").release()


def test_a_lock_of_a_file_that_was_made_or_replaced_meanwhile(tmp_path):
    lock = Lock(tmp_path / "f.lock", tmp_path / "f")
    for _ in range(2):
        write_whole(tmp_path / "f", b"new")
        lock.hold(tmp_path / "f")
        (tmp_path / "hard").unlink(missing_ok=True)
        os.link(tmp_path / "f", tmp_path / "hard")
        with pytest.raises(BlockingIOError):
            Lock(tmp_path / "hard.lock", tmp_path / "hard")
    lock.release()


def test_a_locked_file_is_read_and_written_by_hdf5_and_sqlite(tmp_path):
    """They lock it, too, in ways of their own."""
    for name in ("f.h5", "f.db"):
        (tmp_path / name).touch()
        lock = Lock(tmp_path / "lock", tmp_path / name)
        if name == "f.h5":
            with h5py.File(tmp_path / name, "w", locking=True) as file:
                file["a"] = 1
        else:
            with closing(sqlite3.connect(tmp_path / name)) as database:
                database.execute("CREATE TABLE a (b)")
                database.commit()
        lock.release()


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
