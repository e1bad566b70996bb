"""Faults of the machine end a run with what was wrong; no sound image is recorded as failed; the next run does all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from gpusift import images
from gpusift.errors import is_of_machine
from gpusift.pipeline import computation
from gpusift.pipeline.computation import Way
from gpusift.sinks import failures
from gpusift.sources import Source
from gpusift.stream import RunError, extract, worker
from tests.support.pictures import blobs

PARAMETERS = {"device": "cpu", "n_octaves": 2}
N_IMAGES = 6


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(N_IMAGES):
        cv2.imwrite(str(folder / f"{index}.png"), blobs(index))
    monkeypatch.chdir(tmp_path)
    return folder


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


FAULTS = [
    *map(system_error, (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)),
    MemoryError(),
    ImportError("lib"),
]
FAULTS += [OSError("libx.so: cannot open shared object file: No such file or directory")]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("where", ["fetch", "decode", "list"])
def test_a_fault_ends_the_run_and_is_no_images(photos, monkeypatch, fault, where):
    def fail(*arguments, **options):
        raise fault

    with monkeypatch.context() as patched:
        target = {"fetch": "gpusift.images.reader.fetch", "list": "gpusift.sources.search.list_folder"}
        patched.setattr(target.get(where, "gpusift.images.decode"), fail)
        with pytest.raises(RunError, match=r"a fault of this machine, or a limit, met at .*photos"):
            extract(photos, "f.h5", PARAMETERS)
    assert not list(failures.read("f.h5.failures.jsonl"))
    assert extract(photos, "f.h5", PARAMETERS).images == N_IMAGES


@pytest.mark.parametrize(
    "fault", [ImportError("Install s3fs"), RuntimeError("can't start new thread"), system_error(errno.EMFILE)], ids=repr
)
def test_what_a_remote_file_system_lacks_on_this_machine_is_no_images(photos, monkeypatch, fault):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in photos.iterdir():
        memory.pipe_file(f"/faults/{path.name}", path.read_bytes())
    sources = [Source(path.name, f"memory://faults/{path.name}") for path in photos.iterdir()]

    def fail(*arguments):
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr("gpusift.sources.reading.open_filesystem", fail)
        with pytest.raises(RunError, match=r"a fault of this machine, or a limit, met at memory://faults"):
            extract(sources, "f.h5", PARAMETERS)
    assert not list(failures.read("f.h5.failures.jsonl"))
    assert extract(sources, "f.h5", PARAMETERS).images == N_IMAGES


def test_a_reading_thread_that_is_out_of_memory_ends_the_run(photos, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(worker, "_read", fail)
        with pytest.raises(RunError, match="compute"):
            extract(photos, "f.h5", PARAMETERS)
    assert extract(photos, "f.h5", PARAMETERS).images == N_IMAGES


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EIO, errno.ESTALE, errno.EISDIR])
def test_what_is_wrong_with_one_file_is_its_own(photos, monkeypatch, number):
    real = images.reader.fetch

    def fail(source, **options):
        if source.name == "3.png":
            raise system_error(number)
        return real(source, **options)

    monkeypatch.setattr("gpusift.images.reader.fetch", fail)
    summary = extract(photos, "f.h5", PARAMETERS)
    assert (summary.images, summary.failures) == (N_IMAGES - 1, 1)
    assert not is_of_machine(system_error(number))


@pytest.mark.parametrize(("limit", "fails"), [(1 << 24, "the run"), (100, "the image")])
def test_an_image_that_does_not_fit_is_at_fault_if_it_is_large(photos, monkeypatch, limit, fails):
    monkeypatch.setattr(worker, "SMALL_PIXELS", limit)
    monkeypatch.setattr(computation, "way_of", lambda *given, **options: Way.TOO_LARGE)
    if fails == "the image":
        assert extract(photos, "f.h5", PARAMETERS).failures == N_IMAGES
    else:
        with pytest.raises(RunError, match="the memory of device cpu must hold some"):
            extract(photos, "f.h5", PARAMETERS)
        assert not list(failures.read("f.h5.failures.jsonl"))


@pytest.mark.parametrize("limits", ["-v 520000", "-v 650000", "-n 8", "-n 12"])
@pytest.mark.parametrize("devices", [(), ("--devices", "cpu,cpu")], ids=["here", "processes"])
def test_limits_of_the_process(photos, limits, devices):
    """Too few descriptors, or too little memory for a library: for real. The run may also be possible."""
    command = [sys.executable, "-m", "gpusift", "extract", "photos", "-o", "f", "--n-octaves", "2", "--device", "cpu"]
    shell = f'ulimit {limits}; exec "$@"'
    subprocess.run(["bash", "-c", shell, "-", *command, *devices], capture_output=True)
    assert not list(failures.read("f/failures.jsonl"))
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(list(Path("f").glob("*.npz"))) == N_IMAGES
