"""The checkout's folder, and processes that import from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# For a child process to import what this one can import.
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, sys.path)])


def run_module(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module of the checkout as ``python -m`` does."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True)
