"""What a source may cost at most: bytes, entries, depth, time and redirects."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Bounds on looking for images, so that no server, archive or list takes all memory or all time.

    Attributes
    ----------
    list_bytes : int
        Of a list of paths, as it is read.
    listing_bytes : int
        Of a web server's page for a folder, and of an archive's table of contents.
    entries : int
        Files and folders of one folder or one archive.
    depth : int
        Folders in folders.
    idle_seconds : float
        Without a byte from a server.
    listing_seconds : float
        For a web server's page for a folder, and for a list from a web server.
    redirects : int
        From one URL to the next.
    """

    list_bytes: int = 4 << 30
    listing_bytes: int = 256 << 20
    entries: int = 1_000_000
    depth: int = 64
    idle_seconds: float = 60.0
    listing_seconds: float = 600.0
    redirects: int = 10

    @classmethod
    def parse(cls, settings: tuple[str, ...]) -> Limits:
        """Return the defaults, changed as texts such as "entries=1000" say.

        Raises
        ------
        ValueError
            There is no such limit, or the value is no positive number.
        """
        types = {field.name: int if field.type == "int" else float for field in fields(cls)}
        changes: dict[str, Any] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in types:
                raise ValueError(f"a limit must be one of {', '.join(types)}, as in entries=1000; got {setting!r}")
            try:
                number = types[name](value)
            except ValueError:
                number = 0
            if not number > 0:
                raise ValueError(f"limit {name} must be a positive number, got {value!r}")
            changes[name] = number
        return cls(**changes)

    def exceeded(self, name: str, what: str) -> str:
        """Return the message for something that goes beyond a limit."""
        return f"{what} must stay within {getattr(self, name):,} (limit {name}), but does not"


DEFAULT_LIMITS = Limits()
