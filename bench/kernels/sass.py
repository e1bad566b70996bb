"""Machine code of a kernel: its instructions with the source lines that they come from, and its loops.

`nvdisasm -gi` (PyPI: nvidia-cuda-nvdisasm) lists a cubin that was built with -lineinfo. A loop is what lies between a
backward branch and its target.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

KINDS = ("memory", "shared", "float", "compare", "integer", "control")

_LINE = re.compile(r'//## File "[^"]*?([^"/]+)", line (\d+)(?: inlined at "[^"]*?([^"/]+)", line (\d+))?')
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_x?_?\w+):")
_FUNCTION = re.compile(r"^\.text\.(\w+):")
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L\w+)\)")

_OPERATIONS = {
    "memory": "LDG STG RED ATOM ATOMG LDL STL LD ST CCTL MEMBAR ERRBAR",
    "shared": "LDS STS ATOMS LDSM",
    "float": "FADD FMUL FFMA MUFU FRND F2F I2F F2I I2FP F2FP DADD DMUL DFMA HADD2 HFMA2",
    "compare": "FMNMX FMNMX3 FSETP FSET FSEL FCHK ISETP SEL IMNMX VIMNMX VIMNMX3 VIADDMNMX VOTE PLOP3 DSETP",
    "control": "BRA BSSY BSYNC EXIT BAR CALL RET WARPSYNC NOP BREAK NANOSLEEP YIELD DEPBAR R2UR BREV JMP BRX BMOV",
}
_KIND_OF = {operation: kind for kind, operations in _OPERATIONS.items() for operation in operations.split()}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    address : int
        Bytes from the function's start.
    operation : str
        Its name without predicate and modifiers.
    lines : tuple of (str, int)
        The file and line it comes from, then where that function was inlined, and so on outwards.
    target : int or None
        Where a branch goes.
    """

    address: int
    operation: str
    lines: tuple[tuple[str, int], ...]
    target: int | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`; all that is not listed computes addresses, indices and other integers."""
        return _KIND_OF.get(self.operation, "integer")


@dataclass(frozen=True)
class Loop:
    """A loop: its first and last address, the last being that of the branch back."""

    first: int
    last: int

    def holds(self, instruction: Instruction) -> bool:
        """Return whether an instruction lies in the loop."""
        return self.first <= instruction.address <= self.last


def disassembled(cubin: bytes) -> dict[str, list[Instruction]]:
    """Return the instructions of each function of a cubin.

    Raises
    ------
    ImportError
        If nvdisasm is not installed.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_nvdisasm()), "-gi", "-c", file.name]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return parsed(listing)


def parsed(listing: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each function of a listing, without those that fill up its end."""
    functions: dict[str, list[tuple[int, str, tuple[tuple[str, int], ...]]]] = {}
    labels: dict[str, int] = {}
    waiting: list[str] = []
    lines: tuple[tuple[str, int], ...] = ()
    is_open = False  # whether the last line named a source line, so that the next one goes on with the same chain
    current: list[tuple[int, str, tuple[tuple[str, int], ...]]] = []
    for text in listing.splitlines():
        if match := _FUNCTION.match(text):
            current = functions.setdefault(match[1], [])
        elif match := _LABEL.match(text):
            waiting.append(match[1])
        elif match := _LINE.search(text):
            place = match[1], int(match[2])
            lines = (*lines, place) if is_open else (place,)
            is_open = match[3] is not None
        elif match := _INSTRUCTION.match(text):
            is_open = False
            address = int(match[1], 16)
            labels.update(dict.fromkeys(waiting, address))
            waiting = []
            current.append((address, match[2], lines))
    return {name: [_instruction(*one, labels) for one in code if one[1] != "NOP"] for name, code in functions.items()}


def _instruction(address: int, text: str, lines: tuple[tuple[str, int], ...], labels: dict[str, int]) -> Instruction:
    words = re.sub(r"^@!?U?P\w+\s+", "", text).split()
    branch = _BRANCH.search(text)
    return Instruction(address, words[0].split(".")[0], lines, labels.get(branch[1]) if branch else None)


def loops(code: list[Instruction]) -> list[Loop]:
    """Return the loops of a function, outer ones first."""
    ends: dict[int, int] = {}
    for instruction in code:
        if instruction.target is not None and instruction.target < instruction.address:
            ends[instruction.target] = max(ends.get(instruction.target, 0), instruction.address)
    return sorted((Loop(first, last) for first, last in ends.items()), key=lambda loop: loop.first - loop.last)


def kinds(code: list[Instruction]) -> Counter[str]:
    """Return how many instructions of each kind there are."""
    return Counter(instruction.kind for instruction in code)


def _nvdisasm() -> Path:
    try:
        listed = files("nvidia-cuda-nvdisasm") or []
    except PackageNotFoundError:
        listed = []
    for file in listed:
        if file.name == "nvdisasm":
            return Path(str(file.locate()))
    raise ImportError("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
