"""Write ptxas's figures of every kernel to results/ptxas.md; no GPU is needed.

    python -m bench.kernels.ptxas

Needs NVRTC (pip install "gpusift[test]"). tests/devices/test_nvrtc.py checks kernels and spills of the kept table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.common import machine
from gpusift.parameters import MAX_RADIUS
from tests.support import nvrtc
from tests.support.nvrtc import ARCHITECTURES, PRECISIONS, Figures, Launch

TABLE = machine.RESULTS / "ptxas.md"

HEAD = """# Registers and shared memory of the kernels

Written by `python -m bench.kernels.ptxas`. Each kernel is built as CuPy builds it, by NVRTC {version} for compute
capabilities {first} to {last}. Registers are a thread's, in a column for each capability. Shared memory is a block's,
stack and spills are a thread's, in bytes; where capabilities differ, the largest is given. The number after
a kernel is its compile-time constant: `upsample`'s factor, `first_level`'s radius. Rows with other constants and sizes
than the default parameters' show the limits.

"""


def launches() -> list[Launch]:
    """Return the launches of the table: the default parameters', the extreme ones and the widest blur."""
    default = nvrtc.default_launches()
    blur = next(launch for launch in default if launch.kernel == "blur")
    every = {*default, *nvrtc.extreme_launches(), replace(blur, sizes=nvrtc.radii(MAX_RADIUS))}
    return sorted(every, key=nvrtc.order)


def name_of(launch: Launch) -> str:
    """Return a launch's name in the table: the kernel, its constant, and sizes of its arrays."""
    constant = [str(launch.constant)] if launch.constant else []
    return " ".join([launch.kernel, *constant, *(f"{key}={value}" for key, value in launch.sizes)])


def figures(launch: Launch, dtype: str, architecture: str) -> Figures:
    """Return ptxas's figures of a launch's kernel."""
    return nvrtc.built(launch, dtype, architecture).figures[launch.kernel]


def rows() -> Iterator[list[str]]:
    """Yield the table, row by row."""
    yield ["kernel", "precision", "threads", *map(capability, ARCHITECTURES), "shared", "stack", "spilled"]
    yield ["---", "---", *["--:"] * (len(ARCHITECTURES) + 4)]
    for launch in launches():
        for dtype in PRECISIONS:
            found = [figures(launch, dtype, architecture) for architecture in ARCHITECTURES]
            registers = [str(one.registers) for one in found]
            worst = [str(max(getattr(one, key) for one in found)) for key in ("shared", "stack", "spilled")]
            yield [name_of(launch), dtype, str(launch.threads), *registers, *worst]


def kept() -> dict[tuple[str, str], int]:
    """Return the bytes spilled of each kernel and precision, from the kept table."""
    table = [line.strip("| ").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    return {(row[0], row[1]): int(row[-1]) for row in table[2:]}


def capability(architecture: str) -> str:
    """Return a compute capability as NVIDIA writes it: "9.0"."""
    return f"{architecture[:-1]}.{architecture[-1]}"


def main() -> None:
    """Write the table."""
    ends = capability(ARCHITECTURES[0]), capability(ARCHITECTURES[-1])
    head = HEAD.format(version=nvrtc.version(), first=ends[0], last=ends[1])
    TABLE.write_text(head + "".join(f"| {' | '.join(row)} |\n" for row in rows()))


if __name__ == "__main__":
    main()
