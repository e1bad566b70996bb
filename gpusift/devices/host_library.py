"""The CPU device's library: found, built first in a checkout where the kernels have changed, and loaded.

The package carries one library for each instruction set (CMakeLists.txt); the best that the processor has is taken,
or the one that the environment variable GPUSIFT_INSTRUCTION_SET names.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from gpusift.devices import kernel_sources

BEST_FIRST = ("x86_64_v4", "x86_64_v3", "x86_64_v2", "plain")

# Libraries of other sources stay in a checkout for a day.
KEPT_SECONDS = 86400

_log = logging.getLogger("gpusift")


class Library:
    """One host library: its instruction set, its kernels, and for each precision the function that launches them.

    Parameters
    ----------
    path : Path
        The shared library.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(os.fspath(path))
        self._library.gpusift_instruction_set.restype = ctypes.c_char_p
        self.instruction_set = self._library.gpusift_instruction_set().decode()
        self.runs_here = bool(self._library.gpusift_runs_here())
        self._library.gpusift_team.restype = ctypes.c_void_p
        self._library.gpusift_team_end.argtypes = [ctypes.c_void_p]
        self._find = {name: getattr(self._library, f"gpusift_find_{name}") for name in ("float32", "float64")}
        for function in self._find.values():
            function.argtypes = [ctypes.c_char_p, ctypes.c_int]
            function.restype = ctypes.c_void_p
        self.launch = {name: getattr(self._library, f"gpusift_launch_{name}") for name in ("float32", "float64")}
        for function in self.launch.values():
            function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
            function.restype = None

    @contextmanager
    def team(self, n_threads: int) -> Iterator[int]:
        """Threads for the launches inside the context."""
        team = self._library.gpusift_team(n_threads)
        try:
            yield team
        finally:
            self._library.gpusift_team_end(team)

    def find(self, precision: str, kernel: str, constant: int) -> int:
        """The address of a kernel; RuntimeError if there is none of that name."""
        address = self._find[precision](kernel.encode(), constant)
        if not address:
            raise RuntimeError(f"{self.path.name} has no kernel {kernel!r}: build gpusift again")
        return int(address)


@cache
def libraries() -> tuple[Library, ...]:
    """The libraries that run on this processor, best first.

    Raises
    ------
    RuntimeError
        If there is none and none can be built; says what to do.
    """
    folders = [Path(entry) / "lib" for entry in sys.modules["gpusift"].__path__]
    found = _load(folders)
    if not found and kernel_sources.checkout() is not None:
        found = _load([_published()])
        if not found:
            _build()
            found = _load([_published()])
    if not found:
        raise RuntimeError(
            f"gpusift's CPU library was not found in {', '.join(map(str, folders))}, or none of it runs on this "
            "processor: install gpusift from a wheel for this machine, or from source with a C++ compiler"
        )
    return found


def library() -> Library:
    """The library in use."""
    wanted = os.environ.get("GPUSIFT_INSTRUCTION_SET")
    if not wanted:
        return libraries()[0]
    for candidate in libraries():
        if candidate.instruction_set == wanted:
            return candidate
    names = ", ".join(candidate.instruction_set for candidate in libraries())
    raise RuntimeError(f"GPUSIFT_INSTRUCTION_SET must be one of {names} on this processor, got {wanted!r}")


def _build_folder() -> Path:
    root = kernel_sources.checkout()
    assert root is not None
    return root / "build" / "host"


def _load(folders: list[Path]) -> tuple[Library, ...]:
    """The libraries in these folders that run here and were built from the sources that are here now."""
    found = []
    for suffix in BEST_FIRST:
        for folder in folders:
            path = folder / f"libgpusift_{suffix}.so"
            if path.is_file() and _is_current(path):
                candidate = Library(path)
                if candidate.runs_here:
                    found.append(candidate)
                    break
    return tuple(found)


def _is_current(path: Path) -> bool:
    """Whether a library was built from the sources that are here now: it holds their hash. Read without loading it."""
    return (
        kernel_sources.checkout() is None
        or f"gpusift sources {kernel_sources.sources_hash()}".encode() in path.read_bytes()
    )


def _published() -> Path:
    """The folder of the libraries built from the sources that are here now; a library in it never changes."""
    return _build_folder() / kernel_sources.sources_hash()[:16]


def _build() -> None:
    """Build the libraries of a checkout, and publish them.

    Processes that start at once build one after the other, and the others find what the first has published.
    """
    folder = _build_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with _Locked(folder / "lock"):
        _publish(folder)
        if _load([_published()]):
            return  # another process built them meanwhile
        _log.warning("building gpusift's CPU kernels in %s (once, and after a change to them)", folder)
        _run_cmake(folder)
        if kernel_sources.sources_hash.__wrapped__() != kernel_sources.sources_hash():
            raise RuntimeError("the files in kernels/ must not change while gpusift is built from them; start again")
        _publish(folder)
        _remove_old(folder)


def _run_cmake(folder: Path) -> None:
    """Build the libraries in a folder."""
    cmake = shutil.which("cmake")
    command = [cmake] if cmake else [sys.executable, "-m", "cmake"]
    jobs = str(os.cpu_count() or 1)
    for arguments in (
        ["-S", str(kernel_sources.checkout()), "-B", str(folder)],
        ["--build", str(folder), "-j", jobs],
    ):
        try:
            subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", None) or getattr(error, "stdout", None) or str(error)
            raise RuntimeError(
                "gpusift runs from a checkout whose CPU kernels are not built, and building them failed: it needs "
                "CMake (pip install cmake) and a C++ compiler (Debian: apt install g++ make); or install gpusift "
                f"from a wheel. The error was:\n{detail.strip()}"
            ) from None


def _publish(folder: Path) -> None:
    """Copy what was built to where processes load it, all at once: the linker writes a file in place."""
    built = [library for library in folder.glob("libgpusift_*.so") if _is_current(library)]
    if not built or _published().exists():
        return
    temporary = Path(tempfile.mkdtemp(".tmp", "libraries.", folder))
    try:
        for library in built:
            shutil.copy(library, temporary)
        temporary.chmod(0o755)
        temporary.rename(_published())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_old(folder: Path) -> None:
    """Remove libraries of other sources, unless a process may be about to load them."""
    for other in folder.iterdir():
        is_library = re.fullmatch("[0-9a-f]{16}", other.name) and other != _published()
        if is_library and time.time() - other.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


class _Locked:
    """Holds a file's lock: one process builds, others wait."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX)
        except ImportError:  # not on this system: two builds at once cost time, not correctness
            pass

    def __exit__(self, *_: object) -> None:
        self._file.close()
