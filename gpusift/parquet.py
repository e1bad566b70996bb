"""Features in Parquet files, many images in each, for pandas, Polars, DuckDB and Spark; `read` gives `Features`.

`gpusift extract -o <folder>.parquet` writes a folder of such files. A file has a row for each image. Of its N features
with descriptors of D values:

- `name`, string; `image_rows`, `image_cols`, int32: the image;
- `n`, int32: N;
- `rows`, `cols`, `sigmas`, lists of float: positions and scales, in pixels of the image;
- `orientations`, `responses`, lists of float, `scales`, `octaves`, lists of int32: as in `gpusift.Features`;
- `affine_shapes`, list of float: N matrices of 2 x 2, row by row, only with the setting `affine_shape`;
- `descriptors`, binary: N x D bytes, one feature after the other, or null; `descriptor_size`, int32: D.

Floats are double where the settings' `dtype` is "float64". The settings are in the metadata of each file's schema,
under `gpusift`, and in the folder's `_gpusift.json`; engines leave out files whose names begin with `_`.

While a run goes on, what is committed is in `_journal-<number>`, a file that only grows, and that a kill leaves. When
it is large enough, its content is written once more as `part-<number>.parquet`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift.features import Features
from gpusift.parameters import Parameters
from gpusift.provenance import Provenance
from gpusift.storage.name_set import NameSet

if TYPE_CHECKING:
    import pyarrow

SETTINGS = "_gpusift.json"
METADATA = b"gpusift"
JOURNAL, FILE = "_journal-", "part-"

LISTS = ("sigmas", "orientations", "responses", "scales", "octaves")
SHAPES, SETTING_OF_SHAPES = "affine_shapes", "affine_shape"  # a column that only some runs have
COMPRESSION = "snappy"  # engines read it fast; not for descriptors, which shrink by 2 % and would be held once more
STATISTICS = ["name", "image_rows", "image_cols", "n"]  # those of descriptors take several times their memory
FRAME = struct.Struct("<QI")  # before each batch of a journal: length, checksum
READ_IMAGES = 64  # read at once

_log = logging.getLogger("gpusift")


def read(path: str | os.PathLike[str]) -> Iterator[tuple[str, tuple[int, int], Features]]:
    """Read the results that a run has committed, also before the run is complete.

    If an image has two results, only the first is yielded, and the logger `gpusift` warns of it.

    Parameters
    ----------
    path : str or path-like
        The local folder, or one of its files.

    Yields
    ------
    name : str
        The image's name.
    shape : (int, int)
        Rows and columns of the image.
    features : Features
        As NumPy arrays.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    """
    names = NameSet()
    for name, shape, features in _read_all(Path(path)):
        if name in names:
            _log.warning("%s has the image %s more than once; the first result is taken", path, name)
            continue
        names.update([name])
        yield name, shape, features


def _read_all(path: Path) -> Iterator[tuple[str, tuple[int, int], Features]]:
    _, parquet = import_pyarrow()
    for file in [path] if path.is_file() else sorted(path.glob(f"{FILE}*.parquet")):
        with parquet.ParquetFile(file) as opened:
            provenance = _provenance((opened.schema_arrow.metadata or {}).get(METADATA))
            for batch in opened.iter_batches(batch_size=READ_IMAGES):
                yield from _rows(batch, provenance)
    for journal in sorted(path.glob(f"{JOURNAL}*")):
        if not file_of(journal).exists():
            record = (path / SETTINGS).read_text()
            for batch in read_journal(journal, schema_of(record)):
                yield from _rows(batch, _provenance(record))


def schema_of(record: str) -> pyarrow.Schema:
    """Return the columns of a run's files.

    Parameters
    ----------
    record : str
        The record of the run's settings, as `_gpusift.json` has it.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    """
    pyarrow, _ = import_pyarrow()
    settings = json.loads(record).get("settings", {})
    is_double = settings.get("dtype") == "float64"
    number = pyarrow.list_(pyarrow.float64() if is_double else pyarrow.float32())
    index = pyarrow.list_(pyarrow.int32())
    columns = {
        "name": pyarrow.string(),
        **dict.fromkeys(("image_rows", "image_cols", "n"), pyarrow.int32()),
        **dict.fromkeys(("rows", "cols", "sigmas", "orientations", "responses"), number),
        **dict.fromkeys(("scales", "octaves"), index),
        **({SHAPES: number} if settings.get(SETTING_OF_SHAPES) else {}),
        "descriptors": pyarrow.binary(),
        "descriptor_size": pyarrow.int32(),
    }
    return pyarrow.schema(list(columns.items()), metadata={METADATA: record})


def batch_of(rows: Sequence[tuple[str, Features, tuple[int, int]]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Make columns of images' names, features, and rows and columns; those of a single image are not copied."""
    pyarrow, _ = import_pyarrow()
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
        **{column: [getattr(host, column) for host in hosts] for column in (*LISTS, SHAPES)},
        "descriptors": descriptors,
        "descriptor_size": [0 if each is None else each.shape[1] for each in descriptors],
    }

    def array(name: str) -> Any:
        values, kind = columns[name], schema.field(name).type
        if name == "descriptors":
            valid = pyarrow.array([each is not None for each in descriptors]).buffers()[1]
            flat, ends = _joined([np.empty(0, np.uint8) if each is None else each for each in descriptors], np.uint8)
            return pyarrow.Array.from_buffers(
                kind, len(descriptors), [valid, ends.buffers()[1], pyarrow.py_buffer(flat)]
            )
        if pyarrow.types.is_list(kind):
            flat, ends = _joined(values, kind.value_type.to_pandas_dtype())
            return pyarrow.ListArray.from_arrays(ends, pyarrow.array(flat, kind.value_type))
        return pyarrow.array(values, kind)

    return pyarrow.record_batch([array(name) for name in schema.names], schema=schema)


def encode(batches: Sequence[pyarrow.RecordBatch], schema: pyarrow.Schema, target: Any) -> None:
    """Write a Parquet file to a path, or to a stream of pyarrow's."""
    pyarrow, parquet = import_pyarrow()
    table = pyarrow.Table.from_batches(batches, schema)
    columns = [f"{each.name}.list.element" if pyarrow.types.is_list(each.type) else each.name for each in schema]
    compression = {column: "NONE" if column == "descriptors" else COMPRESSION for column in columns}
    parquet.write_table(table, target, compression=compression, use_dictionary=False, write_statistics=STATISTICS)


def file_of(journal: Path) -> Path:
    """Return the Parquet file that a journal becomes."""
    return journal.with_name(f"{FILE}{journal.name.removeprefix(JOURNAL)}.parquet")


def frames(journal: Path) -> Iterator[bytes]:
    """Read the batches of a journal as bytes, up to one that was cut short."""
    with open(journal, "rb") as file:
        while len(head := file.read(FRAME.size)) == FRAME.size:
            length, checksum = FRAME.unpack(head)
            data = file.read(length) if length <= os.fstat(file.fileno()).st_size else b""
            if len(data) < length or not length or zlib.crc32(data) != checksum:
                return
            yield data


def read_journal(journal: Path, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    """Read the batches of a journal.

    Raises
    ------
    OSError
        A batch is none of such a schema's.
    """
    pyarrow, _ = import_pyarrow()
    for data in frames(journal):
        try:
            batch = pyarrow.ipc.read_record_batch(pyarrow.py_buffer(data), schema)
            batch.validate(full=True)
        except (OSError, pyarrow.ArrowException) as error:
            reason = f"must be a journal of gpusift's, but Arrow cannot read it ({error}); remove it"
            raise OSError(errno.EIO, reason, os.fspath(journal)) from None
        yield batch


def import_pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet.

    Raises
    ------
    ImportError
        pyarrow is not installed; the message says how to install it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"Parquet needs pyarrow: pip install pyarrow ({error})") from error
    return pyarrow, pyarrow.parquet


def _joined(arrays: Sequence[np.ndarray], dtype: Any) -> tuple[np.ndarray, pyarrow.Array]:
    """Return the elements of all arrays, one after the other, and where each array begins and the last one ends."""
    pyarrow, _ = import_pyarrow()
    flat = [np.ascontiguousarray(array, dtype).reshape(-1) for array in arrays]
    ends = pyarrow.array(np.cumsum([0, *map(len, flat)]), pyarrow.int32())  # an error if more than 2 GiB
    return flat[0] if len(flat) == 1 else np.concatenate(flat), ends


def _provenance(record: str | bytes | None) -> Provenance | None:
    """Return what a run's record says of its features; None if there is none."""
    settings = json.loads(record or "{}").get("settings")
    return Parameters.of_settings(settings).provenance if settings else None


def _rows(batch: pyarrow.RecordBatch, provenance: Provenance | None) -> Iterator[tuple[str, tuple[int, int], Features]]:
    """Make features of columns."""
    for i in range(batch.num_rows):
        row = {name: batch[name][i] for name in batch.schema.names}
        lists = {name: row[name].values.to_numpy() for name in ("rows", "cols", *LISTS)}
        positions = np.column_stack((lists.pop("rows"), lists.pop("cols")))
        descriptors = row["descriptors"].as_buffer()
        if descriptors is not None:
            descriptors = np.frombuffer(descriptors, np.uint8).reshape(len(positions), row["descriptor_size"].as_py())
        shapes = row[SHAPES].values.to_numpy().reshape(-1, 2, 2) if SHAPES in row else None
        features = Features(positions, **lists, descriptors=descriptors, affine_shapes=shapes, provenance=provenance)
        yield row["name"].as_py(), (row["image_rows"].as_py(), row["image_cols"].as_py()), features
