"""Paths and URLs as people and programs write them."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.sources import Source, SourceFailure, expand
from gpusift.sources.locations import Location
from tests.support.image_tree import IMAGES, content, found, make_tree


@pytest.fixture
def tree(tmp_path, monkeypatch):
    return make_tree(tmp_path, monkeypatch)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_the_url_of_any_file_is_that_file(name):
    path = Path(os.path.abspath(os.path.join("/nowhere", name)))
    assert Location.parse(path.as_uri()) == Location(str(path))


@pytest.mark.parametrize("url", ["file://{}", "file:{}", "file://localhost{}", "local://{}", "zip://x.png::file://{}"])
def test_a_files_url_is_percent_encoded(tree, url):
    folder = tree / "my photos" / "ä"
    folder.mkdir(parents=True)
    (folder / "b c.png").write_bytes(content("b c.png"))
    quoted = (folder / "b c.png").as_uri().removeprefix("file://")
    if url.startswith("zip"):
        with zipfile.ZipFile(tree / "my photos" / "1.zip", "w") as archive:
            archive.writestr("x.png", content("x.png"))
        quoted = (tree / "my photos" / "1.zip").as_uri().removeprefix("file://")
    assert len(found(url.format(quoted))[0]) == 1


def test_a_file_that_is_called_as_the_url_is_written_is_found(tree):
    (tree / "100%20.png").write_bytes(content("100%20.png"))
    assert found(f"file://{tree}/100%20.png") == (["100%20.png"], [])
    assert found((tree / "100%20.png").as_uri()) == (["100%20.png"], [])


SIGNED = [
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101&X-Amz-Signature={}",
    "AWSAccessKeyId=A&Expires=1&Signature={}%2B/=",
    "X-Goog-Algorithm=GOOG4&X-Goog-Signature={}",
    "sv=2022-11-02&st=1&se=2&sr=b&sp=r&sig={}/b%3D",
    "Expires=1&Key-Pair-Id=K&Policy=P_&Signature={}~",
    "x-oss-signature-version=OSS4&x-oss-signature={}",
    "alt=media&token={}",
]


@pytest.mark.parametrize("query", SIGNED)
def test_a_signature_is_no_part_of_a_name(tree, query):
    for signature in ("a" * 64, "b2"):
        url = f"https://host/p/a.png?{query.format(signature)}"
        (tree / "list").write_text(f"{url}\nhttps://host/p/b.png?{query.format('c')}\n")
        got = list(expand([], files_from="list"))
        assert [each.name for each in got] == ["p/a.png", "p/b.png"]
        assert got[0].url == url
        (one,) = expand([url])
        assert one == Source("a.png", url)


@given(st.sampled_from(SIGNED), st.sampled_from(["https://host/p/a.png", "zip://s/a.png::https://host/b.zip"]))
def test_a_signature_is_not_in_the_public_url(query, url):
    signed = f"{url}?{query.format('secret')}"
    assert Source("a.png", signed).public_url == url
    assert Source("a.png", url).public_url == url
    assert Source("a.png", f"{url}?id=1").public_url == f"{url}?id=1"


def test_another_query_says_which_picture_it_is(tree):
    (tree / "list").write_text("https://host/view?id=1#top\nhttps://host/view?id=2\n")
    assert [each.name for each in expand([], files_from="list")] == ["view?id=1", "view?id=2"]


def archived(path: Path) -> Path:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in IMAGES:
                archive.write(f"p/{name}", name)
    else:
        compression = {"t": "gz", "g": "gz", "b": "bz2", "x": "xz"}.get(path.name.lower().rpartition(".")[2][0], "")
        compression = "" if path.suffix.lower() == ".tar" else compression
        with tarfile.open(path, f"w:{compression}") as archive:
            for name in IMAGES:
                archive.add(f"p/{name}", name)
    return path


@pytest.mark.parametrize(
    "name", ["a.zip", "A.ZIP", "a.tar", "a.tgz", "a.tar.gz", "a.tbz2", "a.tar.bz2", "a.txz", "a.tar.xz", "a b.tgz"]
)
def test_an_archive_is_opened_by_its_path(tree, name):
    archived(tree / name)
    assert found(name) == (IMAGES, [])
    assert found(name, "q") == ([*(f"{name}/{image}" for image in IMAGES), "q/a.png"], [])
    assert found((tree / name).as_uri()) == (IMAGES, [])
    assert found(name, pattern="*.tif") == (["s/t/a.tif"], [])


def test_a_tar_that_is_compressed_without_saying_so(tree):
    archived(tree / "a.tgz").rename("a.tar")
    assert found("a.tar") == (IMAGES, [])


@pytest.mark.parametrize(
    ("name", "advice"), [("a.rar", "extract this one first"), ("a.7z", "extract"), ("a.tar.zst", "extract")]
)
def test_other_archives_are_told_what_to_do(tree, name, advice):
    (tree / name).touch()
    (failure,) = expand([name])
    assert isinstance(failure, SourceFailure)
    assert advice in failure.reason


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_no_archive_by_the_name_of_one(tree, name):
    (tree / name).write_bytes(b"something else, of some length" * 100)
    (failure,) = expand([name])
    assert "cannot open the archive" in failure.reason


def test_what_is_left_out_is_counted(tree):
    for name in ("p/x.jfif", "p/x.JIF", "p/x.j2k", "p/x.txt", "p/x", "p/.x.txt", "p/s/x.TXT"):
        (tree / name).write_bytes(content(name.rpartition("/")[2]))
    images = expand(["p"])
    assert {each.name for each in images} == {*IMAGES, "x.jfif", "x.JIF", "x.j2k"}
    assert images.left_out == {".txt": 3, "": 1}
