"""Errors of reading images."""

from __future__ import annotations

import os


class DecodeError(ValueError):
    """The reason why the bytes of a file cannot be decoded, without the file's name."""


class ImageReadError(ValueError):
    """A file that exists, but cannot be decoded.

    Attributes
    ----------
    path : str
        The file.
    reason : str
        What must hold, what was found instead, and what to do.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = os.fspath(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
