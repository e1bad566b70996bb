"""`extract`, the one call of a job: settings and failures follow from its arguments, and the sink is always closed."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import gpusift
from gpusift import SIFT, hdf5, profiles
from gpusift.images import read_image
from gpusift.sinks import SettingsDiffer, failures, open_sink
from gpusift.sinks.base import settings_in
from gpusift.sources import BaseDiffersError, Source, SourceFailure, expand
from gpusift.stream import RunError, extract, settings_of
from tests.support.pictures import blobs

PARAMETERS = {**profiles.arguments_of("colmap"), "device": "cpu", "n_octaves": 2}  # of .h5 files


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), blobs(index))
    monkeypatch.chdir(tmp_path)
    return folder


def names_in(path: str) -> set[str]:
    with h5py.File(path) as file:
        return set(file)


@pytest.mark.parametrize("sift", [PARAMETERS, SIFT(**PARAMETERS)], ids=["mapping", "SIFT"])
def test_what_is_recorded_is_what_was_computed(photos, sift):
    assert extract(photos, "f.h5", sift).images == 4
    with h5py.File("f.h5") as file:
        settings = settings_of(PARAMETERS, exif_orientation=False)
        assert settings_in(file.attrs["gpusift"]) == {**settings, "base": str(photos)}
        image = read_image(photos / "0.png")
        expected = hdf5.hloc_arrays(SIFT(**PARAMETERS).compute(image), image.shape, "root")
        for key, array in expected.items():
            np.testing.assert_array_equal(file["0.png"][key], array)
    assert extract(photos, "f.h5", PARAMETERS).skipped == 4
    with pytest.raises(SettingsDiffer, match="n_octaves was 2, is 3"):
        extract(photos, "f.h5", SIFT.colmap(device="cpu", n_octaves=3))
    with pytest.raises(SettingsDiffer, match="max_size was null, is 50"):
        extract(photos, "f.h5", sift, max_size=50)
    assert extract(photos, "f.h5", SIFT.colmap(device="cpu", n_octaves=3), overwrite=True).images == 4


@pytest.mark.parametrize("sources", ["folder", "path", "list", "expanded", "sources"])
def test_images_are_given_as_paths_or_as_sources(photos, sources):
    given = {
        "folder": str(photos),
        "path": photos / "0.png",
        "list": [photos / "0.png", str(photos / "1.png")],
        "expanded": expand([str(photos)]),
        "sources": [Source("x", str(photos / "0.png")), SourceFailure("y", "is not there")],
    }[sources]
    assert extract(given, "f.h5", PARAMETERS).images == {"path": 1, "list": 2, "sources": 1}.get(sources, 4)


def test_several_devices(photos):
    events = []
    assert extract(photos, "f.h5", {"n_octaves": 2}, devices="cpu,cpu", on_event=events.append).images == 4
    assert events[0]["device"] == "cpu, cpu"
    assert extract(photos, "f.h5", PARAMETERS).skipped == 4
    with pytest.raises(TypeError, match="sift must be keyword arguments of SIFT with devices"):
        extract(photos, "g.h5", SIFT(**PARAMETERS), devices=["cpu"])
    with pytest.raises(ValueError, match="upsampling must be"):
        extract(photos, "g.h5", {"upsampling": 3}, devices=["cpu"])


def test_failures_are_recorded_and_tried_again_when_asked(photos):
    (photos / "4.png").touch()
    assert extract(photos, "f.h5", PARAMETERS).failures == 1
    assert [record["name"] for record in failures.read("f.h5.failures.jsonl")] == ["4.png"]
    assert extract(photos, "f.h5", PARAMETERS).failed_before == 1
    cv2.imwrite(str(photos / "4.png"), blobs(4))
    assert extract(photos, "f.h5", PARAMETERS, retry_failed=True).images == 1
    assert not Path("f.h5.failures.jsonl").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("kind", ["start", "image"])
def test_the_output_is_closed_whatever_happens(photos, error, kind):
    def fail(event):
        if event["event"] == kind:
            raise error

    with pytest.raises((error, RunError)):
        extract(photos, "f.h5", PARAMETERS, on_event=fail)
    assert not Path("f.h5.lock").exists()
    open_sink("f.h5", settings_of(PARAMETERS, exif_orientation=False)).close()
    assert extract(photos, "f.h5", PARAMETERS).seen == 4
    assert names_in("f.h5") == {f"{index}.png" for index in range(4)}


def test_a_stop_set_before_anything_computes_nothing(photos):
    stop = threading.Event()
    stop.set()
    assert extract(photos, "f.h5", PARAMETERS, stop=stop).images == 0
    assert extract(photos, "f.h5", PARAMETERS).seen == 4


def test_a_url_is_refused_without_a_cluster(photos):
    with pytest.raises(ValueError, match=r"output must be a path on this machine, got 'memory://x'; .* Dask cluster"):
        extract(photos, "memory://x", PARAMETERS)


def test_it_is_found_on_top(photos):
    assert gpusift.extract is extract


@pytest.mark.parametrize("output", ["f.h5", "f.db", "f.parquet", "f"])
def test_names_do_not_depend_on_what_else_is_there(photos, output):
    """The first run sees one folder; the next one two, and names stay relative to the folder of the first."""
    (photos / "2025").mkdir()
    (photos / "0.png").rename(photos / "2025" / "0.png")
    parameters = {**PARAMETERS, "descriptor_layout": "ubc"}
    assert extract([photos / "2025" / "0.png"], output, parameters, exif_orientation=False).images == 1
    again = extract([photos / "2025"], output, parameters, exif_orientation=False)
    assert (again.images, again.skipped) == (0, 1)
    with pytest.raises(BaseDiffersError, match=rf"relative to the same folder .*2025, got images in {photos}"):
        extract([photos], output, parameters, exif_orientation=False)
    with pytest.raises(BaseDiffersError, match="relative to the same folder"):
        extract(expand([str(photos)]), output, parameters, exif_orientation=False)
    assert extract([photos], output, parameters, exif_orientation=False, overwrite=True).images == 4
