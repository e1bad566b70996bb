"""The contents of an output of `gpusift extract`, by image: read without gpusift, to compare two runs byte for byte."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py

Entry = tuple[str, bytes]  # an image's name, and its content


def contents(output: Path) -> tuple[dict[str, str], list[str]]:
    """Read an output.

    Returns
    -------
    images : dict
        The hash of each image's content, by name; "failed: <reason>" for an image that is recorded as failed.
    doubled : list of str
        Names with more than one entry.
    """
    entries = list(READERS.get(output.suffix, npz)(output))
    counts = Counter(name for name, _ in entries)
    images = {name: hashlib.sha256(content).hexdigest() for name, content in entries}
    for name, reason in failures(output):
        counts[name] += 1
        images[name] = f"failed: {reason}"
    return images, sorted(name for name, count in counts.items() if count > 1)


def failures(output: Path) -> Iterator[tuple[str, str]]:
    """Yield the names and reasons of the failures beside or in an output."""
    beside = output.with_name(f"{output.name}.failures.jsonl")
    for path in (beside, output / "failures.jsonl", output / "_failures.jsonl"):
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                yield record["name"], record["reason"]


def hdf5(path: Path) -> Iterator[Entry]:
    """Yield the groups of an HDF5 file."""
    with h5py.File(path) as file:
        groups: dict[str, list[Any]] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                group, _, array = name.rpartition("/")
                groups.setdefault(group, []).append([array, str(item.dtype), item.shape, item[()].tobytes()])

        file.visititems(visit)
        for name, arrays in groups.items():
            yield name, repr(sorted(arrays)).encode()


def colmap(path: Path) -> Iterator[Entry]:
    """Yield the images of a COLMAP database; identifiers do not count, as they follow the order of completion."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for image, name, camera in database.execute("SELECT image_id, name, camera_id FROM images").fetchall():
            rows = [database.execute("SELECT model, width, height, params FROM cameras WHERE camera_id = ?", (camera,))]
            for table in ("keypoints", "descriptors"):
                query = f"SELECT rows, cols, data FROM {table} WHERE image_id = ?"
                rows.append(database.execute(query, (image,)))
            yield name, repr([list(cursor) for cursor in rows]).encode()


def parquet(folder: Path) -> Iterator[Entry]:
    """Yield the rows of a folder of Parquet files."""
    from pyarrow.parquet import ParquetFile

    for path in sorted(folder.glob("part-*.parquet")):
        for row in ParquetFile(path).read().to_pylist():
            yield row["name"], repr(sorted(row.items())).encode()


def npz(folder: Path) -> Iterator[Entry]:
    """Yield the arrays of each file of a folder."""
    for path in sorted(folder.rglob("*.npz")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        with zipfile.ZipFile(path) as archive:
            content = [(name, archive.read(name)) for name in sorted(archive.namelist())]
        yield str(path.relative_to(folder)).removesuffix(".npz"), repr(content).encode()


READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {".h5": hdf5, ".db": colmap, ".parquet": parquet}


def files(output: Path) -> set[str]:
    """Return the names of an output's files and folders, and of those beside it; numbers in a name are one number."""
    found = [path.relative_to(output.parent) for path in output.parent.rglob("*")]
    return {"".join("0" if c.isdigit() else c for c in str(path)) for path in found}
