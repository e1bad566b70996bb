"""A new format is one class and one entry in the table: nothing else knows the formats by name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from gpusift import sinks
from gpusift.cli.job import IMAGES_FAILED
from gpusift.sinks import Format, RefusedImageError, SettingsDiffer, Store
from gpusift.sinks.base import record_of, settings_in
from gpusift.stream import extract
from tests.support.command import run
from tests.support.pictures import blobs


class CountsStore:
    """Lines of JSON: an image's name and its number of keypoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = {json.loads(line)["name"] for line in path.read_text().splitlines()[1:]}
        self.lines: list[str] = []

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def write(self, name, features, image_shape, url):
        if name.startswith("_"):
            raise RefusedImageError("name must not begin with _")
        self.lines.append(json.dumps({"name": name, "n": len(features), "url": url}))

    def commit(self):
        with self.path.open("a") as file:
            file.write("".join(f"{line}\n" for line in self.lines))
        self.names |= {json.loads(line)["name"] for line in self.lines}
        self.lines = []

    def finish(self): ...

    def abandon(self): ...


class CountsFormat:
    name = "counts"
    suffixes = (".counts",)
    failures_file = None
    sift_parameters = {"n_octaves": 2}  # noqa: RUF012
    exif_orientation = False
    max_size = None

    def own_files(self, path):
        return []

    def settle(self, settings):
        return {"digits": 3, **settings}

    def recorded_settings(self, path):
        return settings_in(path.read_text().splitlines()[0]) if path.exists() else None

    def clear(self, path):
        path.unlink(missing_ok=True)

    def open_store(self, path, settings) -> Store:
        if not path.exists():
            path.write_text(record_of(settings) + "\n")
        return CountsStore(path)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b", "_c"):
        cv2.imwrite(str(folder / f"{name}.png"), blobs(len(name)))
    monkeypatch.chdir(tmp_path)
    formats: tuple[Format, ...] = (*sinks.FORMATS[:-1], CountsFormat(), sinks.FORMATS[-1])
    monkeypatch.setattr(sinks, "FORMATS", formats)
    return folder


@pytest.mark.parametrize("output", ["out.counts", "counts:out.txt"])
def test_it_is_chosen_by_suffix_or_name_resumed_and_refused(photos, output):
    first = extract(photos, output, {"device": "cpu"})
    assert (first.images, first.failures) == (2, 1)
    record, *lines = Path(output.removeprefix("counts:")).read_text().splitlines()
    settings = settings_in(record)
    assert (settings["n_octaves"], settings["exif_orientation"], settings["digits"]) == (2, False, 3)
    assert sorted(json.loads(line)["name"] for line in lines) == ["a.png", "b.png"]
    again = extract(photos, output, {"device": "cpu"})
    assert (again.images, again.skipped, again.failed_before) == (0, 2, 1)
    with pytest.raises(SettingsDiffer, match="digits was 3, is 4"):
        extract(photos, output, {"device": "cpu"}, format_settings={"digits": 4})


def test_the_command_writes_it_too(photos):
    result = run("extract", photos, "-o", "out.counts", "--device", "cpu")
    assert result.exit_code == IMAGES_FAILED
    assert "name must not begin with _" in result.stderr
    assert result.stdout.startswith("2 of 3 images, ")
