"""An output is one, by whatever path it is reached: one writer at a time, one journal, one record of failures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpusift.sinks import OutputInUseError, open_sink
from gpusift.storage import transaction
from tests.support.sink_writer import OUTPUTS, SETTINGS, SHAPE, check, features_of

FILES = [output for output in OUTPUTS if output.endswith((".h5", ".db"))]


def by_another_path(output: Path, how: str, monkeypatch) -> Path:
    """Return another path of an output, which is there."""
    other = output.parent / "other" / output.name
    other.parent.mkdir(exist_ok=True)
    if how == "symlink":
        other.symlink_to(output)
    elif how == "symlink to the folder":
        other = output.parent / "link" / output.name
        other.parent.symlink_to(output.parent)
    elif how == "relative":
        monkeypatch.chdir(other.parent)
        return Path("..", "other", "..", output.name)
    else:
        os.link(output, other)
    return other


def fill(output: Path, *names: str) -> None:
    sink = open_sink(output, SETTINGS)
    for name in names:
        sink.write(name, features_of(name), SHAPE)
    sink.close()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("how", ["symlink", "symlink to the folder", "relative", "hard link"])
def test_a_second_writer_is_refused_by_any_path(tmp_path, monkeypatch, output, how):
    if how == "hard link" and output not in FILES:
        pytest.skip("a folder has no hard links")
    path = tmp_path / output
    fill(path, "a.png")
    other = by_another_path(path, how, monkeypatch)
    first = open_sink(path, SETTINGS)
    with pytest.raises(OutputInUseError):
        open_sink(other, SETTINGS)
    first.close()
    fill(other, "b.png")
    assert set(check(path)) == {"a.png", "b.png"}
    again = open_sink(other, SETTINGS)
    with pytest.raises(OutputInUseError):
        open_sink(path, SETTINGS)
    again.close()


@pytest.mark.parametrize("how", ["symlink", "symlink to the folder", "relative", "hard link"])
def test_a_commit_that_was_interrupted_is_completed_by_any_path(tmp_path, monkeypatch, how):
    path = tmp_path / "f.h5"
    fill(path, "a.png")
    other = by_another_path(path, how, monkeypatch)
    sink = open_sink(path, SETTINGS)
    sink.write("b.png", features_of("b.png"), SHAPE)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "_apply", stop)
        with pytest.raises(KeyboardInterrupt):
            sink.commit()
    assert transaction.has_journal(path)
    fill(other, "c.png")
    assert not transaction.has_journal(path)
    assert set(check(path)) == {"a.png", "b.png", "c.png"}


@pytest.mark.parametrize("output", FILES)
def test_failures_are_beside_the_file_itself(tmp_path, monkeypatch, output):
    path = tmp_path / output
    fill(path, "a.png")
    other = by_another_path(path, "symlink", monkeypatch)
    sink = open_sink(other, SETTINGS)
    sink.failures.add("bad.png", "/bad.png", "is bad")
    sink.close()
    sink = open_sink(path, SETTINGS)
    assert "bad.png" in sink.failures
    sink.close()
    assert [each.name for each in other.parent.iterdir()] == [output]


def test_a_file_that_is_overwritten_is_locked_too(tmp_path):
    path = tmp_path / "f.h5"
    fill(path, "a.png")
    sink = open_sink(path, SETTINGS, overwrite=True)
    os.link(path, tmp_path / "g.h5")
    with pytest.raises(OutputInUseError):
        open_sink(tmp_path / "g.h5", SETTINGS)
    sink.close()
