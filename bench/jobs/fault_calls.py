"""System calls that fail on purpose: builds the library of faults.c, and says which call of a run fails."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
CALLS = ("write", "fsync", "rename", "unlink", "ftruncate", "open")  # as `enum call` of faults.c
ERRORS = ("EIO", "ENOSPC", "EINTR")
ERRORS_OF_OPEN = ("EMFILE", "ENFILE", "ENOMEM", "EIO")
NUMBERS = struct.Struct(f"{6 + len(CALLS)}q")  # as `struct control`, before the prefix
PATH_MAX = 4096


@dataclass(frozen=True)
class CallFault:
    """A call that fails.

    Attributes
    ----------
    call : str
        One of `CALLS`.
    number : int
        Which of the calls fails, counted from 1.
    error : int
        The errno.
    lasting : bool
        All later calls fail too, as on a full disk.
    partial : bool
        The first of the failing writes is a short one instead: half of its bytes.
    """

    call: str
    number: int
    error: int
    lasting: bool = False
    partial: bool = False


class Control:
    """The file that all processes with the library map: which call fails, and how many calls there were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self.control = mmap.mmap(file.fileno(), 0)

    def arm(self, fault: CallFault | None) -> None:
        """Have a call fail, or none, and count from 0."""
        chosen = (-1, 0, 0, 0, 0)
        if fault:
            chosen = (CALLS.index(fault.call), fault.number, fault.error, fault.lasting, fault.partial)
        self.control[: NUMBERS.size] = NUMBERS.pack(*chosen, *[0] * (1 + len(CALLS)))

    @property
    def fired(self) -> int:
        """The calls that failed since `arm`."""
        return int(NUMBERS.unpack(self.control[: NUMBERS.size])[5])

    @property
    def counts(self) -> dict[str, int]:
        """The calls since `arm`."""
        return dict(zip(CALLS, NUMBERS.unpack(self.control[: NUMBERS.size])[6:]))


class Calls(Control):
    """The library, built into a folder, and its control; calls on files below `prefix` are counted."""

    def __init__(self, folder: Path, prefix: Path) -> None:
        self.library = folder / "faults.so"
        compiler = os.environ.get("CC", "cc")
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self.library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        path = folder / "control"
        path.write_bytes(bytes(NUMBERS.size) + os.fsencode(prefix).ljust(PATH_MAX, b"\0"))
        super().__init__(path)
        self.arm(None)

    def environment(self) -> dict[str, str]:
        """Return the variables with which processes preload the library."""
        return {"LD_PRELOAD": str(self.library), "FAULTS_CONTROL": str(self.path)}
