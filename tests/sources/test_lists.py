"""Lists of paths as editors and shells of all systems write them."""

from __future__ import annotations

import codecs
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.sources import Limits, SourceFailure, expand
from gpusift.sources.limits import DEFAULT_LIMITS
from gpusift.sources.lists import lines_of, open_list

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
ENDS = ["\n", "\r\n"]
# Not those of a line's end, nor a byte order mark.
LINE = st.text(st.characters(exclude_characters="\0\r\n\ufeff", exclude_categories=["Cs"]), max_size=30)


def lines(path, **limits) -> list[str]:
    with open_list(str(path), Limits(**limits)) as file:
        first = list(lines_of(file))
        assert list(lines_of(file)) == first  # a list is read twice
    assert all(line.reason is None for line in first)
    return [line.text for line in first]


@given(st.lists(LINE, max_size=20), st.sampled_from(ENCODINGS), st.sampled_from(ENDS), st.booleans())
def test_a_list_in_any_encoding(tmp_path_factory, wanted, encoding, end, whole):
    path = tmp_path_factory.mktemp("list") / "l"
    path.write_bytes((end.join(wanted) + end * whole).encode(encoding))
    assert lines(path) == [line for line in wanted if line]


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE + "a\r\nb\r\n".encode("utf-16-be")])
def test_big_endian(tmp_path, mark):
    (tmp_path / "l").write_bytes(mark)
    assert lines(tmp_path / "l") == ["a", "b"]


def test_lines_are_numbered(tmp_path):
    (tmp_path / "l").write_bytes(b"\n\na\n\r\n" + b"b" * 70_000 + b"\nc")
    with open_list(str(tmp_path / "l"), DEFAULT_LIMITS) as file:
        assert [(line.number, line.text[0]) for line in lines_of(file)] == [(3, "a"), (5, "b"), (6, "c")]


def test_bytes_that_are_no_text_are_paths(tmp_path):
    (tmp_path / "l").write_bytes(b"caf\xe9.png\n\xef\xbb\xbf.png\n")
    assert lines(tmp_path / "l") == [os.fsdecode(b"caf\xe9.png"), "\ufeff.png"]


def test_a_list_that_is_not_what_its_mark_says(tmp_path):
    (tmp_path / "l").write_bytes(codecs.BOM_UTF16_LE + b"a\0\0\xdc")
    with pytest.raises(OSError, match="must be valid utf-16"):
        open_list(str(tmp_path / "l"), DEFAULT_LIMITS)


def test_the_bytes_of_a_list_are_limited(tmp_path):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "l").write_text("a.png\n" * 100, encoding)
        with pytest.raises(OSError, match=r"must stay within 500 \(limit list_bytes\)"):
            open_list(str(tmp_path / "l"), Limits(list_bytes=500))


def test_an_archive_in_a_list_is_told_how_to_be_given(tmp_path):
    (tmp_path / "l").write_text("a.tgz\nb.zip\n")
    got = list(expand([], files_from=str(tmp_path / "l")))
    assert all(isinstance(each, SourceFailure) and "give it as an argument" in each.reason for each in got)
    assert len(got) == 2


@pytest.mark.parametrize(("text", "field", "value"), [("entries=10", "entries", 10), ("depth=5", "depth", 5)])
def test_limits_are_told_by_text(text, field, value):
    assert getattr(Limits.parse((text,)), field) == value


@pytest.mark.parametrize("text", ["", "entries", "depth=", "entries=0", "depth=-1", "entries=x", "depth=1.5", "n=1"])
def test_wrong_limits(text):
    with pytest.raises(ValueError, match="limit"):
        Limits.parse((text,))
