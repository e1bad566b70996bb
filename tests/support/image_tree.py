"""A tree of files, and the names of the images in it."""

from __future__ import annotations

from pathlib import Path

from gpusift.sources import Source, expand, fetch

TREE = ("p/a.png", "p/b.JPG", "p/note.txt", "p/s/a.png", "p/s/t/a.tif", "q/a.png", "p/.hidden.png", "p/.thumbs/a.png")
IMAGES = ["a.png", "b.JPG", "s/a.png", "s/t/a.tif"]


def content(name: str) -> bytes:
    return f"what is in {name}".encode()


def make_tree(folder: Path, monkeypatch) -> Path:
    """Write images into a folder, and make it the current folder."""
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content(name))
    monkeypatch.chdir(folder)
    return folder


def found(*arguments: str, **options) -> tuple[list[str], list[str]]:
    """Return the names of sources, after a check of their content, and the reasons of failures."""
    names, reasons = [], []
    for one in expand(arguments, **options):
        if isinstance(one, Source):
            assert fetch(one).decode().endswith(one.name.rpartition("/")[2])
            names.append(one.name)
        else:
            reasons.append(one.reason)
    return names, reasons
