"""A stand-in for CuPy without a GPU: `install` puts it on the path of this process and of those that it starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def install(**settings: object) -> None:
    """Lets `import cupy` find the stand-in, here and in child processes; settings as `standin.Machine` takes them."""
    assert "cupy" not in sys.modules, "CuPy has been imported already"
    sys.path.insert(0, str(FOLDER))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["CUPY_STANDIN"] = json.dumps(settings)
