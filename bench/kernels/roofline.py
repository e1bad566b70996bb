#!/usr/bin/env python
"""Print the least memory traffic, arithmetic and time of each kernel on several GPUs, and its occupancy.

    python -m bench.kernels.roofline [--shape ROWS COLS] [--upsampling 2] [--batch 1] [--keypoints 5000] [--write]

No GPU is needed: bytes and operations follow from shapes, rates are from data sheets, registers from ptxas. On a GPU,
the launches of gpusift's plan are timed too, and shown as multiples of their floor at the measured copy bandwidth.
`bench.kernels.traffic` states what is counted, `bench.common.gpus` has the data sheets. --write keeps the tables that
need no GPU in results/roofline.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from bench.common import gpus, machine
from bench.common.gpus import GPUS, Gpu
from bench.common.tables import table
from bench.kernels import traffic
from bench.kernels.traffic import Job, Work
from gpusift.parameters import Parameters

KEPT = machine.RESULTS / "roofline.md"
MEASURED_CALLS = 20
WARM_UP = 3

HEAD = """# Floors of the kernels

Written by `python -m bench.kernels.roofline --write`. Nothing here was measured: bytes and operations follow from
shapes (`bench/kernels/traffic.py`), rates are the vendors', and a floor is the longer of the two times that they
give. Real copies reach about nine tenths of a sheet's bandwidth; a level that is still in the cache when it is read
costs less than here.

"""


class Launch(Protocol):
    """A launch of a kernel, called without arguments. `name` is the kernel's, as in `traffic.Work.kernel`."""

    name: str

    def __call__(self) -> None:
        """Launch on the current stream."""


class Plan(Protocol):
    """The launches of one run, in order; the sequence can be repeated."""

    launches: Sequence[Launch]


def work_table(job: Job) -> list[str]:
    """Return the table of bytes and operations."""
    lines = [
        [
            work.name,
            str(work.launches),
            f"{work.read / 1e6:.2f}",
            f"{work.written / 1e6:.2f}",
            f"{work.operations / 1e6:.1f}",
            f"{work.operations / work.moved:.1f}",
        ]
        for work in [*traffic.works(job), total(traffic.works(job))]
    ]
    return table(["kernel", "launches", "MB read", "MB written", "M operations", "operations / byte"], lines)


def total(works: list[Work]) -> Work:
    """Return the sum of works."""
    sums = {key: sum(getattr(work, key) for work in works) for key in ("launches", "read", "written", "operations")}
    return Work("all", "", 0, **sums)


def floor_table(job: Job, chosen: Iterable[Gpu] = GPUS) -> list[str]:
    """Return the table of the least microseconds; "a" marks those that arithmetic bounds instead of memory."""
    chosen = list(chosen)
    works = traffic.works(job)
    lines = []
    for work in works:
        floors = [traffic.floor_seconds(work, gpu.bandwidth, gpu.instructions) for gpu in chosen]
        lines.append([work.name, *(f"{s * 1e6:.1f}{' a' if bound == 'arithmetic' else ''}" for s, bound in floors)])
    sums = [floor_of(works, gpu) for gpu in chosen]
    lines.append(["all", *(f"{seconds * 1e6:.0f}" for seconds in sums)])
    lines.append(["images/s", *(f"{job.batch / seconds:,.0f}" for seconds in sums)])
    return table(["least microseconds", *(gpu.name for gpu in chosen)], lines)


def floor_of(works: list[Work], gpu: Gpu) -> float:
    """Return the least seconds of all works, one after the other."""
    return sum(traffic.floor_seconds(work, gpu.bandwidth, gpu.instructions)[0] for work in works)


def sheet_table() -> list[str]:
    """Return the table of the GPUs' data sheets."""
    lines = [[g.name, g.capability, f"{g.bandwidth / 1e9:,.0f}", f"{g.rate / 1e12:.1f}", g.source] for g in GPUS]
    return table(["GPU", "capability", "GB/s", "float32 TFLOP/s", "source"], lines)


def occupancy_table(job: Job, figures: Callable[[Work, str], tuple[int, int, int] | None]) -> list[str]:
    """Return the table of registers, resident blocks and their fraction of the warps.

    Parameters
    ----------
    job : Job
        The run.
    figures : callable
        Takes a work and an architecture ("90"); returns threads of a block, registers of a thread and bytes of shared
        memory, or None for a kernel that kernels/ does not have.
    """
    lines = []
    for work in traffic.works(job):
        found = {gpu.name: figures(work, gpu.architecture) for gpu in GPUS}
        shared = sorted({one[2] for one in found.values() if one})
        threads = next((str(one[0]) for one in found.values() if one), "")
        cells = [occupancy_cell(gpu, found[gpu.name]) for gpu in GPUS]
        lines.append([work.name, threads, " / ".join(map(str, shared)), *cells])
    return table(["kernel", "threads", "shared bytes", *(gpu.name for gpu in GPUS)], lines)


def occupancy_cell(gpu: Gpu, figures: tuple[int, int, int] | None) -> str:
    """Return a kernel's registers, resident blocks and fraction of the warps on a GPU, and their limit."""
    if figures is None:
        return "not in kernels/"
    has = gpus.occupancy(gpu.capability, *figures)
    return f"{figures[1]}: {has.blocks} blocks, {has.share:.0%} ({has.limit})"


def ptxas_figures() -> Callable[[Work, str], tuple[int, int, int] | None]:
    """Return what `occupancy_table` asks, from NVRTC; ImportError or RuntimeError where it is missing."""
    from tests.support import nvrtc

    nvrtc.version()  # loads the library
    launches = nvrtc.default_launches()

    def figures(work: Work, architecture: str) -> tuple[int, int, int] | None:
        of_kernel = [launch for launch in launches if launch.kernel == work.kernel]
        launch = next((one for one in of_kernel if one.constant == work.constant), next(iter(of_kernel), None))
        if launch is None:
            return None
        found = nvrtc.built(launch, "float32", architecture).figures[launch.kernel]
        return launch.threads, found.registers, found.shared

    return figures


def measured(plan: Plan, mark: Callable[[], Any], between: Callable[[Any, Any], float]) -> dict[str, float]:
    """Return the seconds of each kernel of a plan: the median over calls of the sum of its launches.

    The whole sequence runs in order, as each launch needs the results of those before it. The time between two marks
    includes a launch and the gap before it.

    Parameters
    ----------
    plan : Plan
        Its `launches` have a `name` and are called without arguments.
    mark : callable
        Returns a point in time of the device: a recorded event.
    between : callable
        Takes two points and returns the seconds from one to the other, waiting for the second.
    """
    calls = []
    for call in range(WARM_UP + MEASURED_CALLS):
        marks = [mark()]
        for launch in plan.launches:
            launch()
            marks.append(mark())
        if call < WARM_UP:
            continue
        sums = dict.fromkeys((launch.name for launch in plan.launches), 0.0)
        for launch, start, end in zip(plan.launches, marks, marks[1:], strict=False):
            sums[launch.name] += between(start, end)
        calls.append(sums)
    return {name: float(np.median([call[name] for call in calls])) for name in calls[0]}


def cuda_clock() -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """Return `mark` and `between` by CUDA events on the current stream."""
    import cupy

    def mark() -> Any:
        event = cupy.cuda.Event()
        event.record()
        return event

    def between(start: Any, end: Any) -> float:
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3

    return mark, between


def measured_table(job: Job, seconds: dict[str, float], gpu: Gpu) -> list[str]:
    """Return the table of measured times and their ratios to the floor, a line for each kernel."""
    works = traffic.works(job)
    lines = []
    for name, value in seconds.items():
        own = [work for work in works if work.kernel == name]
        floor = floor_of(own, gpu)
        ratio = f"{value / floor:.1f}" if own else "not in traffic.py"
        lines.append([name, f"{value * 1e6:.1f}", f"{floor * 1e6:.1f}" if own else "", ratio])
    value, floor = sum(seconds.values()), floor_of(works, gpu)
    lines.append(["all", f"{value * 1e6:.1f}", f"{floor * 1e6:.1f}", f"{value / floor:.1f}"])
    return table(["kernel", "microseconds", "floor", "x floor"], lines)


def plan_on_gpu(job: Job) -> Plan | str:
    """Return gpusift's plan for a job on images of noise, or the reason why nothing can be timed."""
    from gpusift import SIFT
    from gpusift.pipeline.key import Key
    from gpusift.stages.intensities import Image

    try:
        sift = SIFT(device="cuda", upsampling=job.parameters.upsampling)
    except RuntimeError as error:
        return str(error)
    dtype = np.dtype(f"uint{8 * job.pixel}")
    noise = np.random.default_rng(0).integers(np.iinfo(dtype).max, size=job.shape, dtype=dtype, endpoint=True)
    images = job.batch * [Image(noise)]
    key = Key.of(images)
    with sift.plans.memory(key) as memory:
        plan = memory.plan(key)
        memory.load_batch(plan, images)
    return plan


def floors_and_sheets(job: Job) -> list[str]:
    """Return the tables that need neither a GPU nor a compiler."""
    rows, cols = job.shape
    images = "one image" if job.batch == 1 else f"{job.batch} images"
    about = (
        f"{images} of {rows} x {cols}, {job.pixel} byte a pixel, upsampling {job.parameters.upsampling}, "
        f"{job.keypoints:,} keypoints each with a mean sigma^2 of {job.mean_square_sigma:.2f} samples, "
        f"{traffic.CANDIDATES_PER_KEYPOINT:g} candidates and {traffic.FEATURES_PER_KEYPOINT:g} orientations for each:"
    )
    return [
        *sheet_table(),
        about[0].upper() + about[1:],
        "",
        *work_table(job),
        'Where arithmetic takes longer than memory, "a" stands after the time:',
        "",
        *floor_table(job),
    ]


def compiled(job: Job) -> list[str]:
    """Return the table of occupancy, or a line with the reason why there is none."""
    try:
        figures = ptxas_figures()
    except (ImportError, RuntimeError) as error:
        return [f'No registers and occupancy: {error}; pip install "gpusift[test]".', ""]
    head = "Registers of a thread, and blocks resident on a multiprocessor with their share of its warps (what limits):"
    return [head, "", *occupancy_table(job, figures)]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(1080, 1920), metavar=("ROWS", "COLS"))
    parser.add_argument("--upsampling", type=int, default=2, choices=(1, 2, 4))
    parser.add_argument("--batch", type=int, default=1, help="images in one sequence of launches")
    parser.add_argument("--keypoints", type=int, default=5000, help="of an image")
    parser.add_argument("--pixel", type=int, default=1, choices=(1, 2), help="bytes of a pixel")
    parser.add_argument("--write", action="store_true", help="keep the tables in bench/results/roofline.md")
    options = parser.parse_args()
    if min(*options.shape, options.batch, options.keypoints) < 1:
        parser.error("--shape, --batch and --keypoints must be at least 1")
    return options


def main() -> None:
    """Print the tables; with --write, keep those that need no GPU."""
    options = arguments()
    least_sigma = {} if options.upsampling < 4 else {"sigma_in": Parameters().sigma_min / options.upsampling}
    parameters = Parameters(upsampling=options.upsampling, **least_sigma)
    job = Job(tuple(options.shape), options.batch, options.keypoints, options.pixel, parameters)
    try:
        text = "\n".join([*floors_and_sheets(job), *compiled(job)])
    except ValueError as error:
        sys.exit(str(error))
    print(text)
    if options.write:
        KEPT.write_text(HEAD + text)
    plan = plan_on_gpu(job)
    if isinstance(plan, str):
        print(f"Not measured: {plan}")
        return
    gpu = gpus.this_gpu()
    print(f"On {gpu.name}, copies at {gpu.bandwidth / 1e12:.2f} TB/s ({gpu.source}):\n")
    print("\n".join(measured_table(job, measured(plan, *cuda_clock()), gpu)))


if __name__ == "__main__":
    main()
