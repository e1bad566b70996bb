"""Sets of names that may be larger than memory."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable


class NameSet:
    """A set of names in a temporary file, which is removed with the process; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def update(self, names: Iterable[str]) -> None:
        """Add names; a name that the set has already stays."""
        rows = ((_key(name),) for name in names)
        with self._lock:
            self._database.execute("BEGIN")
            try:
                self._database.executemany("INSERT OR IGNORE INTO names VALUES (?)", rows)
            finally:
                self._database.execute("COMMIT")

    def __contains__(self, name: object) -> bool:
        with self._lock:
            rows = self._database.execute("SELECT 1 FROM names WHERE name = ?", (_key(str(name)),))
            return rows.fetchone() is not None

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM names").fetchone()[0])

    def close(self) -> None:
        """Remove the temporary file."""
        with self._lock:
            self._database.close()


def _key(name: str) -> bytes:
    return name.encode(errors="surrogatepass")
