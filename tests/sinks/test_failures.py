"""The file of failures, and sets of names on the disk."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gpusift.sinks.failures import Failures, read
from gpusift.storage.name_set import NameSet


def names_in(path) -> list[str]:
    return [record["name"] for record in read(path)]


def test_a_record(tmp_path):
    failures = Failures(tmp_path / "new" / "f.jsonl")
    assert not (tmp_path / "new").exists()
    failures.add("a/ü\udcff.jpg", "http://host/ü", "line\nbreak")
    [line] = (tmp_path / "new" / "f.jsonl").read_text("ascii").splitlines()
    record = json.loads(line)
    assert record.pop("time").startswith("2")
    assert record == {"name": "a/ü\udcff.jpg", "url": "http://host/ü", "reason": "line\nbreak"}
    assert "a/ü\udcff.jpg" in failures


def test_half_a_line_is_no_record(tmp_path):
    path = tmp_path / "f.jsonl"
    failures = Failures(path)
    for name in ("a", "b", "c"):
        failures.add(name, "", "bad")
    whole = path.read_bytes()
    for cut in range(1, 30):
        path.write_bytes(whole[:-cut])
        failures = Failures(path)
        assert [name in failures for name in "abc"] == [True, True, cut == 1]
        failures.add("d", "", "bad")
        assert names_in(path) == (["a", "b", "c", "d"] if cut == 1 else ["a", "b", "d"])


def test_other_lines_are_no_records(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'[]\n{"name": 1}\n\xff\n\n{"name": "a", "url": "", "reason": "", "time": ""}\n')
    assert names_in(path) == ["a"]
    assert "a" in Failures(path)


def test_what_succeeded_is_taken_out_and_the_file_with_the_last(tmp_path):
    path, done = tmp_path / "f.jsonl", set()
    failures = Failures(path, done)
    failures.add("a", "", "bad")
    failures.add("b", "", "bad")
    failures.close()
    done.add("a")
    Failures(path, done).close()
    assert names_in(path) == ["b"]
    done.add("b")
    Failures(path, done).close()
    assert not list(tmp_path.iterdir())


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=6), max_size=20), st.text(max_size=3))
def test_names_are_a_set(given_names, other):
    names = NameSet()
    names.update(given_names[:10])
    names.update(name for name in given_names[10:])
    assert len(names) == len(set(given_names))
    assert all(name in names for name in given_names)
    assert (other in names) == (other in given_names)
    names.close()
