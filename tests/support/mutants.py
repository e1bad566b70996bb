"""Takes out each wait, event and `with device` of the sources, one by one, and each barrier of the kernels.

Some test must fail each time: `python -m tests.support.mutants [--only TEXT] [--barriers] [--seeds N]`. What no test
misses is printed, and the exit code is 1. A copy of the checkout is changed, never the checkout itself.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.checkout import ROOT

FOLDERS = ("gpusift/devices", "gpusift/pipeline", "gpusift/matching", "gpusift/sift.py", "gpusift/features.py")
TESTS = (
    "tests/devices/test_cuda.py",
    "tests/test_second_gpu.py",
    "tests/pipeline/test_order.py",
    "tests/pipeline/test_batches.py",
)
FURTHER_TESTS = ("tests/test_sift.py", "tests/matching/test_match.py", "tests/pipeline/test_options.py")
WAITS = "wait_for|wait_until|wait_event|synchronize|used_until|_wait"
WAIT = re.compile(rf"^(?P<indent>\s+)[\w.()]*\.(?:{WAITS})\(.*\)(?P<rest>\s+#.*)?$")
CONTEXT = re.compile(r"(?<=with )[\w.]*\.(?:active\(\)|device)(?=[,:])|(?<=enter_context\()[\w.]*\.active\(\)(?=\))")
NOTHING = "__import__('contextlib').nullcontext()"
BARRIER = "__syncthreads();"


class Mutant(NamedTuple):
    """A line of a file, numbered from 1, as it is and as it is changed."""

    path: str
    number: int
    line: str
    changed: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.line.strip()}"


def of_python() -> Iterator[Mutant]:
    """The mutants of the host's code."""
    for name in FOLDERS:
        paths = sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]
        for path in paths:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                wait = WAIT.match(line)
                changed = f"{wait['indent']}pass" if wait else CONTEXT.sub(NOTHING, line)
                if changed != line and "cpu.py" not in path.name:
                    yield Mutant(os.fspath(path.relative_to(ROOT)), number, line, changed)


def of_kernels() -> Iterator[Mutant]:
    """The mutants of the kernels: each without one of its barriers."""
    for path in sorted((ROOT / "kernels").glob("*.cu*")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if BARRIER in line:
                yield Mutant(os.fspath(path.relative_to(ROOT)), number, line, line.replace(BARRIER, "", 1))


def survives(mutant: Mutant, copy: Path, seeds: int) -> bool:
    """Whether all tests pass without it."""
    path = copy / mutant.path
    original = path.read_text()
    lines = original.split("\n")
    assert lines[mutant.number - 1] == mutant.line
    lines[mutant.number - 1] = mutant.changed
    path.write_text("\n".join(lines))
    try:
        return _passes_sanitizer(copy) if mutant.path.startswith("kernels") else _pass(copy, seeds)
    finally:
        path.write_text(original)


def _pass(copy: Path, seeds: int) -> bool:
    environment = {**os.environ, "PYTHONPATH": os.fspath(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    for tests in (TESTS, FURTHER_TESTS):
        for seed in range(1, seeds + 1):
            options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "gpu or standin", f"--cuda-standin={seed}"]
            command = [sys.executable, "-m", "pytest", *options, *tests]
            if subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode:
                return False
    return True


def _passes_sanitizer(copy: Path) -> bool:
    """Whether the ThreadSanitizer is silent on the emulated threads."""
    from tests.support import emulated

    shutil.rmtree(copy / "build-emulated", ignore_errors=True)
    done = emulated.run(emulated.build(copy / "build-emulated", "thread", copy / "kernels"), "thread")
    return done.returncode == 0


def main() -> int:
    """Tries the mutants; prints those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose path and line have this text")
    parser.add_argument("--barriers", action="store_true", help="those of the kernels, which take minutes each")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the stand-in that are tried")
    options = parser.parse_args()
    mutants = [m for m in (of_kernels() if options.barriers else of_python()) if options.only in str(m)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", "dist")
        shutil.copytree(ROOT, copy, ignore=ignored)
        if not options.barriers and not _pass(copy, options.seeds):
            raise SystemExit("the tests must pass before a mutant can be told by a failure")
        for mutant in mutants:
            lives = survives(mutant, copy, options.seeds)
            survivors += [mutant] * lives
            print("SURVIVES" if lives else "caught  ", mutant, flush=True)
    print(f"{len(survivors)} of {len(mutants)} mutants survive")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
