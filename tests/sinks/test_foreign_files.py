"""Outputs in which another program, or somebody, has put records, rows, tables and files of other kinds."""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import pytest

from gpusift.parquet import FRAME, read
from gpusift.sinks import OutputExistsError, RefusedImageError, open_sink
from gpusift.sinks.base import record_of
from tests.support.sink_writer import SETTINGS, SHAPE, add_image, check, features_of

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")


def deep_record(folder: Path) -> None:
    for name in ("gpusift.json", "_gpusift.json"):
        (folder / name).write_text("[" * 100_000)


def foreign_parquet(folder: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), folder / "part-x.parquet")


def broken_parquet(folder: Path) -> None:
    (folder / "part-x.parquet").write_bytes(b"PAR1")


def parquet_with_numbers_as_names(folder: Path) -> None:
    metadata = pyarrow.parquet.read_schema(next(folder.glob("*.parquet"))).metadata
    table = pyarrow.table({"name": [1]}).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, folder / "part-x.parquet")


def parquet_that_is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "part-x.parquet")


def odd_journal(folder: Path) -> None:
    (folder / "_journal-x").write_bytes(b"x")


FOREIGN = [
    foreign_parquet,
    broken_parquet,
    parquet_with_numbers_as_names,
    parquet_that_is_a_pipe,
    odd_journal,
    deep_record,
]


@pytest.mark.parametrize("spoil", [*FOREIGN, deep_record])
def test_a_folder_with_other_files_of_its_names_is_refused(quick_path, spoil: Callable[[Path], None]):
    output = quick_path / "p.parquet"
    add_image(output)
    spoil(output)
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    with pytest.raises(OutputExistsError, match="must be"):
        open_sink(output, SETTINGS)
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before


def test_a_journal_whose_batch_is_none_of_arrows_is_refused(quick_path):
    add_image(quick_path / "p.parquet")
    data = b"none of Arrow's" * 100
    (quick_path / "p.parquet/_journal-00000002").write_bytes(FRAME.pack(len(data), zlib.crc32(data)) + data)
    with pytest.raises(OSError, match="must be a journal of gpusift's"):
        open_sink(quick_path / "p.parquet", SETTINGS)
    with pytest.raises(OSError, match="must be a journal of gpusift's"):
        list(read(quick_path / "p.parquet"))


def test_a_row_without_a_name_is_no_images(quick_path):
    output = quick_path / "p.parquet"
    add_image(output)
    table = pyarrow.parquet.read_table(next(output.glob("*.parquet")))
    pyarrow.parquet.write_table(
        table.set_column(0, "name", pyarrow.array([None], pyarrow.string())), output / "part-x.parquet"
    )
    add_image(output, "b")
    assert pyarrow.parquet.read_table(output)["name"].to_pylist().count(None) == 1


@pytest.mark.parametrize("change", [(6, 99), (8, 0xFF), (10, 99), (42, 0xFF)], ids=str)
def test_an_npz_file_with_an_odd_directory_is_no_result(quick_path, change):
    """Such as one that needs a later version of zip."""
    add_image(quick_path / "folder")
    path = quick_path / "folder/a.npz"
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + change[0]] = change[1]
    path.write_bytes(data)
    sink = open_sink(quick_path / "folder", SETTINGS)
    if "a" not in sink:
        with pytest.raises(RefusedImageError, match="something else has the name of its result"):
            sink.write("a", features_of("a"), SHAPE)
    sink.close()
    assert path.read_bytes() == data


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO])
def test_a_result_that_the_machine_cannot_read_is_not_taken_for_something_else(quick_path, monkeypatch, number):
    add_image(quick_path / "folder")
    sink = open_sink(quick_path / "folder", SETTINGS)

    def fail(file):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("zipfile.ZipFile", fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            sink.__contains__("a")
    assert "a" in sink
    sink.close()


@pytest.mark.parametrize(
    "names", [("B", "b"), ("caf\u00e9", "cafe\u0301"), ("stra\u00dfe", "STRASSE"), ("x/C", "X/c")], ids=ascii
)
def test_names_that_some_file_systems_take_for_one_are_not_written_over_each_other(quick_path, monkeypatch, names):
    """A file system that ignores case and Unicode's forms finds the first file by the second name, once it is there."""
    sink = open_sink(quick_path / "folder", SETTINGS)
    sink.write(names[0], features_of(names[0]), SHAPE)
    first = quick_path / "folder" / f"{names[0]}.npz"
    assert not first.exists()
    lexists = os.path.lexists
    second = os.fspath(quick_path / "folder" / f"{names[1]}.npz")
    with monkeypatch.context() as patched:
        patched.setattr("os.path.lexists", lambda path: lexists(first if os.fspath(path) == second else path))
        with pytest.raises(RefusedImageError, match="something else has the name of its result"):
            sink.write(names[1], features_of(names[1]), SHAPE)
    sink.write(names[1], features_of(names[1]), SHAPE)  # on a file system where they are two
    sink.close()
    assert set(check(quick_path / "folder")) == set(names)


@pytest.mark.parametrize(
    "record", [None, 5, b"\xff", "[" * 100_000, "{}"], ids=["null", "number", "bytes", "deep", "no"]
)
def test_a_database_with_another_record_is_not_ours(quick_path, record):
    with closing(sqlite3.connect(quick_path / "c.db")) as database, database:
        database.execute("CREATE TABLE gpusift (record)")
        database.execute("INSERT INTO gpusift VALUES (?)", (record,))
    with pytest.raises(OutputExistsError, match="must be new, or results of gpusift extract"):
        open_sink(quick_path / "c.db", SETTINGS)


def test_a_database_without_colmaps_tables_is_refused(quick_path):
    settings = {**SETTINGS, "camera_model": "SIMPLE_RADIAL", "camera_params": None, "single_camera": False}
    with closing(sqlite3.connect(quick_path / "c.db")) as database, database:
        database.execute("CREATE TABLE gpusift (record)")
        database.execute("INSERT INTO gpusift VALUES (?)", (record_of(settings),))
    with pytest.raises(OSError, match="SQLite says: no such table"):
        open_sink(quick_path / "c.db", SETTINGS)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW own AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c WHERE 0",
        "CREATE TRIGGER own AFTER INSERT ON images BEGIN DELETE FROM images; END",
    ],
)
def test_a_database_with_views_or_triggers_is_refused(quick_path, statement):
    add_image(quick_path / "c.db")
    with closing(sqlite3.connect(quick_path / "c.db")) as database, database:
        database.execute(statement)
    with pytest.raises(OutputExistsError, match="must have tables only"):
        open_sink(quick_path / "c.db", SETTINGS)


@pytest.mark.parametrize("name", ["c.db", "f.h5"])
def test_an_image_that_another_program_added_without_features_is_not_done(quick_path, name):
    output = quick_path / name
    add_image(output)
    if name == "c.db":
        with closing(sqlite3.connect(output)) as database, database:
            database.execute("INSERT INTO images (name, camera_id) SELECT 'b', camera_id FROM images")
    else:
        with h5py.File(output, "a") as file:
            file["b/image_size"] = [1, 2]
    sink = open_sink(output, SETTINGS)
    assert "a" in sink
    assert "b" not in sink
    with pytest.raises(RefusedImageError):
        sink.write("b", features_of("b"), SHAPE)
    sink.write("c", features_of("c"), SHAPE)
    sink.close()
