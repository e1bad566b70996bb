"""An exception at any line of a commit or of opening: nothing is lost or doubled, and the sink is closed."""

from __future__ import annotations

import errno
import gc
import logging
import sqlite3
import sys
from pathlib import Path

import pytest

from gpusift import parquet
from gpusift.sinks import ClosedSinkError, failures, open_sink
from gpusift.sinks.parquet import write_file
from tests.support.sink_writer import OUTPUTS, PACKAGE, SETTINGS, SHAPE, at_line, check, features_of, name_of

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

ERRORS = [
    KeyboardInterrupt(),
    MemoryError(),
    sqlite3.OperationalError("database or disk is full"),
    OSError(errno.EIO, "EIO"),
]
MODULES = {str(path) for folder in ("sinks", "storage") for path in (PACKAGE / folder).rglob("*.py")}
MODULES |= {str(PACKAGE / "npz.py"), str(PACKAGE / "hdf5.py")}
MODULES -= {str(PACKAGE / "sinks" / "failures.py")}
STEP = 7  # every line would take a minute


@pytest.fixture(params=OUTPUTS)
def output(request, quick_path) -> Path:
    return quick_path / request.param


# What HDF5 calls back: errors of writing are kept there, see `TransactionalFile.write`.
CALLED_BACK = {"write", "truncate", "flush", "_to_disk"}


def raised_at(line: int, error: BaseException, call) -> bool:
    """Call, with an error at a line; return whether it was raised."""
    raised = False

    def fail() -> None:
        nonlocal raised
        raised = True
        raise error

    at_line(line, fail, MODULES, CALLED_BACK)
    try:
        call()
    except BaseException as caught:
        # An OSError says that the sink is closed; HDF5 makes a SystemError of what its callbacks raise.
        assert caught is error or isinstance(caught, (OSError, SystemError))  # noqa: PT017
    finally:
        sys.settrace(None)
    return raised


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_at_any_line_of_a_commit(output, error):
    committed, n, line = {name_of(0)}, 1, 0
    sink = open_sink(output, SETTINGS)
    sink.write(name_of(0), features_of(name_of(0)), SHAPE)
    sink.close()
    while True:
        sink = open_sink(output, SETTINGS)
        new = name_of(n)
        sink.write(new, features_of(new), SHAPE)
        raised = raised_at(line, error, sink.commit)
        sink.close()  # which an error has done already, unless it came before anything was begun
        found = check(output)  # each name once, and right
        assert committed <= set(found) <= committed | {new}
        committed, n, line = set(found), n + 1, line + STEP
        if not raised:
            assert new in found
            break
    assert line > 3 * STEP


def test_a_sink_that_failed_refuses_more(output, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    sink = open_sink(output, SETTINGS)
    sink.write(name_of(0), features_of(name_of(0)), SHAPE)
    if output.suffix == ".db":
        monkeypatch.setattr(sink._store, "_write", lambda *image: full(0))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device; what was committed is kept"):
        sink.commit()
    monkeypatch.undo()
    for use in (sink.commit, lambda: sink.write(name_of(1), features_of(name_of(1)), SHAPE)):
        with pytest.raises(ClosedSinkError, match="must be open, but it is closed"):
            use()
    assert name_of(0) not in sink
    sink.close()
    assert not check(output)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file may be open, but not named yet
def test_at_any_line_of_opening(output):
    """What it has opened is closed: the next one opens it, and the process lives."""
    sink = open_sink(output, SETTINGS)
    sink.write(name_of(0), features_of(name_of(0)), SHAPE)
    sink.close()
    line, sinks = 0, []
    while raised_at(line, OSError(errno.ENOSPC, "full"), lambda: sinks.append(open_sink(output, SETTINGS))):
        line += STEP
        gc.collect()  # an exception in the release of a lock itself: the lock ends with the exception's traceback
        open_sink(output, SETTINGS).close()
        assert set(check(output)) == {name_of(0)}
    sinks.pop().close()
    assert not sinks


def test_half_a_record_of_a_failure_does_not_spoil_the_next(output, monkeypatch):
    sink = open_sink(output, SETTINGS)
    real = failures.write_at

    def interrupted(descriptor, data, offset):
        real(descriptor, data[: len(data) // 2], offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(failures, "write_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sink.failures.add("a", "a", "is bad")
    monkeypatch.undo()
    sink.failures.add("b", "b", "is bad")
    sink.close()
    assert [record["name"] for record in failures.read(sink.failures.path)] == ["b"]


def test_what_is_there_twice_is_given_once_and_told(tmp_path, caplog):
    folder = tmp_path / "p.parquet"
    open_sink(folder, SETTINGS).close()
    rows = [(name, features_of(name), SHAPE) for name in ("a", "b", "c")]
    for name, part in (("part-x.parquet", rows[:2]), ("part-y.parquet", rows[1:])):
        write_file(folder, name, part, SETTINGS)
    with caplog.at_level(logging.WARNING, "gpusift"):
        assert [name for name, _, _ in parquet.read(folder)] == ["a", "b", "c"]
        assert "has the image b more than once" in caplog.text
        caplog.clear()
        sink = open_sink(folder, SETTINGS)
        assert "has 1 results of images that it has already" in caplog.text
    assert all(name in sink for name in "abc")
    sink.close()
