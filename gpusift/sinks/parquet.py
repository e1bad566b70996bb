"""A sink in a folder of Parquet files, see `gpusift.parquet` for what is in them.

What is committed is in a journal, and in memory. When there is enough of it, it is written once more as a Parquet file,
whose existence ends the journal.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpusift.features import Features
from gpusift.parquet import (
    FILE,
    FRAME,
    JOURNAL,
    METADATA,
    SETTINGS,
    batch_of,
    encode,
    file_of,
    frames,
    import_pyarrow,
    read_journal,
    schema_of,
)
from gpusift.sinks.base import OutputExistsError, RefusedImageError, Row, record_of, settings_in_folder
from gpusift.storage.atomic import replacing, sync_folder, write_at, write_whole
from gpusift.storage.name_set import NameSet

if TYPE_CHECKING:
    import pyarrow

FAILURES = "_failures.jsonl"

FILE_BYTES = 128 << 20  # of a file's rows before compression; so much is in memory
DIGITS = 8  # of a file's number

_log = logging.getLogger("gpusift")


class ParquetFormat:
    """Folders of Parquet files; see `gpusift.sinks.base.Format`."""

    name = "parquet"
    suffixes = (".parquet",)
    failures_file = FAILURES
    sift_parameters: Mapping[str, Any] = {}
    exif_orientation = True
    max_size: int | None = None

    def own_files(self, path: Path) -> list[Path]:
        """Return the file of settings and the journals."""
        return [path / SETTINGS, *path.glob(f"{JOURNAL}*")]

    def settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings, of which any will do, if pyarrow is installed."""
        import_pyarrow()
        return settings

    def recorded_settings(self, path: Path) -> dict[str, Any] | None:
        """Return the settings of the run that made this folder; None if it has neither settings nor Parquet files."""
        return settings_in_folder(path, SETTINGS, path.glob("*.parquet"))

    def clear(self, path: Path) -> None:
        """Remove the Parquet files, journals and settings, unless some file is not gpusift's."""
        files = list(path.glob("*.parquet"))
        for file in files:
            if not _is_ours(file):
                raise OutputExistsError(file, "must be gpusift's to be overwritten, but it is some other Parquet file")
        for file in (*files, *path.glob(f"{JOURNAL}*"), path / SETTINGS):
            file.unlink(missing_ok=True)

    def open_store(self, path: Path, settings: dict[str, Any]) -> ParquetStore:
        """Open the folder, or make it a sink."""
        record = record_of(settings)
        if not (path / SETTINGS).exists():
            write_whole(path / SETTINGS, record.encode())
        return ParquetStore(path, schema_of(record))


def write_file(folder: str | os.PathLike[str], name: str, rows: Sequence[Row], settings: dict[str, Any]) -> None:
    """Write one Parquet file, whole or not at all.

    Parameters
    ----------
    folder : str or path-like
        A local folder, made if it does not exist, or a URL that fsspec opens.
    name : str
        The file in the folder; an earlier one is replaced.
    rows : sequence of (str, Features, (int, int))
        Name, features, and rows and columns of each image.
    settings : dict
        Settings of the run.
    """
    schema = schema_of(record_of(settings))
    if "://" in os.fspath(folder):
        import fsspec
        import pyarrow

        stream = pyarrow.BufferOutputStream()  # encoded first: an error must not leave half a file there
        encode([batch_of(rows, schema)], schema, stream)
        with fsspec.open(f"{os.fspath(folder).rstrip('/')}/{name}", "wb") as file:
            file.write(memoryview(stream.getvalue()))
    else:
        with replacing(Path(folder) / name) as temporary:
            encode([batch_of(rows, schema)], schema, os.fspath(temporary))


class ParquetStore:
    """An open folder."""

    def __init__(self, folder: Path, schema: pyarrow.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._rows: list[Row] = []  # not committed
        self._batches: list[pyarrow.RecordBatch] = []  # of the journal
        self._names = NameSet()
        for temporary in folder.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)
        self._read_names()
        self._open_journal(self._journal_number())

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def write(self, name: str, features: Features, image_shape: tuple[int, int], url: str | None) -> None:
        """Take an image's features, see `gpusift.sinks.base.Store`."""
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise RefusedImageError(f"name must be UTF-8, got {name!r}: {error.reason}; rename the image") from None
        self._rows.append((name, features, image_shape))

    def commit(self) -> None:
        """Append them to the journal; when it is large enough, make it a Parquet file."""
        pyarrow, _ = import_pyarrow()
        batch = batch_of(self._rows, self._schema)
        self._append(batch.serialize())
        pyarrow.default_memory_pool().release_unused()  # it would keep the memory of a large image
        self._batches.append(batch)
        self._names.update(name for name, _, _ in self._rows)
        self._rows = []
        if sum(batch.nbytes for batch in self._batches) > FILE_BYTES:
            self._write_file()
            self._open_journal(self._number + 1)

    def finish(self) -> None:
        """Make the journal a Parquet file."""
        if self._batches:
            self._write_file()
        else:
            os.close(self._journal)
            _journal_of(self._folder, self._number).unlink()

    def abandon(self) -> None:
        """Release the journal."""
        with suppress(OSError):
            os.close(self._journal)

    def _read_names(self) -> None:
        """Read the names of the images in Parquet files."""
        _, parquet = import_pyarrow()
        for file in self._folder.glob(f"{FILE}*.parquet"):
            if not _is_ours(file):
                raise OutputExistsError(
                    file, "must be a Parquet file of gpusift's, but it is something else; remove it"
                )
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(columns=["name"]):
                    self._add_names(batch["name"].to_pylist())

    def _add_names(self, stored: list[str | None]) -> None:
        """Add the names of stored images, and warn of images that are stored twice."""
        before, names = len(self._names), [name for name in stored if name is not None]
        self._names.update(names)
        if doubled := before + len(names) - len(self._names):
            _log.warning("%s has %d results of images that it has already; readers drop them", self._folder, doubled)

    def _journal_number(self) -> int:
        """Return the number of the journal to resume, or of the next one; remove journals that became files."""
        for journal in sorted(self._folder.glob(f"{JOURNAL}*"), reverse=True):
            if not file_of(journal).exists():
                return self._number_of(journal)
            journal.unlink()
        keys = (file.stem.removeprefix(FILE) for file in self._folder.glob(f"{FILE}*.parquet"))
        return 1 + max((int(key) for key in keys if len(key) == DIGITS and key.isdecimal()), default=0)

    def _number_of(self, journal: Path) -> int:
        number = journal.name.removeprefix(JOURNAL)
        if not (len(number) == DIGITS and number.isdecimal()):
            raise OutputExistsError(journal, "must be a journal of gpusift's, but it is something else; remove it")
        return int(number)

    def _open_journal(self, number: int) -> None:
        """Open a journal: a new one, or one to resume after its last whole batch."""
        self._number = number
        path = _journal_of(self._folder, number)
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        sync_folder(self._folder)
        self._batches = list(read_journal(path, self._schema))
        for batch in self._batches:
            self._add_names(batch["name"].to_pylist())
        self._end = sum(FRAME.size + len(data) for data in frames(path))
        os.ftruncate(self._journal, self._end)

    def _append(self, data: pyarrow.Buffer) -> None:
        """Append a batch to the journal, wholly or not at all."""
        try:
            write_at(self._journal, FRAME.pack(data.size, zlib.crc32(data)), self._end)
            write_at(self._journal, data, self._end + FRAME.size)
            os.fsync(self._journal)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._journal, self._end)
            raise
        self._end += FRAME.size + data.size

    def _write_file(self) -> None:
        """Write a journal's batches as a Parquet file; from then on the journal counts no more."""
        journal = _journal_of(self._folder, self._number)
        with replacing(file_of(journal)) as temporary:
            encode(self._batches, self._schema, os.fspath(temporary))
        os.close(self._journal)
        journal.unlink()
        self._batches = []


def _journal_of(folder: Path, number: int) -> Path:
    return folder / f"{JOURNAL}{number:0{DIGITS}}"


def _is_ours(file: Path) -> bool:
    pyarrow, parquet = import_pyarrow()
    if not file.is_file():
        return False
    try:
        schema = parquet.read_schema(file)
        return METADATA in (schema.metadata or {}) and schema.field("name").type == pyarrow.string()
    except (OSError, KeyError, pyarrow.ArrowException):
        return False
