"""A wheel, built from the files that the container's build stage copies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.checkout import ROOT


def copied() -> list[str]:
    """The names that the Dockerfile's stage `build` copies from the checkout."""
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM base AS build\n")[1].split("\nFROM ")[0]
    return [name for names in re.findall(r"^COPY (.*) \S+$", stage, re.MULTILINE) for name in names.split()]


def build(folder: Path) -> Path:
    """Build a wheel in an empty folder, and return its path.

    The CPU kernels are compiled without optimization, to save time.
    """
    context = folder / "context"
    context.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "lib")  # as .dockerignore
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, context)
    compiler = folder / "c++"
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -O0\n')
    compiler.chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-cache-dir",
        "--wheel-dir",
        str(folder / "wheel"),
    ]
    strict = "--config-settings=cmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON"
    offline = ["--no-index", "--no-build-isolation", strict, "."]
    environment = {**os.environ, "CXX": str(compiler), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*command, *offline], cwd=context, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "wheel").iterdir()
    return wheel
