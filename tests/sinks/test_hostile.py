"""Outputs that somebody has prepared: refused clearly, or without effect; nothing is written anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpusift.sinks import OutputExistsError, OutputInUseError, RefusedImageError, open_sink
from tests.support.sink_writer import OUTPUTS, SETTINGS, SHAPE, add_image, check, features_of

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")


@pytest.fixture(params=OUTPUTS)
def output(request, quick_path) -> Path:
    """An output with one image."""
    output = quick_path / request.param
    add_image(output)
    return output


# Links to an output are the output.


@pytest.mark.parametrize("kind", ["link", "relative link", "link to the folder"])
def test_an_output_is_the_same_by_whatever_path_it_is_reached(output, kind):
    other = output.parent / "elsewhere"
    if kind == "link to the folder":
        other.symlink_to(output.parent)
        path = other / output.name
    else:
        other.mkdir()
        path = other / output.name
        path.symlink_to(f"../{output.name}" if kind == "relative link" else output)
    sink = open_sink(path, SETTINGS)
    assert "a" in sink
    with pytest.raises(OutputInUseError):
        open_sink(output, SETTINGS)
    sink.failures.add("bad", "bad", "is bad")
    sink.close()
    sink = open_sink(output, SETTINGS)
    with pytest.raises(OutputInUseError):
        open_sink(path, SETTINGS)
    assert "bad" in sink.failures
    sink.close()


def test_a_link_to_nothing_makes_the_output_there(quick_path):
    (quick_path / "there").mkdir()
    for name in OUTPUTS:
        (quick_path / name).symlink_to(quick_path / "there" / name)
        add_image(quick_path / name)
        assert (quick_path / name).is_symlink()
        assert set(check(quick_path / "there" / name)) == {"a"}


# Links that were planted in an output.


def planted(output: Path) -> list[Path]:
    """Names of files that a sink writes, besides results."""
    if output.suffix in (".h5", ".db"):
        beside = [".lock", ".failures.jsonl", *(["-wal", "-shm", "-journal"] if output.suffix == ".db" else [])]
        return [output.with_name(output.name + end) for end in beside]
    names = {"": ["gpusift.json", ".gpusift.pending", "failures.jsonl"]}.get(
        output.suffix, ["_gpusift.json", "_journal-00000002", "_failures.jsonl"]
    )
    return [output / name for name in (*names, ".gpusift.lock")]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_in_the_place_of_a_file_of_its_own_is_refused(output, overwrite):
    elsewhere = output.parent / "elsewhere"
    for file in planted(output):
        elsewhere.mkdir()
        (elsewhere / "precious").write_bytes(b"precious")
        kept = file.read_bytes() if file.is_file() else None
        file.unlink(missing_ok=True)
        file.symlink_to(elsewhere if file.name == ".gpusift.pending" else elsewhere / "precious")
        with pytest.raises(OutputExistsError, match="must be a file of gpusift's, but it is a link"):
            open_sink(output, SETTINGS, overwrite=overwrite)
        assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {"precious": b"precious"}
        file.unlink()
        (elsewhere / "precious").unlink()
        elsewhere.rmdir()
        if kept is not None:
            file.write_bytes(kept)
    assert set(check(output)) == {"a"}


def test_a_pipe_in_the_place_of_a_file_of_its_own_is_refused(output):
    for file in planted(output):
        kept = file.read_bytes() if file.is_file() else None
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        with pytest.raises(OutputExistsError, match="must be a file of gpusift's, but it is a pipe or a device"):
            open_sink(output, SETTINGS)
        file.unlink()
        if kept is not None:
            file.write_bytes(kept)
    assert set(check(output)) == {"a"}


@pytest.mark.parametrize("target", ["folder", "file", "result", "nothing"])
def test_results_do_not_go_through_links_in_a_folder(quick_path, target):
    output, elsewhere = quick_path / "folder", quick_path / "elsewhere"
    add_image(output)
    elsewhere.mkdir()
    name = "sub/b" if target == "folder" else "b"
    link, to = {
        "folder": (output / "sub", elsewhere),
        "file": (output / "b.npz", elsewhere / "precious"),
        "result": (output / "b.npz", output / "a.npz"),
        "nothing": (output / "b.npz", elsewhere / "new"),
    }[target]
    if target == "file":
        to.write_bytes(b"precious")
    link.symlink_to(to)
    before = sorted(elsewhere.iterdir())
    sink = open_sink(output, SETTINGS)
    assert name not in sink
    with pytest.raises(RefusedImageError, match="name must be possible for a file"):
        sink.write(name, features_of(name), SHAPE)
    sink.write("c", features_of("c"), SHAPE)
    sink.close()
    assert sorted(elsewhere.iterdir()) == before
    assert link.is_symlink()


# HDF5 files with links, virtual data sets and odd attributes.


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external storage"])
def test_hdf5_does_not_leave_the_file(quick_path, kind):
    output, other = quick_path / "f.h5", quick_path / "other.h5"
    add_image(output)
    add_image(other, "b")
    before = other.read_bytes()
    with h5py.File(output, "a") as file:
        if kind == "external link":
            file["b"] = h5py.ExternalLink("other.h5", "/b")
        elif kind == "soft link":
            file["b"] = h5py.SoftLink("/a")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2,), np.int64)
            layout[:] = h5py.VirtualSource(other, "b/image_size", (2,))
            file.create_group("b").create_virtual_dataset("image_size", layout)
        else:
            external = [(os.fspath(quick_path / "raw"), 0, 16)]
            file.create_group("b").create_dataset("image_size", (2,), np.int64, external=external)
    sink = open_sink(output, SETTINGS)
    assert "b" not in sink
    for name in ("b", "b/c") if "link" in kind else ("b",):
        with pytest.raises(RefusedImageError, match="name must be possible for a group in HDF5"):
            sink.write(name, features_of(name), SHAPE)
    sink.write("d", features_of("d"), SHAPE)
    sink.close()
    assert other.read_bytes() == before
    assert not (quick_path / "raw").exists()


@pytest.mark.parametrize(
    "value",
    [
        5,
        np.arange(3),
        h5py.Empty("S10"),
        b"\xff",
        "[" * 100_000,
        '{"made by": "gpusift extract", "settings": 3}',
        ["a"],
    ],
    ids=["number", "array", "empty", "bytes", "deep", "no settings", "strings"],
)
def test_hdf5_with_another_attribute_is_not_ours(quick_path, value):
    with h5py.File(quick_path / "f.h5", "w") as file:
        if isinstance(value, str) and len(value) > 60_000:
            file.attrs.create("gpusift", value[:60_000])
        else:
            file.attrs["gpusift"] = value
    before = (quick_path / "f.h5").read_bytes()
    with pytest.raises(OutputExistsError, match="must be new, or results of gpusift extract"):
        open_sink(quick_path / "f.h5", SETTINGS)
    assert (quick_path / "f.h5").read_bytes() == before


def test_hdf5_that_another_program_has_open_is_in_use(quick_path):
    add_image(quick_path / "f.h5")
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, quick_path / "f.h5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(OutputInUseError, match="must not be open in another program"):
            open_sink(quick_path / "f.h5", SETTINGS)
    open_sink(quick_path / "f.h5", SETTINGS).close()


def test_failures_of_other_kinds_are_skipped(output):
    sink = open_sink(output, SETTINGS)
    sink.failures.add("bad", "bad", "is bad")
    sink.close()
    path = sink.failures.path
    path.write_bytes(b"[" * 100_000 + b"\n" + b'{"name": 5}\n\xff\n' + path.read_bytes())
    sink = open_sink(output, SETTINGS)
    assert "bad" in sink.failures
    sink.close()
