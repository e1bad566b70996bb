"""Files are written whole or not at all."""

from __future__ import annotations

import os

import pytest

from gpusift.files import write_whole


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
