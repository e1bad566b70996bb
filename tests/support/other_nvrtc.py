"""Another version of NVRTC than the installed one: `python -m tests.support.other_nvrtc VERSION` builds every kernel.

It must lie in build/compilers/VERSION, where `make test` installs it.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from tests.support import nvrtc
from tests.support.checkout import ROOT

VERSIONS = ("12.9", "13.0")  # for cupy-cuda12x, and the oldest for cupy-cuda13x
FOLDER = ROOT / "build" / "compilers"
BUILDS = [("float32", "75"), ("float32", "90"), ("float32", "120"), ("float64", "90")]


def library_of(version: str) -> Path | None:
    """The library of a version, if it is installed."""
    found = sorted((FOLDER / version).rglob("libnvrtc.so.*[0-9]"))
    return found[0] if found else None


class Nvrtc:
    """A library with the functions of `cuda.bindings.nvrtc` that `tests.support.nvrtc` calls."""

    nvrtcResult = nvrtc.nvrtc.nvrtcResult

    def __init__(self, path: Path) -> None:
        for builtins in path.parent.glob("libnvrtc-builtins.so.*[0-9]"):
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path))

    def _call(self, name: str, *arguments: Any) -> Any:
        return self.nvrtcResult(getattr(self._library, name)(*arguments))

    def nvrtcVersion(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        return self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor)), major.value, minor.value

    def nvrtcCreateProgram(self, text, name, n_headers, headers, names):
        program = ctypes.c_void_p()
        return self._call("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None), program

    def nvrtcCompileProgram(self, program, n, options):
        return (self._call("nvrtcCompileProgram", program, n, (ctypes.c_char_p * n)(*options)),)

    def nvrtcDestroyProgram(self, program):
        return (self._call("nvrtcDestroyProgram", ctypes.byref(program)),)

    def _size(self, name, program):
        size = ctypes.c_size_t()
        return self._call(name, program, ctypes.byref(size)), size.value

    def nvrtcGetProgramLogSize(self, program):
        return self._size("nvrtcGetProgramLogSize", program)

    def nvrtcGetCUBINSize(self, program):
        return self._size("nvrtcGetCUBINSize", program)

    def nvrtcGetProgramLog(self, program, content):
        return (self._call("nvrtcGetProgramLog", program, ctypes.c_char_p(content)),)

    def nvrtcGetCUBIN(self, program, content):
        return (self._call("nvrtcGetCUBIN", program, ctypes.c_char_p(content)),)


def main(version: str) -> int:
    """Builds every kernel; prints the compiler's version and what is wrong."""
    path = library_of(version)
    assert path is not None, f"NVRTC {version} must be installed in {FOLDER / version}"
    nvrtc.nvrtc = Nvrtc(path)
    print(nvrtc.version())
    launches = {*nvrtc.default_launches(), *nvrtc.extreme_launches()}
    modules = {(launch.options(dtype), dtype, sm): launch for launch in launches for dtype, sm in BUILDS}
    wrong = [problem for (_, dtype, sm), launch in modules.items() for problem in nvrtc.problems(launch, dtype, sm)]
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
