"""Where images come from, and what they are called: files, folders, globs and lists."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.sources import Source, SourceFailure, expand, fetch, wrong_name
from tests.support.image_tree import IMAGES, content, found, make_tree


@pytest.fixture
def tree(tmp_path, monkeypatch):
    return make_tree(tmp_path, monkeypatch)


def test_folders(tree):
    assert found("p") == (IMAGES, [])
    assert found("p", recursive=False) == (["a.png", "b.JPG"], [])
    assert found("p", pattern="*.txt") == (["note.txt"], [])
    assert found("p", pattern="a.*") == (["a.png", "s/a.png", "s/t/a.tif"], [])
    assert found(f"file://{tree}/p") == (IMAGES, [])
    assert found("p", root=str(tree)) == ([f"p/{name}" for name in IMAGES], [])


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("p/*", IMAGES),
        ("p/**", IMAGES),
        ("p/*.png", ["a.png"]),
        ("p/**/*.png", ["a.png", "s/a.png"]),
        ("p/*/*", ["s/a.png", "s/t/a.tif"]),
        ("p/**/t", ["s/t/a.tif"]),
        ("p/**/**/t/**", ["s/t/a.tif"]),
        ("[pq]/a.png", ["p/a.png", "q/a.png"]),
        ("p/?.???", ["a.png", "b.JPG"]),
    ],
)
def test_globs(tree, glob, names):
    assert found(glob) == (names, [])


def test_a_glob_below_folders_that_match_only(tree):
    assert found("p/*", recursive=False) == (["a.png", "b.JPG", "s/a.png"], [])
    assert found("p/*.gif") == ([], ["no image file matches"])


def test_several_places_and_what_comes_twice(tree):
    assert found("p", "p/a.png", "./p/../p/s", "q/*") == ([f"p/{name}" for name in IMAGES] + ["q/a.png"], [])
    assert found("p/s", "none", "q") == (["p/s/a.png", "p/s/t/a.tif", "q/a.png"], ["no such file or folder"])
    with pytest.raises(ValueError, match="must lie under root q"):
        expand(["p"], root="q")


def test_a_link_to_a_folder_is_left_out_and_one_to_a_file_is_read(tree):
    (tree / "p" / "s" / "up").symlink_to(tree / "p")  # round and round
    (tree / "p" / "s" / "z.png").symlink_to(tree / "p" / "s" / "a.png")
    assert [one.name for one in expand(["p/s"])] == ["a.png", "z.png", "t/a.tif"]


def test_a_list_in_a_file(tree):
    lines = [
        "p/a.png",
        "",
        f"{tree}/q/a.png\r",
        "p/none.png",
        "p/[x].png",
        "p/a.png",
        "p/\0.png",
        "x" * 70_000,
        "p/b.JPG",
    ]
    (tree / "list").write_text("\n".join(lines))
    got = list(expand([], files_from="list"))
    names = [one.name for one in got if isinstance(one, Source)]
    assert names == ["p/a.png", "q/a.png", "p/none.png", "p/[x].png", "p/b.JPG"]
    assert [one.reason[:20] for one in got if isinstance(one, SourceFailure)] == [
        "a path must not hold",
        "a line must have les",
    ]
    with pytest.raises(FileNotFoundError):
        fetch(next(one for one in got if one.name == "p/none.png"))
    with pytest.raises(FileNotFoundError):
        expand([], files_from="none")


def test_a_list_cannot_lead_names_out(tree):
    (tree / "list").write_text(f"p/../../../etc/passwd\n{tree}/p/s/../a.png\n/etc/hostname\nzip://../a.png::p.zip\n")
    got = list(expand([], files_from="list", root=str(tree)))
    assert [one.name for one in got if isinstance(one, Source)] == ["p/a.png"]
    everywhere = [one for one in expand([], files_from="list") if isinstance(one, Source)]
    assert not any(wrong_name(one.name) for one in everywhere)
    assert all(one.url.endswith(one.name) for one in everywhere)


def test_a_list_on_standard_input(tree):
    code = "import sys; from gpusift.sources import *; print([s.name for s in expand(sys.argv[1:], files_from='-')])"
    for arguments in ([], ["-"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], input=b"p/a.png\nq/gr\xfc\xdfe.png\n", capture_output=True
        )
        assert done.stdout == b"['p/a.png', 'q/gr\\udcfc\\udcdfe.png']\n", done.stderr


def test_a_list_from_a_pipe(tree):
    os.mkfifo(tree / "pipe")
    writer = threading.Thread(target=(tree / "pipe").write_text, args=("p/a.png\np/s/a.png\n",))
    writer.start()
    assert found(files_from="pipe") == (["p/a.png", "p/s/a.png"], [])
    writer.join()


@pytest.mark.parametrize("path", ["none", "p", "memory://none", "nosuch://list", "zip://list::p/a.png"])
def test_a_list_that_cannot_be_read(tree, path):
    with pytest.raises(OSError, match=r"."):
        expand([], files_from=path)


def test_a_long_list_is_not_held_in_memory(tmp_path):
    n = 20_000
    (tmp_path / "list").write_text("".join(f"/data/photographs/of/some/length/{i:09}.jpg\n" for i in range(n)))
    tracemalloc.start()
    try:
        count = sum(isinstance(one, Source) for one in expand([], files_from=str(tmp_path / "list")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == n
    assert peak < 1_000_000  # bytes: the names alone take twice as much


def test_folders_are_searched_while_images_are_taken(tree):
    images = expand(["p"])
    assert next(images).name == "a.png"
    (tree / "p" / "s" / "late.png").write_bytes(content("late.png"))
    assert [one.name for one in images] == ["b.JPG", "s/a.png", "s/late.png", "s/t/a.tif"]


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("/\\.:\0"), max_size=20))
def test_a_name_that_passes_stays_in_its_folder(name):
    if wrong_name(name) is None:
        for style in (name, name.replace("\\", "/")):
            inside = os.path.normpath(os.path.join("/out", style))
            assert inside.startswith("/out/")
            assert inside == f"/out/{style}"  # two names are two files


@pytest.mark.parametrize(
    "name",
    ["", "/a", "../a", "a/../../b", "a/..", "a//b", "./a", "a/.", "..\\a", "a\\..\\b", "C:a", "c:/a", "\\\\host\\a"],
)
def test_a_name_that_leads_out(name):
    assert wrong_name(name).startswith("a name must stay within a folder")


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x1b[2J", "a" * 231, "é" * 120, "a/" * 1001 + "a", "\ud800"])
def test_a_name_that_cannot_be_a_files(name):
    assert wrong_name(name).startswith("a name must ")


@pytest.mark.parametrize(
    "name", ["a", "..a", "a..", "...", "a/b c/d.jpg", "grüße 画像.jpg", "\udcff.jpg", "ab:c", "a" * 230]
)
def test_a_name_that_is_fine(name):
    assert wrong_name(name) is None
