"""The kernels in emulated threads: each CUDA thread an operating-system thread, with the GPU's block shapes."""

import os
import subprocess
import sys
from pathlib import Path

from gpusift.devices import TILES, CpuDevice, host_library
from tests.support.checkout import ROOT

SANITIZERS = ("thread", "address", "undefined")

# The exit code of a sanitizer with findings; Python never exits with it.
FOUND = 66


class EmulatedDevice(CpuDevice):
    """The CPU in emulated threads. Its grids are as small as a GPU's: each block takes several entries of a list."""

    def __init__(self, dtype: str, library: Path) -> None:
        super().__init__(dtype, library=host_library.Library(library))


def build(folder: Path, sanitizer: str = "", kernels: Path | None = None) -> Path:
    """Build the library of emulated threads, and return its path. `kernels` may be a changed copy of the sources."""
    root = ROOT
    if kernels is not None:
        root = kernels.parent
        (root / "CMakeLists.txt").write_text((ROOT / "CMakeLists.txt").read_text())
    definitions = ";".join(f"{name}={value}" for name, value in TILES.items())
    options = ["-DGPUSIFT_EMULATED=ON", f"-DGPUSIFT_SANITIZER={sanitizer}", f"-DGPUSIFT_DEFINITIONS={definitions}"]
    options.append("-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
    for arguments in (["-S", str(root), "-B", str(folder), *options], ["--build", str(folder)]):
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libgpusift_emulated.so"


def run(library: Path, sanitizer: str) -> subprocess.CompletedProcess:
    """Run the whole pipeline, with every kernel, in emulated threads under a sanitizer, in a separate process."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if sanitizer != "undefined":
        name = {"thread": "libtsan.so", "address": "libasan.so"}[sanitizer]
        found = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        environment["LD_PRELOAD"] = found.stdout.strip()
    environment["TSAN_OPTIONS"] = f"exitcode={FOUND}"
    environment["ASAN_OPTIONS"] = f"exitcode={FOUND}:detect_leaks=0"
    environment["UBSAN_OPTIONS"] = "print_stacktrace=1"
    command = [sys.executable, "-m", "tests.support.emulated_run", str(library)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
