"""The machine of a measurement: hardware, versions and commit. No names of hosts, users or paths."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"

DISTRIBUTIONS = {
    "gpusift": ("gpusift",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "scikit-image": ("scikit-image",),
    "pycolmap": ("pycolmap", "pycolmap-cuda12"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "nvimgcodec": ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"),
    "cvcuda": ("cvcuda-cu13", "cvcuda-cu12"),
    "kornia-rs": ("kornia-rs",),
    "kornia": ("kornia",),
    "torch": ("torch",),
    "staysift": ("staysift",),
    "silx": ("silx",),
    "pyopencl": ("pyopencl",),
}


def hardware() -> dict[str, Any]:
    """Return the processor's model, usable cores, memory and GPU, and the instruction set that gpusift uses."""
    found: dict[str, Any] = {
        "cpu": _proc_field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": _memory_gb(),
        "instruction_set": None,
        "gpu": None,
    }
    try:
        from gpusift import devices
    except ImportError:
        return found
    found["instruction_set"] = devices.cpu_info()["instruction_set"]
    cuda = devices.cuda_info()
    if "error" not in cuda:
        first = cuda["devices"][0]
        found["gpu"] = {
            "name": first["name"],
            "compute_capability": first["compute_capability"],
            "memory_total": first["memory_total"],
            "cuda_driver": cuda["cuda_driver"],
            "cuda_runtime": cuda["cuda_runtime"],
        }
    return found


def kind(found: dict[str, Any]) -> str:
    """Return a name for the kind of machine that is safe in file names: ``amd-epyc-2-cores``, for example."""
    name = found["gpu"]["name"] if found["gpu"] else f"{found['cpu']} {found['cores']} cores"
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that may affect results; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name, distributions in DISTRIBUTIONS.items():
        found[name] = next(filter(None, map(_version, distributions)), None)
    if found["gpusift"] is None and (ROOT / "gpusift" / "__init__.py").exists():
        found["gpusift"] = "checkout"
    return found


def commit() -> dict[str, Any]:
    """Return the git commit of the checkout, and whether there are uncommitted changes; None without git."""
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if head else None
    return {"commit": head, "dirty": None if changes is None else bool(changes)}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _proc_field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def _memory_gb() -> float | None:
    total = _proc_field("/proc/meminfo", "MemTotal")
    return None if total is None else round(int(total.split()[0]) / 2**20, 1)
