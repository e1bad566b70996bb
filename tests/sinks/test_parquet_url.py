"""A folder of Parquet parts: who may write to it, and what is in it already."""

from contextlib import closing

import numpy as np
import pytest

from gpusift import SIFT, stream
from gpusift.parquet import read
from gpusift.sinks import OutputExistsError, SettingsDiffer
from gpusift.sinks.parquet_url import open_parquet_folder

pytest.importorskip("pyarrow")

PARAMETERS = {"n_octaves": 2, "device": "cpu"}
SETTINGS = stream.settings_of(PARAMETERS)


@pytest.fixture(scope="module")
def rows():
    features = SIFT(**PARAMETERS).compute(np.random.default_rng(0).random((64, 64)))
    return [(name, features, (64, 64)) for name in ("a.png", "b.png")]


def test_a_part_of_a_run_that_is_over_is_not_written(rows, tmp_path):
    url = f"file://{tmp_path}/out"
    with closing(open_parquet_folder(url, SETTINGS)) as before:
        before.file_writer(rows, "a")
        with closing(open_parquet_folder(url, SETTINGS)) as after:
            assert "b.png" in after
            with pytest.raises(OSError, match="another run writes to this folder now"):
                before.file_writer(rows, "b")
            assert [path.name for path in tmp_path.glob("out/*.parquet")] == ["part-a.parquet"]
            after.file_writer(rows, "a")  # the same once more
            assert [name for name, _, _ in read(tmp_path / "out")] == ["a.png", "b.png"]
            after.file_writer.drop("a")
            after.file_writer.drop("a")
            assert not list(read(tmp_path / "out"))


def test_overwriting_starts_afresh(rows, tmp_path):
    url = f"file://{tmp_path}"
    with closing(open_parquet_folder(url, SETTINGS)) as sink:
        sink.file_writer(rows, "a")
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


def test_a_part_that_is_broken_is_named(tmp_path):
    open_parquet_folder(f"file://{tmp_path}", SETTINGS).close()
    (tmp_path / "part-a.parquet").write_text("half")
    with pytest.raises(OSError, match=r"must be a Parquet file of gpusift's.*part-a\.parquet"):
        open_parquet_folder(f"file://{tmp_path}", SETTINGS)
