"""Lists of pairs: those of COLMAP's own matchers, and how they are cut."""

from __future__ import annotations

import os

import cv2  # noqa: F401 - before pycolmap, see gpusift.sinks.colmap.cameras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.colmap import pairs
from gpusift.matching.blocks import blocks


@pytest.mark.parametrize(("count", "overlap"), [(2, 10), (9, 1), (9, 2), (30, 3), (30, 10)])
def test_kinds_are_colmaps(tmp_path, count, overlap):
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")
    names = [f"{i:02}.png" for i in range(count)]
    with pycolmap.Database.open(tmp_path / "c.db") as database:
        database.write_camera(pycolmap.Camera.create_from_model_name(0, "SIMPLE_PINHOLE", 1.0, 1, 1))
        for name in names:
            database.write_image(pycolmap.Image(name=name, camera_id=1))
        options = pycolmap.SequentialPairingOptions(overlap=overlap, quadratic_overlap=False)
        sequence = pycolmap.SequentialPairGenerator(options, database).all_pairs()
        every = pycolmap.ExhaustivePairGenerator(pycolmap.ExhaustivePairingOptions(), database).all_pairs()
    for theirs, ours in ((sequence, pairs.sequential(names, overlap)), (every, pairs.exhaustive(names))):
        numbers = [(names.index(a) + 1, names.index(b) + 1) for a, b in ours]
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) == {(min(pair), max(pair)) for pair in theirs}


def test_few_images():
    for names in ([], ["a"]):
        assert pairs.exhaustive(names) == pairs.sequential(names) == []
    assert pairs.sequential(["b", "c", "a"], 1) == [("a", "b"), ("b", "c")]


def test_a_list_in_a_file(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("# comment\n\n a.png b.png\nb.png\ta c.png\na c.png  a.png\n", encoding="utf-8")
    assert pairs.read(path, ["a.png", "b.png", "a c.png"]) == [
        ("a.png", "b.png"),
        ("b.png", "a c.png"),
        ("a c.png", "a.png"),
    ]


@pytest.mark.parametrize("line", ["a", "a a", "a d", "a b c", "a,b", "x y z"])
def test_a_wrong_line_in_a_file(tmp_path, line):
    """The last could be "x" and "y z", or "x y" and "z"."""
    path = tmp_path / "pairs.txt"
    path.write_text(f"a b\n{line}\n")
    with pytest.raises(ValueError, match=rf"line 2: must be the names of two different images, .*, got '{line}'"):
        pairs.read(path, ["a", "b", "c", "x", "y z", "x y", "z"])


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        pairs.choose("pairs", ["a", "b"], pairs=tmp_path / "none.txt")


@given(
    st.lists(st.tuples(*[st.integers(0, 20).map("{:02}".format)] * 2).filter(lambda p: p[0] != p[1])), st.integers(1, 6)
)
def test_blocks_are_all_the_pairs(listed, size):
    found = []
    for names, numbers in blocks(listed, size):
        assert len(set(names)) == len(names) <= 2 * size
        assert {i for pair in numbers for i in pair} == set(range(len(names)))
        found += [(names[i], names[j]) for i, j in numbers]
    assert sorted(found) == sorted(listed)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_list_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "pairs.txt"
    path.write_bytes("é.png b.png\r\nb.png 画.png\r\n".encode(encoding))
    assert pairs.read(path, ["é.png", "b.png", "画.png"]) == [("é.png", "b.png"), ("b.png", "画.png")]


def test_a_name_that_is_not_utf_8_is_told_with_the_file(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"\ncaf\xe9.png b.png\n")
    assert pairs.read(path, [os.fsdecode(b"caf\xe9.png"), "b.png"]) == [(os.fsdecode(b"caf\xe9.png"), "b.png")]
    with pytest.raises(ValueError, match=r"pairs.txt, line 2: .* got 'caf\\udce9.png b.png'"):
        pairs.read(path, ["café.png", "b.png"])
