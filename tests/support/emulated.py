"""The kernels in emulated threads: each CUDA thread an operating-system thread, with the GPU's block shapes."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusift.devices import TILES, CpuDevice, host_library, kernel_sources
from gpusift.devices.cpu import CpuLaunch
from gpusift.devices.device import Shape
from tests.support.checkout import ROOT

SANITIZERS = ("thread", "address,undefined")

# What runs every kernel (emulated_run.py), and the files whose barriers another part than the stages runs.
PARTS = ("stages", "selection", "pooling", "shapes", "matching", "alignment")
PART_OF = {
    "affine.cuh": "alignment",
    "affine_shape.cu": "shapes",
    "alignment.cu": "alignment",
    "alignment.cuh": "alignment",
    "best_two.cuh": "matching",
    "descriptor.cu": "pooling",
    "matching.cu": "matching",
    "selection.cu": "selection",
}

# The exit code of a sanitizer with findings; Python never exits with it.
FOUND = 66

# Blocks of a launch along x. Each takes several entries of a list, so that it passes its barriers several times.
MOST_BLOCKS = 2


class EmulatedDevice(CpuDevice):
    """The CPU in emulated threads, with few blocks, which take all the work."""

    def __init__(self, dtype: str, library: Path) -> None:
        super().__init__(dtype, library=host_library.Library(library))

    @property
    def blur_piece(self) -> tuple[int, int]:
        """A tile of the library that `build` makes."""
        return TILES["BLUR_TILE_ROWS"], TILES["BLUR_TILE_COLS"]

    @property
    def extrema_tile(self) -> tuple[int, int]:
        """A tile of the library that `build` makes."""
        return TILES["EXTREMA_TILE_ROWS"], TILES["EXTREMA_TILE_COLS"]

    def bind(self, name: str, grid: Shape, *rest: Any) -> CpuLaunch:
        """A launch with few blocks, except where there is a block for each piece."""
        blocks = grid[0] if name == "blur" else min(grid[0], MOST_BLOCKS)
        return super().bind(name, (blocks, *grid[1:]), *rest)


def build(sanitizer: str = "") -> Path:
    """Builds the library of emulated threads in the checkout, and returns its path; quick if nothing has changed."""
    folder = ROOT / "build" / f"emulated-{sanitizer.replace(',', '-') or 'plain'}"
    folder.mkdir(parents=True, exist_ok=True)
    definitions = ";".join(f"{name}={value}" for name, value in TILES.items())
    options = ["-DGPUSIFT_EMULATED=ON", f"-DGPUSIFT_SANITIZER={sanitizer}", f"-DGPUSIFT_DEFINITIONS={definitions}"]
    options.append("-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
    with (folder / "lock").open("w") as lock:  # one process builds, others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (["-S", str(ROOT), "-B", str(folder), *options], ["--build", str(folder)]):
            done = subprocess.run(["cmake", *arguments], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libgpusift_emulated.so"


def run(library: Path, sanitizer: str, parts: Iterable[str] = PARTS, removed: str = "") -> subprocess.CompletedProcess:
    """Runs every kernel in emulated threads under a sanitizer, in a separate process.

    Parameters
    ----------
    library : Path
        What `build` has built with the sanitizer.
    sanitizer : str
        One of `SANITIZERS`.
    parts : iterable of str
        What is run, of `PARTS`.
    removed : str
        File and line of a barrier that is taken out, such as "descriptor.cu:86"; the run ends at the first finding.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "LD_PRELOAD": _preloaded(sanitizer)}
    environment["TSAN_OPTIONS"] = f"exitcode={FOUND}:halt_on_error={int(bool(removed))}"
    environment["ASAN_OPTIONS"] = f"exitcode={FOUND}:detect_leaks=0"
    environment |= {"UBSAN_OPTIONS": "print_stacktrace=1"} | ({"GPUSIFT_REMOVED_BARRIER": removed} if removed else {})
    command = [sys.executable, "-m", "tests.support.emulated_run", str(library), *parts]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


def _preloaded(sanitizer: str) -> str:
    name = {"thread": "libtsan.so", "address,undefined": "libasan.so"}[sanitizer]
    found = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@dataclass(frozen=True)
class Barrier:
    """A barrier of the kernels: its file, its line from 1, and the part that runs it."""

    file: str
    line: int
    part: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def barriers() -> list[Barrier]:
    """All barriers of the kernels that order threads of a block.

    A barrier whose comment names another block also orders this block's writes before another's reads. Emulated blocks
    run one after the other, so its absence cannot be noticed.
    """
    found = []
    for path in sorted(kernel_sources.folder().glob("*.cu*")):
        part = PART_OF.get(path.name, "stages")
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "__syncthreads();" in text and "another block" not in text:
                found.append(Barrier(path.name, line, part))
    return found


def is_missed(library: Path, barrier: Barrier) -> bool:
    """Whether the ThreadSanitizer finds a race at once when a barrier is taken out."""
    done = run(library, "thread", [barrier.part], str(barrier))
    return done.returncode == FOUND and "WARNING: ThreadSanitizer: data race" in done.stderr
