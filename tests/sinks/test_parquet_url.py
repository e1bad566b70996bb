"""A folder of Parquet parts: who may write to it, and what is in it already."""

import os
from contextlib import closing

import numpy as np
import pytest

from gpusift import SIFT, stream
from gpusift.parquet import read
from gpusift.sinks import OutputExistsError, SettingsDiffer
from gpusift.sinks.parquet import write_file
from gpusift.sinks.parquet_url import open_parquet_folder

pytest.importorskip("pyarrow")

PARAMETERS = {"n_octaves": 2, "device": "cpu"}
SETTINGS = stream.settings_of(PARAMETERS)


@pytest.fixture(scope="module")
def rows():
    features = SIFT(**PARAMETERS).compute(np.random.default_rng(0).random((64, 64)))
    return [(name, features, (64, 64)) for name in ("a.png", "b.png")]


def names_in(folder):
    """What our reader finds, and what an engine finds that reads all files without a mark before their names."""
    ours = sorted(name for name, _, _ in read(folder))
    theirs = [path for path in folder.glob("*.parquet") if not path.name.startswith("_")]
    assert sorted(name for path in theirs for name, _, _ in read(path)) == ours
    return ours


def test_a_file_counts_when_it_is_accepted_and_then_once(rows, tmp_path):
    url = f"file://{tmp_path}/out"
    with closing(open_parquet_folder(url, SETTINGS)) as sink:
        for _ in range(2):  # the scheduler runs a task twice
            sink.file_writer(rows, "a")
            assert names_in(tmp_path / "out") == []
        sink.file_writer.accept("a")
        assert names_in(tmp_path / "out") == ["a.png", "b.png"]
        sink.file_writer(rows, "a")  # a worker that was taken for lost wakes
        sink.file_writer(rows[:1], "of the first image")
        assert names_in(tmp_path / "out") == ["a.png", "b.png"]
        (tmp_path / "out" / f"._pending-{sink.file_writer.run}-c.parquet.random.tmp").touch()  # of a killed worker
    with pytest.raises(OSError, match="this run is over"):
        sink.file_writer(rows, "b")  # a worker that was stopped wakes
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["_gpusift.json", "_run", "part-a.parquet"]


def test_a_task_that_outlives_its_run_adds_nothing(rows, tmp_path):
    url = f"file://{tmp_path}/out"
    with closing(open_parquet_folder(url, SETTINGS)) as before:
        before.file_writer(rows, "late")
        with closing(open_parquet_folder(url, SETTINGS)) as after:
            assert "b.png" not in after
            for act in (lambda: before.file_writer(rows, "b"), lambda: before.file_writer.accept("late")):
                with pytest.raises(OSError, match="this run is over, or another one writes"):
                    act()
            after.file_writer(rows, "a")
            after.file_writer.accept("a")
            assert names_in(tmp_path / "out") == ["a.png", "b.png"]
    # Its file was on the way when the next run began: that one takes no notice of it, and the one after removes it.
    write_file(tmp_path / "out", f"_pending-{before.file_writer.run}-b.parquet", rows, SETTINGS)
    assert names_in(tmp_path / "out") == ["a.png", "b.png"]
    with closing(open_parquet_folder(url, SETTINGS)) as resumed:
        assert "a.png" in resumed
        assert not list(tmp_path.glob("out/_pending-*"))


def test_overwriting_starts_afresh(rows, tmp_path):
    url = f"file://{tmp_path}"
    with closing(open_parquet_folder(url, SETTINGS)) as sink:
        sink.file_writer(rows, "a")
        sink.file_writer.accept("a")
        sink.failures.add("c.png", "c.png", "broken")
    other = stream.settings_of({**PARAMETERS, "n_octaves": 3})
    with pytest.raises(SettingsDiffer, match="n_octaves was 2, is 3"):
        open_parquet_folder(url, other)
    with closing(open_parquet_folder(url, other, overwrite=True)) as sink:
        assert "a.png" not in sink
        assert "c.png" not in sink.failures
        assert not list(read(tmp_path))
    open_parquet_folder(url, other).close()


def test_other_parquet_files_are_left_alone(tmp_path):
    (tmp_path / "x.parquet").write_text("someone's")
    with pytest.raises(OutputExistsError, match="must be new, or results of gpusift extract"):
        open_parquet_folder(f"file://{tmp_path}", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize("record", [b"{}", b"[1]", b"not JSON", b'{"made by": "someone"}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_settings_of_another_program_are_left_alone(tmp_path, record, overwrite):
    (tmp_path / "_gpusift.json").write_bytes(record)
    with pytest.raises(OutputExistsError, match="must be new, or results of gpusift extract"):
        open_parquet_folder(f"file://{tmp_path}", SETTINGS, overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"_gpusift.json": record}


@pytest.mark.parametrize("name", ["_gpusift.json", "_failures.jsonl", "_run"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_pipe_in_the_place_of_a_file_is_refused(tmp_path, name, kind):
    output, precious = tmp_path / "out", tmp_path / "precious"
    open_parquet_folder(f"file://{output}", SETTINGS).close()
    precious.write_text("precious")
    (output / name).unlink(missing_ok=True)
    if kind == "link":
        (output / name).symlink_to(precious)
    else:
        os.mkfifo(output / name)
    with pytest.raises(OutputExistsError, match=f"must be a file of gpusift's, but it is a {kind}"):
        open_parquet_folder(f"file://{output}", SETTINGS, overwrite=True)
    assert precious.read_text() == "precious"


def test_a_part_that_is_broken_is_named(tmp_path):
    open_parquet_folder(f"file://{tmp_path}", SETTINGS).close()
    (tmp_path / "part-a.parquet").write_text("half")
    with pytest.raises(OSError, match=r"must be a Parquet file of gpusift's.*part-a\.parquet"):
        open_parquet_folder(f"file://{tmp_path}", SETTINGS)
