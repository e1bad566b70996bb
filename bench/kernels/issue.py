#!/usr/bin/env python
"""Count the instructions that each kernel issues in a run, and the least time in which GPUs issue them.

    python -m bench.kernels.issue [--shape ROWS COLS] [--batch 1] [--compiler newest] [--loops KERNEL] [--write]

No GPU is needed. NVRTC builds each launch of a plan, nvdisasm lists the machine code, and each instruction counts as
often as a warp runs it (`frequencies.py`): its loops' trips follow from shapes and from what a photograph holds
(`trips.py`). A multiprocessor issues one instruction of a warp a cycle and quarter, so the sum bounds the time from
below, as memory does (`roofline.py`). --loops prints a kernel's loops. --write keeps the tables of two compilers, for
one image and for a batch of 16, in results/issue.md: of the newest CUDA, which is the one installed, and of CUDA 13.0,
which is installed into build/ when first asked for.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from bench.common import gpus, machine
from bench.common.gpus import GPUS, Gpu
from bench.kernels import sass, traffic, trips
from bench.kernels.frequencies import Counted, count, regions
from bench.kernels.roofline import table
from bench.kernels.sass import KINDS
from bench.kernels.traffic import Job
from bench.kernels.trips import Made, Scene
from gpusift.devices import TILES, CpuDevice, kernel_sources
from gpusift.devices.device import Sizes
from gpusift.parameters import Parameters
from gpusift.pipeline.key import Key
from gpusift.pipeline.plan import Plans
from tests.support import nvrtc
from tests.support.nvrtc import Figures

KEPT = machine.RESULTS / "issue.md"
NEWEST = "newest"
PINNED = {"13.0": "nvidia-cuda-nvrtc==13.0.88"}  # what a GPU's host may have instead
COUNTED = tuple(gpu for gpu in GPUS if gpu.name != "Orin")
SHAPE = 1080, 1920
BATCH = 16
LEAST_TURNS = 0.02  # of a kernel's instructions, for a loop to be listed

HEAD = """# Instructions issued

Written by `python -m bench.kernels.issue --write`, which says what is counted. Nothing here was measured on a GPU. One
image of {rows} x {cols}, upsampled twice, with {features:,.0f} features. A cell is the least time of a stage's
launches, in microseconds: with every issue slot busy, and in brackets as memory bounds it (results/roofline.md). A GPU
that issues in half of its slots takes twice the first.

"""


@dataclass(frozen=True)
class Row:
    """What launches of a kernel with one constant issue in a run.

    Attributes
    ----------
    kernel : str
        Its name.
    constant : int
        A blur's radius, or 0.
    launches : list of Made
        The launches.
    issued : Counter of str
        Instructions of warps, by kind.
    figures : Figures
        Registers, shared and local memory.
    threads : int
        Of a block.
    """

    kernel: str
    constant: int
    launches: list[Made]
    issued: Counter[str]
    figures: Figures

    @property
    def name(self) -> str:
        """The kernel with its constant."""
        return f"{self.kernel} {self.constant}" if self.constant else self.kernel

    @property
    def n_launches(self) -> int:
        """The number of launches; 0 for further parts of a launch."""
        return sum(made.is_first for made in self.launches)

    @property
    def total(self) -> float:
        """Instructions of warps."""
        return sum(self.issued.values())


class PaperDevice(CpuDevice):
    """A GPU on paper: keeps what it is asked to launch, and launches nothing."""

    def __init__(self, multiprocessors: int) -> None:
        super().__init__()
        self.multiprocessors = multiprocessors
        self.made: list[Made] = []

    @property
    def n_blocks(self) -> int:
        """As a CudaDevice of so many multiprocessors has them."""
        return 8 * self.multiprocessors

    @property
    def n_list_blocks(self) -> int:
        """As a CudaDevice of so many multiprocessors has them."""
        return 8 * self.multiprocessors

    @property
    def blur_piece(self) -> tuple[int, int]:
        """As a CudaDevice has it."""
        return TILES["BLUR_TILE_ROWS"], TILES["BLUR_TILE_COLS"]

    @property
    def extrema_tile(self) -> tuple[int, int]:
        """As a CudaDevice has it."""
        return TILES["EXTREMA_TILE_ROWS"], TILES["EXTREMA_TILE_COLS"]

    def prepare(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: Sizes | None = None,
    ) -> Any:
        """Keep the launch; return what does nothing."""
        names = [parameter.name for parameter in kernel_sources.kernels()[name].parameters]
        numbers = {key: float(value) for key, value in zip(names, arguments) if np.isscalar(value)}
        if name == "sum_counts":
            numbers["entries"] = float(arguments[0].shape[1])
        made = Made(name, constant, tuple(sorted((sizes or {}).items())), _three(grid), _three(block), numbers)
        self.made += _by_blur(made, arguments[2], arguments[3]) if name == "blur" else [made]
        return lambda: None


def _by_blur(made: Made, blurs: np.ndarray, pieces: np.ndarray) -> list[Made]:
    """Return the parts of a launch of blurs: one for each blur, with its radius as the constant and its pieces as grid.

    What a part issues is counted in code that is compiled for its radius alone. `whole` has the radii of all.
    """
    parts = []
    for number, of_pieces in enumerate(np.bincount(pieces[:, 0], minlength=len(blurs))):
        rows, cols, radius = (int(blurs[number, column]) for column in (3, 4, 7))
        numbers = {**made.numbers, "rows": rows, "cols": cols}
        sizes = nvrtc.radii(radius)
        parts.append(
            replace(
                made,
                constant=radius,
                sizes=sizes,
                grid=(int(of_pieces), 1, 1),
                numbers=numbers,
                whole=made.sizes,
                is_first=number == 0,
            )
        )
    return parts


def launches(gpu: Gpu, shape: tuple[int, int], batch: int) -> list[Made]:
    """Return the launches of a run with the default parameters."""
    device = PaperDevice(gpu.multiprocessors)
    key = Key(batch, shape)
    with Plans(device, Parameters(), "kernel").memory(key) as memory:
        memory.plan(key)
    return device.made


def rows(gpu: Gpu, shape: tuple[int, int] = SHAPE, batch: int = 1, scene: Scene | None = None) -> list[Row]:
    """Return what a run issues, a row for each kernel and constant, in the order of `traffic.SEQUENCE`."""
    together: dict[tuple[str, int], list[Made]] = defaultdict(list)
    for made in launches(gpu, shape, batch):
        together[made.kernel, made.constant].append(made)
    found = []
    for (kernel, constant), several in together.items():
        issued: Counter[str] = Counter()
        for made in several:
            for part in counted(made, scene or Scene(), gpu.architecture):
                issued.update({kind: number * made.warps for kind, number in part.total.items()})
        whole = replace(several[0], sizes=several[0].whole or several[0].sizes)
        found.append(Row(kernel, constant, several, issued, _code(whole, gpu.architecture)[1]))
    order = [work.kernel for work in traffic.works(Job(shape))]
    return sorted(found, key=lambda row: order.index(row.kernel) if row.kernel in order else len(order))


def counted(made: Made, scene: Scene, architecture: str) -> list[Counted]:
    """Return a launch's loops and what a warp runs of them."""
    code, _ = _code(made, architecture)
    return count(code, regions(_sources(), trips.times(made, scene)), made.kernel)


def occupancy(row: Row, gpu: Gpu) -> gpus.Occupancy:
    """Return a kernel's occupancy."""
    return gpus.occupancy(gpu.capability, row.launches[0].threads, row.figures.registers, row.figures.shared)


def _code(made: Made, architecture: str) -> tuple[list[sass.Instruction], Figures]:
    constant = 0 if made.whole else made.constant
    return _disassembled(nvrtc.Launch(made.kernel, constant, made.sizes, made.threads), architecture)


@cache
def _disassembled(launch: nvrtc.Launch, architecture: str) -> tuple[list[sass.Instruction], Figures]:
    build = nvrtc.compiled(kernel_sources.text(launch.stage), (*launch.options("float32"), "-lineinfo"), architecture)
    return sass.disassembled(build.code)[launch.kernel], build.figures[launch.kernel]


@cache
def _sources() -> dict[str, str]:
    folder = kernel_sources.folder()
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".cu", ".cuh")}


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z


def time_table(shape: tuple[int, int], batch: int) -> list[str]:
    """Return the table of the least microseconds of an image."""
    columns = {gpu.name: rows(gpu, shape, batch) for gpu in COUNTED}
    floors = {gpu.name: _floors(Job(shape, batch), gpu) for gpu in COUNTED}
    lines, sums = [], [0.0] * len(COUNTED)
    for index, row in enumerate(columns[COUNTED[0].name]):
        cells = []
        for number, gpu in enumerate(COUNTED):
            seconds = columns[gpu.name][index].total / gpu.issued / batch
            sums[number] += seconds
            cells.append(
                f"{seconds * 1e6:.1f} ({floors[gpu.name].get((row.kernel, row.constant), 0) / batch * 1e6:.1f})"
            )
        lines.append([row.name, str(row.n_launches or "same"), *cells])
    n_launches = sum(row.n_launches for row in columns[COUNTED[0].name])
    whole = [sum(floors[gpu.name].values()) / batch * 1e6 for gpu in COUNTED]
    lines.append(["all", str(n_launches), *(f"{s * 1e6:.0f} ({floor:.0f})" for s, floor in zip(sums, whole))])
    return table(["stage", "launches", *(gpu.name for gpu in COUNTED)], lines)


def _floors(job: Job, gpu: Gpu) -> dict[tuple[str, int], float]:
    """Return the least seconds by memory of each kernel and constant."""
    floors: dict[tuple[str, int], float] = defaultdict(float)
    for work in traffic.works(job):
        floors[work.kernel, work.constant] += work.moved / gpu.bandwidth
    return floors


def kind_table(found: list[Row]) -> list[str]:
    """Return the table of millions of instructions by kind."""
    lines = [
        [row.name, *(f"{row.issued[kind] / 1e6:.2f}" for kind in KINDS), f"{row.total / 1e6:.2f}"] for row in found
    ]
    return table(["millions of warps' instructions", *KINDS, "all"], lines)


def loop_table(found: list[Row], architecture: str) -> list[str]:
    """Return the table of the loops: turns of a warp, and instructions of a turn by kind."""
    lines = []
    for row in found:
        made = max(row.launches, key=lambda one: one.warps)
        parts = counted(made, Scene(), architecture)
        whole = sum(sum(part.total.values()) for part in parts)
        for part in parts:
            if sum(part.total.values()) >= LEAST_TURNS * whole:
                of_kinds = [f"{part.body[kind]:.0f}" for kind in KINDS]
                lines.append([row.name, part.name, f"{part.times:.2f}", *of_kinds, f"{sum(part.body.values()):.0f}"])
    return table(["kernel", "loop", "turns", *KINDS, "all"], lines)


def occupancy_table(gpu_rows: dict[str, list[Row]]) -> list[str]:
    """Return the table of registers, occupancy and local memory."""
    first = next(iter(gpu_rows.values()))
    lines = []
    for index, row in enumerate(first):
        cells = []
        for gpu in COUNTED:
            of_gpu = gpu_rows[gpu.name][index]
            cells.append(f"{of_gpu.figures.registers}: {occupancy(of_gpu, gpu).share:.0%}")
        local = max(gpu_rows[gpu.name][index].figures.stack for gpu in COUNTED)
        lines.append([row.name, str(row.launches[0].threads), str(row.figures.shared), str(local), *cells])
    return table(["kernel", "threads", "shared", "local", *(gpu.name for gpu in COUNTED)], lines)


def report() -> str:
    """Return the tables of the compiler that is loaded."""
    by_gpu = {gpu.name: rows(gpu) for gpu in COUNTED}
    hopper = next(gpu for gpu in COUNTED if gpu.name == "H100")
    parts = [
        f"## By NVRTC {nvrtc.version()}",
        "",
        "One image:",
        "",
        *time_table(SHAPE, 1),
        f"An image of a batch of {BATCH}:",
        "",
        *time_table(SHAPE, BATCH),
        f"What is issued for one image, compiled for the {hopper.name}:",
        "",
        *kind_table(by_gpu[hopper.name]),
        f"The loops that hold {LEAST_TURNS:.0%} or more of the instructions of a kernel's largest launch (the kernel's",
        "name stands for what lies outside of loops), compiled for the same: turns of a warp, instructions of a turn.",
        "",
        *loop_table(by_gpu[hopper.name], hopper.architecture),
        "Threads of a block, bytes of shared memory of a block and of local memory of a thread; registers of a thread",
        "and the share of a multiprocessor's warps that are resident:",
        "",
        *occupancy_table(by_gpu),
    ]
    return "\n".join(parts)


def load_pinned(version: str) -> None:
    """Load a pinned NVRTC in place of the installed one, which cuda.bindings would find; installs it if need be."""
    folder = machine.ROOT / "build" / "compilers" / version
    if not folder.is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            PINNED[version],
        ]
        subprocess.run(command, check=True)
    for name in ("libnvrtc-builtins.so", "libnvrtc.so"):
        library = next(path for path in sorted(folder.rglob(f"{name}.*")) if ".alt." not in path.name)
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def write() -> None:
    """Keep the tables of all compilers, each counted in a process of its own."""
    head = HEAD.format(rows=SHAPE[0], cols=SHAPE[1], features=Scene().features)
    texts = []
    for compiler in (NEWEST, *PINNED):
        command = [sys.executable, "-m", "bench.kernels.issue", "--compiler", compiler, "--all"]
        texts.append(subprocess.run(command, capture_output=True, text=True, check=True, cwd=machine.ROOT).stdout)
    KEPT.write_text(head + "\n".join(texts))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", type=int, nargs=2, default=SHAPE, metavar=("ROWS", "COLS"))
    parser.add_argument("--batch", type=int, default=1, help="images in one sequence of launches")
    parser.add_argument("--compiler", default=NEWEST, choices=(NEWEST, *PINNED), help="the CUDA whose NVRTC compiles")
    parser.add_argument("--loops", metavar="KERNEL", help="print this kernel's loops only, for the H100")
    parser.add_argument("--all", action="store_true", help="print all tables that are kept")
    parser.add_argument("--write", action="store_true", help="keep the tables in bench/results/issue.md")
    return parser.parse_args()


def main() -> None:
    """Print or keep the tables."""
    options = arguments()
    if options.write:
        write()
        return
    if options.compiler != NEWEST:
        load_pinned(options.compiler)
    if options.all:
        print(report())
        return
    shape = tuple(options.shape)
    hopper = next(gpu for gpu in COUNTED if gpu.name == "H100")
    found = rows(hopper, shape, options.batch)
    if options.loops:
        print("\n".join(loop_table([row for row in found if row.kernel == options.loops], hopper.architecture)))
        return
    print("\n".join([*time_table(shape, options.batch), *kind_table(found)]))


if __name__ == "__main__":
    main()
