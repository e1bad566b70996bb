"""The kernels' sources: their folder, their text as NVRTC reads it, and their signatures."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TYPES = {"int": "int32", "long long": "int64", "unsigned char": "uint8", "double": "float64"}
_KERNEL = re.compile(r"^KERNEL(?:_OF\((?P<constant>\w+)\))? (?P<name>\w+)\((?P<parameters>[^)]*)\)", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: its name, NumPy dtype ("real" follows the precision), and whether it is an array."""

    name: str
    dtype: str
    is_array: bool


@dataclass(frozen=True)
class Kernel:
    """A kernel: its name, its stage (the file it is in), its parameters, and the name of its compile-time constant."""

    name: str
    stage: str
    parameters: tuple[Parameter, ...]
    constant: str | None


@cache
def folder() -> Path:
    """The folder of the kernels: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "kernels", package.parent / "kernels"):
        if (candidate / "platform.cuh").is_file():
            return candidate
    raise RuntimeError(
        f"gpusift's kernels were not found beside {package}: the installation is incomplete, install gpusift again"
    )


@cache
def stages() -> tuple[str, ...]:
    """The names of the files with kernels, without their suffix, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.cu")))


@cache
def text(stage: str) -> str:
    """A stage's file with its headers included, each once, and `#line` directives so that messages name the file."""
    return _with_headers(f"{stage}.cu", set())


def _with_headers(name: str, included: set[str]) -> str:
    """A file with the headers that are not in `included`, which it extends, in place."""
    included.add(name)
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((folder() / name).read_text(encoding="utf-8").splitlines(), 1):
        header = re.fullmatch(r'#include "(\w+\.cuh)"', line)
        if line == "#pragma once" or (header and header[1] in included):
            lines.append("")
        elif header:
            lines += [_with_headers(header[1], included), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


@cache
def kernels() -> dict[str, Kernel]:
    """All kernels by name, read from the sources."""
    found = {}
    for stage in stages():
        for match in _KERNEL.finditer((folder() / f"{stage}.cu").read_text(encoding="utf-8")):
            parameters = tuple(_parameter(words) for words in match["parameters"].split(","))
            found[match["name"]] = Kernel(match["name"], stage, parameters, match["constant"])
    return found


def _parameter(words: str) -> Parameter:
    plain = " ".join(re.sub(r"\bconst\b|__restrict__|\*", " ", words).split())
    dtype, name = plain.rsplit(" ", 1)
    return Parameter(name, _TYPES.get(dtype, dtype), "*" in words)


@cache
def checkout() -> Path | None:
    """The checkout that the package runs from (also when installed as editable), or None if it is installed."""
    parent = folder().parent
    return parent if (parent / "CMakeLists.txt").is_file() else None


@cache
def sources_hash() -> str:
    """The hash of a host library's sources, as CMakeLists.txt computes it. Only in a checkout."""
    root = checkout()
    assert root is not None
    files = [path for path in folder().rglob("*") if path.is_file()]
    hashes = sorted(
        f"{file.relative_to(root).as_posix()}:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in (*files, root / "CMakeLists.txt")
    )
    return hashlib.sha256(";".join(hashes).encode()).hexdigest()
