"""Names of files are bytes from strangers: each is extracted or a recorded failure, and no run ends by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import cv2
import h5py
import pytest

from gpusift import parquet
from gpusift.sinks import failures
from tests.support.pictures import blobs

NAMES = [
    b"\xe9t\xe9.png",
    b"\xff\xfe.png",
    b"line\nfeed.png",
    b"tab\tand\x1b[2J\x07.png",
    b"\xc2\x9b2J.png",  # C1
    "gnp.\u202ecod.png".encode(),
    "a\u2028b.png".encode(),
    unicodedata.normalize("NFC", "é.png").encode(),
    unicodedata.normalize("NFD", "é.png").encode(),
    b"x" * 251 + b".png",
    b"y" * 226 + b".png",
    b"back\\slash.png",
    b"C:drive.png",
    b"%s %d {0} $HOME `id`.png",
    b"-o.png",
    b"[*].png",
]
PLAIN = [f"{i}.png" for i in range(3)]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    picture = cv2.imencode(".png", blobs(0))[1].tobytes()
    for name in [*NAMES, *(plain.encode() for plain in PLAIN)]:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(picture)
    with open(os.path.join(os.fsencode(folder), b"\xe9 bad\n\x1b.jpg"), "wb") as file:
        file.write(b"no picture")
    return folder


def extract(photos: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    code = "from gpusift.cli import main; main()"
    command = [sys.executable, "-c", code, "extract", "p", "--upsampling", "1", *arguments]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=photos.parent, capture_output=True, env=environment, timeout=120)


def results(output: Path) -> set[str]:
    """Names of the images in a sink."""
    if output.suffix == ".h5":
        found = set()
        with h5py.File(output) as file:
            file.visit(lambda name: found.add(name.removesuffix("/keypoints")) if name.endswith("/keypoints") else None)
        return found
    if output.suffix == ".parquet":
        return {name for name, _, _ in parquet.read(output)}
    if output.suffix == ".db":
        from gpusift.colmap import import_pycolmap

        with import_pycolmap().Database.open(output) as database:
            return {image.name for image in database.read_all_images()}
    return {path.name.removesuffix(".npz") for path in output.glob("*.npz")}


@pytest.mark.parametrize("output", ["f.h5", "f.parquet", "f.db", "f"])
def test_any_name_is_extracted_or_a_recorded_failure(photos, output):
    done = extract(photos, "-o", output, "--log-json", "log")
    path = photos.parent / output
    (record,) = path.glob("*failures.jsonl") if path.is_dir() else path.parent.glob(f"{output}.failures.jsonl")
    assert done.returncode, done.stderr
    for text in (done.stdout, done.stderr):
        assert all(line.isprintable() for line in text.decode().split("\n"))
    for line in (photos.parent / "log").read_text().splitlines():
        event = json.loads(line)
        assert all(value.isprintable() for value in event.values() if isinstance(value, str))
    names = {os.fsdecode(name) for name in NAMES}
    failed = {each["name"].removeprefix(f"{photos}/") for each in failures.read(record)}
    assert results(path) | failed == names | set(PLAIN) | {os.fsdecode(b"\xe9 bad\n\x1b.jpg")}
    assert not results(path) & failed
    assert set(PLAIN) <= results(path)
    again = extract(photos, "-o", output)
    assert again.returncode
    assert b"0 of" in again.stdout
    assert failed == {each["name"].removeprefix(f"{photos}/") for each in failures.read(record)}


def test_a_name_in_a_message_of_the_command_is_printable(photos):
    for arguments in (["-o", b"\xe9\n\x1b/none/f.h5"], ["-o", "f.h5", "--files-from", b"\xe9\n\x1b"]):
        done = extract(photos, *map(os.fsdecode, arguments))
        assert done.returncode
        assert b"Traceback" not in done.stderr
        message = done.stderr.decode().splitlines()[-1]
        assert message.isprintable()
