"""The checkout's folder, and its modules run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# For processes to import gpusift, bench and tests; conftest.py puts it into the environment.
PYTHONPATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def run_module(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module of the checkout as ``python -m`` does."""
    return subprocess.run([sys.executable, "-m", name, *map(str, arguments)], capture_output=True, text=True)
