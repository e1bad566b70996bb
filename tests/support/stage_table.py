"""What a row of the table of stages still lacks elsewhere in a checkout, each with the file and line to go to."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.kernels import traffic
from gpusift.stages import Stage

TABLE = "gpusift/stages/__init__.py"
SHARED_KERNELS = {"lists.cu"}  # of all stages
OPTIONAL_KERNELS = {
    "selection.cu",
    "affine_shape.cu",
}  # of options that are off by default, which the bench does not count
OTHER_KERNELS = {"matching.cu", "alignment.cu"}  # after the features
SHARED_MODULES = {"blur_order", "feature_lists", "levels", "workspace"}
SIGNATURE = re.compile(r"^KERNEL(?:_OF\(\w+\))? (\w+)\(", re.MULTILINE)


def gaps(root: Path, stages: Sequence[Stage]) -> list[str]:
    """Where a checkout lacks something for these stages: a line each, with the file and line."""
    table = _line_of(root, TABLE, "STAGES = (")
    found = [gap for stage in stages for gap in _gaps_of(root, stage)]
    listed = {stage.kernels for stage in stages} | SHARED_KERNELS | OTHER_KERNELS
    for path in sorted((root / "kernels").glob("*.cu")):
        if path.name not in listed:
            found.append(
                f"kernels/{path.name}:1: no stage has this file; add a row to {_line_of(root, TABLE, 'STAGES')}"
            )
    modules = {_module(stage.steps) for stage in stages} | SHARED_MODULES
    for path in sorted((root / "gpusift" / "stages").glob("[!_]*.py")):
        if path.stem not in modules:
            found.append(f"gpusift/stages/{path.name}:1: no stage has this module; add a row to {table}")
    return found


def _gaps_of(root: Path, stage: Stage) -> list[str]:
    row, module = _line_of(root, TABLE, f'"{stage.name}"'), _module(stage.steps)
    found = []

    def require(is_there: bool, what: str, place: str) -> None:
        if not is_there:
            found.append(f"{row}: the stage {stage.name!r} lacks {what}; add it at {place}")

    test = f"tests/stages/test_{module}.py"
    require((root / test).is_file(), "tests", f"{test}:1")
    if stage.kernels is None:
        return found
    file = root / "kernels" / stage.kernels
    require(file.is_file(), "kernels", f"kernels/{stage.kernels}:1")
    if not file.is_file():
        return found
    kernels, host = SIGNATURE.findall(file.read_text(encoding="utf-8")), "kernels/host/kernels.cpp"
    table = (root / host).read_text(encoding="utf-8")
    require(f'"../{stage.kernels}"' in table, "its file in the CPU library", _line_of(root, host, '#include "../'))
    for name in kernels:
        place = _line_of(root, host, "if (name ==")
        require(f'"{name}"' in table, f"the kernel {name!r} in the CPU library's table", place)
    counted = {work.kernel for work in traffic.works(traffic.Job((100, 100)))}
    place = _line_of(root, "bench/kernels/traffic.py", "SEQUENCE")
    is_counted = stage.kernels in OPTIONAL_KERNELS or bool(counted & set(kernels))
    require(is_counted, "the work of its kernels", place)
    return found


def _module(steps: Callable) -> str:
    return steps.__module__.rpartition(".")[2]


def _line_of(root: Path, file: str, text: str) -> str:
    """The file and the first line that holds a text, or line 1."""
    lines = (root / file).read_text(encoding="utf-8").splitlines()
    return f"{file}:{next((number for number, line in enumerate(lines, 1) if text in line), 1)}"
