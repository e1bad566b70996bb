"""Takes out each wait, event and `with device` of the sources, one by one.

Some test must fail each time: `python -m tests.support.mutants [--only TEXT] [--seeds N]`. The changes that no test
notices are printed, and the exit code is 1. A copy of the checkout is changed, never the checkout itself. The barriers
of the kernels are taken out by tests/devices/test_emulated.py.
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

FOLDERS = (
    "gpusift/devices",
    "gpusift/matching",
    "gpusift/features.py",
    "gpusift/refine.py",
    "gpusift/sift.py",
    "gpusift/pipeline",
)
TESTS = (
    "tests/devices/test_team.py",
    "tests/devices/test_cuda.py",
    "tests/test_second_gpu.py",
    "tests/pipeline/test_order.py",
    "tests/pipeline/test_batches.py",
)
FURTHER_TESTS = ("tests/test_sift.py", "tests/matching/test_match.py", "tests/pipeline/test_options.py")
WAITS = "wait_for|wait_until|wait_event|synchronize|used_until|_wait"
WAIT = re.compile(rf"^(?P<indent>\s+)[\w.()]*\.(?:{WAITS})\(.*\)(?P<rest>\s+#.*)?$")
CONTEXT = re.compile(
    r"(?<=with )(?:[\w.]*\.(?:active\(\)|device)|on_device_of\([\w.\[\]]+\))(?=[,:])"
    r"|(?<=enter_context\()[\w.]*\.active\(\)(?=\))"
)
NOTHING = "__import__('contextlib').nullcontext()"


class Mutant(NamedTuple):
    """A line of a file, numbered from 1, as it is and as it is changed."""

    path: str
    number: int
    line: str
    changed: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.line.strip()}"


def mutants_of_sources() -> Iterator[Mutant]:
    """All mutants."""
    for name in FOLDERS:
        paths = sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]
        for path in paths:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                wait = WAIT.match(line)
                changed = f"{wait['indent']}pass" if wait else CONTEXT.sub(NOTHING, line)
                if changed != line and "cpu.py" not in path.name:
                    yield Mutant(os.fspath(path.relative_to(ROOT)), number, line, changed)


def survives(mutant: Mutant, copy: Path, seeds: int) -> bool:
    """Whether all tests pass without it."""
    path = copy / mutant.path
    original = path.read_text()
    lines = original.split("\n")
    assert lines[mutant.number - 1] == mutant.line
    lines[mutant.number - 1] = mutant.changed
    path.write_text("\n".join(lines))
    try:
        return _pass(copy, seeds)
    finally:
        path.write_text(original)


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.fspath(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def _require_import_from(copy: Path) -> None:
    """Refuse a Python that imports another gpusift, as with an editable installation: every mutant would survive."""
    command = [sys.executable, "-c", "import gpusift; print(gpusift.__file__)"]
    done = subprocess.run(command, cwd=copy, env=_environment(copy), capture_output=True, text=True, check=True)
    if copy not in Path(done.stdout.strip()).parents:
        raise SystemExit(
            f"gpusift must not be installed in the Python that runs this, but it imports {done.stdout.strip()}; "
            "run it with the tests' packages only"
        )


def _pass(copy: Path, seeds: int) -> bool:
    environment = _environment(copy)
    for tests, marks in ((TESTS, ()), (FURTHER_TESTS, ("-m", "gpu or standin"))):
        for seed in range(1, seeds + 1):
            options = ["-q", "-x", "-p", "no:cacheprovider", *marks, f"--cuda-standin={seed}"]
            command = [sys.executable, "-m", "pytest", *options, *tests]
            if subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode:
                return False
    return True


def main() -> int:
    """Tries the mutants; prints those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose path and line have this text")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the stand-in that are tried")
    options = parser.parse_args()
    mutants = [m for m in mutants_of_sources() if options.only in str(m)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", "dist")
        shutil.copytree(ROOT, copy, ignore=ignored)
        _require_import_from(copy)
        if not _pass(copy, options.seeds):
            raise SystemExit("the tests must pass before a mutant can be told by a failure")
        for mutant in mutants:
            lives = survives(mutant, copy, options.seeds)
            survivors += [mutant] * lives
            print("SURVIVES" if lives else "caught  ", mutant, flush=True)
    print(f"{len(survivors)} of {len(mutants)} mutants survive")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
