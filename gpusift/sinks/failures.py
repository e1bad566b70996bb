"""Images that failed, and why: a file with one JSON object a line, of which a kill loses at most the last one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from gpusift.storage.atomic import remove_temporaries, write_at, write_whole
from gpusift.storage.name_set import NameSet


class Failures:
    """The file `failures.jsonl` of a sink: `name`, `url`, `reason` and `time` (UTC) of each image that failed.

    `name in failures` says whether the image failed, in an earlier run or in this one; earlier runs do not count if
    their images are to be tried again.

    Parameters
    ----------
    path : str or path-like
        The file; it appears with the first failure.
    done : container of str, optional
        Images that have results: their records are removed.
    retry : bool, optional
        Images that failed in earlier runs are to be tried again. Their records stay until they succeed.

    Raises
    ------
    OSError
        The file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], done: Container[str] = (), *, retry: bool = False) -> None:
        self.path = Path(path)
        self._done = done
        self._names = NameSet()
        self._tidy()
        if not retry:
            self._names.update(record["name"] for record in read(self.path))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def add(self, name: str, url: str, reason: str) -> None:
        """Record a failure; it is on the disk when this returns.

        Raises
        ------
        OSError
            It cannot be written.
        """
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"name": name, "url": url, "reason": reason, "time": moment}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            end = os.fstat(descriptor).st_size
            try:
                write_at(descriptor, line.encode(), end)
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, end)  # else the next record would follow half a line
                raise
        finally:
            os.close(descriptor)
        self._names.update([name])

    def close(self) -> None:
        """Remove the records of images that succeeded."""
        self._tidy()
        self._names.close()

    def _tidy(self) -> None:
        """Keep the last record of each image that has no result; drop half lines too."""
        remove_temporaries(self.path)
        if not self.path.exists():
            return
        records = {record["name"]: record for record in read(self.path) if record["name"] not in self._done}
        lines = "".join(json.dumps(record) + "\n" for record in records.values()).encode()
        if lines != self.path.read_bytes():
            write_whole(self.path, lines) if lines else self.path.unlink()


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the records of failures.

    Parameters
    ----------
    path : str or path-like
        The file; if it does not exist, there are no records.

    Yields
    ------
    record : dict
        `name`, `url`, `reason`, `time`, all str. Half lines are left out.
    """
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("name"), str):
                yield record
