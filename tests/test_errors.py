"""What a person or a log reads: one printable line."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.errors import escaped, reason_of

# What file names can hold, as Python has it.
names = st.binary(min_size=1, max_size=40).map(os.fsdecode) | st.text(max_size=40)


@given(names)
def test_escaped_text_is_printable_utf_8_and_stays_as_it_is(name):
    text = escaped(name)
    assert text.isprintable()
    text.encode()
    assert escaped(text) == text
    assert escaped(f"failed: {name}: reason") == f"failed: {text}: reason"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("grüße 画像.jpg", "grüße 画像.jpg"),
        (unicodedata.normalize("NFD", "é"), unicodedata.normalize("NFD", "é")),
        (os.fsdecode(b"\xe9t\xe9.jpg"), r"\xe9t\xe9.jpg"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x85\x9b2J", r"\x85\x9b2J"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(name, expected):
    assert escaped(name) == expected


@given(names)
def test_a_reason_is_one_printable_line(name):
    errors: list[Exception] = [ValueError(f"got {name}"), OSError(5, f"cannot read {name}"), RuntimeError(name)]
    for error in errors:
        reason = reason_of(error)
        assert reason
        assert reason.isprintable()
        reason.encode()


def test_a_name_that_cannot_be_encoded_is_told():
    with pytest.raises(UnicodeEncodeError) as raised:
        os.fsdecode(b"caf\xe9").encode()
    assert reason_of(raised.value) == r"must be valid UTF-8, got 'caf\udce9'"
