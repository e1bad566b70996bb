"""A sink of Parquet files: a folder of parts, each with many images, for pandas, Polars, Spark, DuckDB.

A part has a row for each image. Of its N features with descriptors of D values:


- `name`, string; `image_rows`, `image_cols`, int32: the image;
- `n`, int32: N;
- `rows`, `cols`, `sigmas`, lists of float: positions and scales, in pixels of the image;
- `orientations`, `responses`, lists of float, `scales`, `octaves`, lists of int32: as in `gpusift.Features`;
- `descriptors`, binary: N x D bytes, one feature after the other, or null; `descriptor_size`, int32: D.

Floats are double where `dtype`, of the settings, is "float64". The settings are in the metadata of each part's schema
and in `_gpusift.json`; engines leave out files whose names begin with `_`.

While a run goes on, what is committed is in `_journal-<number>`, a file that only grows, and that a kill leaves. When
there is enough of it, it is written once more as `part-<number>.parquet`.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift.features import Features
from gpusift.sinks.base import not_ours, record_of, settings_in
from gpusift.storage.atomic import replacing, sync_folder, write_at, write_whole
from gpusift.storage.name_set import NameSet

if TYPE_CHECKING:
    import pyarrow

FAILURES = "_failures.jsonl"
SETTINGS = "_gpusift.json"
METADATA = b"gpusift"

PART_BYTES = 128 << 20  # of a part, before compression; so much is in memory
LISTS = ("sigmas", "orientations", "responses", "scales", "octaves")
DIGITS = 8  # of a part's number
COMPRESSION = "snappy"  # engines read it fast; not for descriptors, which shrink by 2 % and would be held once more
STATISTICS = ["name", "image_rows", "image_cols", "n"]  # those of descriptors take several times their memory
FRAME = struct.Struct("<QI")  # before each batch of a journal: length, checksum

Row = tuple[str, Features, tuple[int, int]]


def check(settings: dict[str, Any]) -> None:
    """Raise an ImportError unless pyarrow is there."""
    schema_of(settings)


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the run that made this folder; None if there is none, or one without Parquet files.

    Raises
    ------
    FileExistsError
        It has other files of this kind.
    """
    if not (folder / SETTINGS).exists():
        if any(folder.glob("*.parquet")):
            raise not_ours(folder)
        return None
    settings = settings_in((folder / SETTINGS).read_bytes())
    if settings is None:
        raise not_ours(folder / SETTINGS)
    return settings


def clear(folder: Path) -> None:
    """Remove results of gpusift's.

    Raises
    ------
    FileExistsError
        It has Parquet files that are not gpusift's: these are not removed.
    """
    parts = list(folder.glob("*.parquet"))
    for part in parts:
        if not _is_ours(part):
            said = "must be gpusift's to be overwritten, but it is some other Parquet file; choose another folder"
            raise FileExistsError(errno.EEXIST, said, os.fspath(part))
    for file in (*parts, *folder.glob("_journal-*"), folder / SETTINGS):
        file.unlink(missing_ok=True)


def open_store(folder: Path, settings: dict[str, Any]) -> ParquetStore:
    """Open a folder that is a sink, or make it one."""
    if not (folder / SETTINGS).exists():
        write_whole(folder / SETTINGS, record_of(settings).encode())
    return ParquetStore(folder, settings)


def write_file(
    folder: str | os.PathLike[str], rows: Sequence[Row], settings: dict[str, Any], part: str | None = None
) -> str:
    """Write one part, whole or not at all.

    Parameters
    ----------
    folder : str or path-like
        A local folder, made if there is none, or a URL that fsspec knows.
    rows : sequence of (str, Features, (int, int))
        Of each image its name, features and rows and columns.
    settings : dict
        Those of the run.
    part : str, optional
        Which part; by default it follows from the names, so that who writes them again replaces it.

    Returns
    -------
    name : str
        `part-<part>.parquet`, the file in the folder; the part by its name replaces an earlier one.
    """
    schema = schema_of(settings)
    name = f"part-{part or _digest(name for name, _, _ in rows)}.parquet"
    if "://" in os.fspath(folder):
        import fsspec
        import pyarrow

        stream = pyarrow.BufferOutputStream()  # first: an error must not leave half a part there
        _encode([_batch(rows, schema)], schema, stream)
        with fsspec.open(f"{os.fspath(folder).rstrip('/')}/{name}", "wb") as file:
            file.write(memoryview(stream.getvalue()))
    else:
        with replacing(Path(folder) / name) as temporary:
            _encode([_batch(rows, schema)], schema, os.fspath(temporary))
    return name


def read(folder: str | os.PathLike[str]) -> Iterator[tuple[str, tuple[int, int], Features]]:
    """Read what a sink has committed, also if its run is not complete.

    Parameters
    ----------
    folder : str or path-like
        The local folder, or one part of it.

    Yields
    ------
    name : str
        The image's name.
    shape : (int, int)
        Rows and columns of the image.
    features : Features
        As NumPy arrays.
    """
    _, parquet = _import_pyarrow()
    place = Path(folder)
    for part in [place] if place.is_file() else sorted(place.glob("part-*.parquet")):
        with parquet.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=64):
                yield from _rows(batch)
    for journal in sorted(place.glob("_journal-*")):
        if not _part_of(journal).exists():
            for batch in _batches(journal, schema_of(settings_of(place) or {})):
                yield from _rows(batch)


def schema_of(settings: dict[str, Any]) -> pyarrow.Schema:
    """Return the columns of a sink.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    """
    pyarrow, _ = _import_pyarrow()
    number = pyarrow.list_(pyarrow.float64() if settings.get("dtype") == "float64" else pyarrow.float32())
    index = pyarrow.list_(pyarrow.int32())
    columns = {
        "name": pyarrow.string(),
        **dict.fromkeys(("image_rows", "image_cols", "n"), pyarrow.int32()),
        **dict.fromkeys(("rows", "cols", "sigmas", "orientations", "responses"), number),
        **dict.fromkeys(("scales", "octaves"), index),
        "descriptors": pyarrow.binary(),
        "descriptor_size": pyarrow.int32(),
    }
    return pyarrow.schema(list(columns.items()), metadata={METADATA: record_of(settings)})


class ParquetStore:
    """An open folder; what is committed, but in no part yet, is in a journal, and in memory."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        _, parquet = _import_pyarrow()
        self._folder, self._schema = folder, schema_of(settings)
        self._rows: list[Row] = []
        self._batches: list[pyarrow.RecordBatch] = []
        self._names = NameSet()
        for temporary in folder.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)
        for part in folder.glob("part-*.parquet"):
            with parquet.ParquetFile(part) as file:
                for batch in file.iter_batches(columns=["name"]):
                    self._names.update(batch["name"].to_pylist())
        numbers = [0]
        for journal in sorted(folder.glob("_journal-*")):
            if _part_of(journal).exists():
                journal.unlink()
            else:
                numbers.append(int(journal.name.removeprefix("_journal-")))
        parts = (part.stem.removeprefix("part-") for part in folder.glob("part-*.parquet"))
        taken = max((int(part) for part in parts if len(part) == DIGITS and part.isdecimal()), default=0)
        self._open_journal(numbers[-1] or taken + 1)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def write(self, name: str, features: Features, image_shape: tuple[int, int]) -> None:
        """Take an image's features, see `gpusift.sinks.Store`."""
        name.encode()  # a UnicodeEncodeError is a ValueError
        self._rows.append((name, features, image_shape))

    def commit(self) -> None:
        """Add them to the journal; with enough in it, make it a part."""
        pyarrow, _ = _import_pyarrow()
        batch = _batch(self._rows, self._schema)
        data = batch.serialize()
        try:
            write_at(self._journal, FRAME.pack(data.size, zlib.crc32(data)), self._end)
            write_at(self._journal, data, self._end + FRAME.size)
            os.fsync(self._journal)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._journal, self._end)
            raise
        self._end += FRAME.size + data.size
        del data
        pyarrow.default_memory_pool().release_unused()  # which keeps it otherwise, and that of a large image is much
        self._batches.append(batch)
        self._names.update(name for name, _, _ in self._rows)
        self._rows = []
        if sum(batch.nbytes for batch in self._batches) > PART_BYTES:
            self._write_part()
            self._open_journal(self._number + 1)

    def finish(self) -> None:
        """Make the journal a part."""
        if self._batches:
            self._write_part()
        else:
            os.close(self._journal)
            _journal_of(self._folder, self._number).unlink()

    def abandon(self) -> None:
        """Let go of the journal."""
        with suppress(OSError):
            os.close(self._journal)

    def _open_journal(self, number: int) -> None:
        """Open a journal, a new one, or one to go on with after its last whole batch."""
        self._number = number
        path = _journal_of(self._folder, number)
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        sync_folder(self._folder)
        self._batches = list(_batches(path, self._schema))
        for batch in self._batches:
            self._names.update(batch["name"].to_pylist())
        self._end = sum(FRAME.size + len(data) for data in _frames(path))
        os.ftruncate(self._journal, self._end)

    def _write_part(self) -> None:
        """Write a journal's batches as a part; with the part there, the journal counts no more."""
        journal = _journal_of(self._folder, self._number)
        with replacing(_part_of(journal)) as temporary:
            _encode(self._batches, self._schema, os.fspath(temporary))
        os.close(self._journal)
        journal.unlink()
        self._batches = []


def _journal_of(folder: Path, number: int) -> Path:
    return folder / f"_journal-{number:0{DIGITS}}"


def _part_of(journal: Path) -> Path:
    """Return the part that a journal becomes."""
    return journal.with_name(f"part-{journal.name.removeprefix('_journal-')}.parquet")


def _frames(journal: Path) -> Iterator[bytes]:
    """Read the batches of a journal as bytes, up to one that was cut short."""
    with open(journal, "rb") as file:
        while len(head := file.read(FRAME.size)) == FRAME.size:
            length, checksum = FRAME.unpack(head)
            data = file.read(length) if length <= os.fstat(file.fileno()).st_size else b""
            if len(data) < length or not length or zlib.crc32(data) != checksum:
                return
            yield data


def _batches(journal: Path, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    pyarrow, _ = _import_pyarrow()
    return (pyarrow.ipc.read_record_batch(pyarrow.py_buffer(data), schema) for data in _frames(journal))


def _batch(rows: Sequence[Row], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Make columns of images' features; those of a single image are not copied."""
    pyarrow, _ = _import_pyarrow()
    names, several, shapes = zip(*rows)
    hosts = [features.to_host() for features in several]
    descriptors = [host.descriptors for host in hosts]
    columns = {
        "name": names,
        "image_rows": [shape[0] for shape in shapes],
        "image_cols": [shape[1] for shape in shapes],
        "n": [len(host) for host in hosts],
        "rows": [host.positions[:, 0] for host in hosts],
        "cols": [host.positions[:, 1] for host in hosts],
        **{column: [getattr(host, column) for host in hosts] for column in LISTS},
        "descriptors": descriptors,
        "descriptor_size": [0 if each is None else each.shape[1] for each in descriptors],
    }

    def array(name: str) -> Any:
        values, kind = columns[name], schema.field(name).type
        if name == "descriptors":
            there = pyarrow.array([each is not None for each in descriptors]).buffers()[1]
            flat, ends = _joined([np.empty(0, np.uint8) if each is None else each for each in descriptors], np.uint8)
            return pyarrow.Array.from_buffers(
                kind, len(descriptors), [there, ends.buffers()[1], pyarrow.py_buffer(flat)]
            )
        if pyarrow.types.is_list(kind):
            flat, ends = _joined(values, kind.value_type.to_pandas_dtype())
            return pyarrow.ListArray.from_arrays(ends, pyarrow.array(flat, kind.value_type))
        return pyarrow.array(values, kind)

    return pyarrow.record_batch([array(name) for name in schema.names], schema=schema)


def _joined(arrays: Sequence[np.ndarray], dtype: Any) -> tuple[np.ndarray, pyarrow.Array]:
    """Return the elements of all arrays, one after the other, and where each array begins and the last one ends."""
    pyarrow, _ = _import_pyarrow()
    flat = [np.ascontiguousarray(array, dtype).reshape(-1) for array in arrays]
    ends = pyarrow.array(np.cumsum([0, *map(len, flat)]), pyarrow.int32())  # or an error: it is not more than 2 GiB
    return flat[0] if len(flat) == 1 else np.concatenate(flat), ends


def _rows(batch: pyarrow.RecordBatch) -> Iterator[tuple[str, tuple[int, int], Features]]:
    """Make features of columns."""
    for i in range(batch.num_rows):
        row = {name: batch[name][i] for name in batch.schema.names}
        lists = {name: row[name].values.to_numpy() for name in ("rows", "cols", *LISTS)}
        positions = np.column_stack((lists.pop("rows"), lists.pop("cols")))
        descriptors = row["descriptors"].as_buffer()
        if descriptors is not None:
            descriptors = np.frombuffer(descriptors, np.uint8).reshape(len(positions), row["descriptor_size"].as_py())
        shape = row["image_rows"].as_py(), row["image_cols"].as_py()
        yield row["name"].as_py(), shape, Features(positions, **lists, descriptors=descriptors)


def _encode(batches: Sequence[pyarrow.RecordBatch], schema: pyarrow.Schema, target: Any) -> None:
    """Write a Parquet file to a path or a stream of pyarrow's."""
    pyarrow, parquet = _import_pyarrow()
    table = pyarrow.Table.from_batches(batches, schema)
    columns = [f"{each.name}.list.element" if pyarrow.types.is_list(each.type) else each.name for each in schema]
    compression = {column: "NONE" if column == "descriptors" else COMPRESSION for column in columns}
    parquet.write_table(table, target, compression=compression, use_dictionary=False, write_statistics=STATISTICS)


def _is_ours(part: Path) -> bool:
    pyarrow, parquet = _import_pyarrow()
    try:
        return METADATA in (parquet.read_schema(part).metadata or {})
    except (OSError, pyarrow.ArrowException):
        return False


def _digest(names: Iterator[str]) -> str:
    return sha256("\0".join(names).encode()).hexdigest()[:16]


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"Parquet needs pyarrow: pip install pyarrow ({error})") from error
    return pyarrow, pyarrow.parquet
