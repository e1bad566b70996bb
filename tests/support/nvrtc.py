"""The kernels compiled for a GPU, without a GPU: by NVRTC as CuPy does it, with the figures that ptxas reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from cuda.bindings import nvrtc

from gpusift import devices, pipeline
from gpusift.devices import kernel_sources
from gpusift.matching import nearest
from gpusift.parameters import MAX_BINS, Parameters
from gpusift.pipeline.plan import Plans
from gpusift.stages import STAGES
from gpusift.stages.intensities import image_of
from tests.support import alignment

# Compute capabilities, times ten: Turing, Ampere, Ada, Hopper and two Blackwells.
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
PRECISIONS = ("float32", "float64")

# Options that CuPy 14 adds to those of a RawModule (cupy/cuda/compiler.py), without the folders of headers, as the
# sources include none. With -arch=sm_XX NVRTC runs ptxas too.
ADDED_BY_CUPY = ("-ftz=true", "--device-as-default-execution-space")

# Limits of all these architectures (CUDA C++ Programming Guide, compute capabilities).
SHARED_BYTES = 48 * 1024  # static, of a block
REGISTERS = 64 * 1024  # of a block, allocated to warps in units of 8 a thread
WARP = 32  # threads

# Of a kernel whose registers are limited, stores and loads of a thread; it goes through a loop some hundred times.
LIMITED_SPILLS = 200  # bytes

# A wide blur; the default parameters' largest radius is 12.
WIDE_RADIUS = 64

# The files of kernels, in the order in which a run launches them.
AFTER_STAGES = ("lists.cu", "matching.cu", "alignment.cu")
OF_KERNELS = (*(stage.kernels for stage in STAGES if stage.kernels), *AFTER_STAGES)

_FIGURES = re.compile(
    r"Function properties for (?P<name>\w+)\n"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r"(?:\n.*: Used (?P<registers>\d+) registers(?:.*?(?P<shared>\d+) bytes smem)?)?"  # not for functions called
)


class BuildError(Exception):
    """NVRTC failed; the message is its log."""


@dataclass(frozen=True)
class Launch:
    """The properties of a launch that decide which code is built, and the threads of its blocks."""

    kernel: str
    constant: int = 0
    sizes: tuple[tuple[str, int | str], ...] = ()
    threads: int = 1

    @property
    def stage(self) -> str:
        """The kernel's file."""
        return kernel_sources.kernels()[self.kernel].stage

    def options(self, dtype: str) -> tuple[str, ...]:
        """The options that the device passes to CuPy."""
        return devices.definitions(self.kernel, np.dtype(dtype), self.constant, dict(self.sizes))


@dataclass(frozen=True)
class Figures:
    """ptxas's figures of a function: registers of a thread; bytes of shared memory, stack and spills."""

    registers: int
    shared: int
    stack: int
    spilled: int


@dataclass(frozen=True)
class Build:
    """The result of NVRTC for a source: the code, its log, and the figures of each function."""

    code: bytes
    log: str

    @property
    def warnings(self) -> list[str]:
        """The warnings of the log."""
        return [line for line in self.log.splitlines() if "warning" in line.lower()]

    @property
    def figures(self) -> dict[str, Figures]:
        """The figures of the kernels, and of functions that they call, by name."""
        found = {}
        for match in _FIGURES.finditer(self.log):
            registers, shared, stack, stores, loads = (
                int(match[key] or 0) for key in ("registers", "shared", "stack", "stores", "loads")
            )
            found[match["name"]] = Figures(registers, shared, stack, stores + loads)
        return found


def compiled(text: str, options: Iterable[str], architecture: str) -> Build:
    """A source, built to machine code.

    Raises
    ------
    BuildError
        With NVRTC's log.
    """
    added = (*ADDED_BY_CUPY, f"-arch=sm_{architecture}", "--ptxas-options=-v")
    return _compiled(text, (*options, *added), nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)


def built(launch: Launch, dtype: str, architecture: str) -> Build:
    """Build the module that a launch needs."""
    return compiled(kernel_sources.text(launch.stage), launch.options(dtype), architecture)


def ptx(launch: Launch, dtype: str, architecture: str = ARCHITECTURES[0]) -> str:
    """Return the PTX of that module, in which each operation names its rounding."""
    return compiled_to_ptx(kernel_sources.text(launch.stage), launch.options(dtype), architecture)


def compiled_to_ptx(text: str, options: Iterable[str], architecture: str = ARCHITECTURES[0]) -> str:
    """A source, built to PTX."""
    given = (*options, *ADDED_BY_CUPY, f"-arch=compute_{architecture}")
    return _compiled(text, given, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX).code.decode()


def _compiled(text: str, options: Iterable[str], size_of, get) -> Build:
    given = [option.encode() for option in options]
    status, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], [])
    _require(status)
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
        log = _content(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode().rstrip("\0")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise BuildError(f"{status.name}\n{log}")
        return Build(_content(program, size_of, get), log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _content(program, size_of, get) -> bytes:
    status, size = size_of(program)
    _require(status)
    content = b"\0" * size
    (status,) = get(program, content)
    _require(status)
    return content


def _require(status) -> None:
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BuildError(status.name)


def version() -> str:
    """NVRTC's version."""
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


def spills_allowed(kernel: str, dtype: str) -> int:
    """Bytes that a thread of a kernel may store and load in spills: none, unless its registers are limited."""
    return LIMITED_SPILLS if kernel in devices.MAX_REGISTERS and dtype == "float32" else 0


def problems(launch: Launch, dtype: str, architecture: str) -> list[str]:
    """Return the problems of the code that a launch needs, a line for each."""
    try:
        build = built(launch, dtype, architecture)
    except BuildError as error:
        return [str(error)]
    found = build.warnings
    if launch.kernel not in build.figures:
        return [*found, f"ptxas says nothing of {launch.kernel}:\n{build.log}"]
    most = spills_allowed(launch.kernel, dtype)
    found += [f"{name} spills {f.spilled} bytes" for name, f in build.figures.items() if f.spilled > most]
    figures = build.figures[launch.kernel]
    if figures.shared > SHARED_BYTES:
        found.append(f"{figures.shared} bytes of shared memory")
    registers = _round_up(figures.registers, 8) * _round_up(launch.threads, WARP)
    if not 0 < registers <= REGISTERS:
        found.append(f"{figures.registers} registers for each of {launch.threads} threads")
    return [f"{launch}, {dtype}, sm_{architecture}: {problem}" for problem in found]


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


class Recorder(devices.CpuDevice):
    """The CPU device, which records the launches that it prepares."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: set[Launch] = set()

    def prepare(self, name, grid, block, *arguments, constant=0, sizes=None):
        """Record a launch."""
        self.launches.add(Launch(name, constant, tuple(sorted((sizes or {}).items())), int(np.prod(block))))
        return super().prepare(name, grid, block, *arguments, constant=constant, sizes=sizes)


@cache
def launches_of(parameters: Parameters) -> tuple[Launch, ...]:
    """The launches of a run with these parameters and either blur, sorted."""
    recorder = Recorder()
    chequered = np.kron(np.random.default_rng(0).random((16, 16)), np.ones((6, 6)))  # has keypoints
    for blur in ("kernel", "ndimage"):
        pipeline.compute(Plans(recorder, parameters, blur), [image_of(chequered)])
    return tuple(sorted(recorder.launches, key=order))


@cache
def matching_launches() -> tuple[Launch, ...]:
    """The launches of matching bytes and reals, and of aligning matches, sorted."""
    recorder = Recorder()
    for dtype in (np.uint8, np.float32):
        sets = nearest.upload(recorder, 2 * [np.eye(3, 8, dtype=dtype)])
        nearest.match(sets, np.array([[0, 1]]), nearest.Rules())
    for shaped in (False, True):
        alignment.digest(recorder, shaped=shaped)
    return tuple(sorted(recorder.launches, key=order))


@cache
def optional_launches() -> tuple[Launch, ...]:
    """The launches of kernels that only options need, sorted."""
    options = launches_of(Parameters(max_keypoints=3, keep="grid", upright=True, pooling=(1, 2)))
    chosen = [launch for launch in options if launch.stage == "selection" or launch.kernel == "describe_pooled"]
    shaped = (Parameters(affine_shape=True), Parameters(affine_shape=True, pooling=(1, 2)))
    chosen += [
        launch
        for parameters in shaped
        for launch in launches_of(parameters)
        if launch.stage == "affine_shape" or (launch.stage in ("orientation", "descriptor") and launch.constant)
    ]
    return tuple(dict.fromkeys(chosen))


def default_launches() -> tuple[Launch, ...]:
    """The launches of a run with the default parameters, of options and of matching, sorted."""
    return (*launches_of(Parameters()), *optional_launches(), *matching_launches())


def extreme_launches() -> tuple[Launch, ...]:
    """The launches with the parameters that need most memory, and with other factors of upsampling."""
    parameters = (
        Parameters(upsampling=1, n_bins=MAX_BINS, n_hist=1, n_ori=_most_directions(1)),
        Parameters(upsampling=4, sigma_in=0.3, n_ori=_most_directions(Parameters().n_hist)),
        Parameters(pooling=(1,), n_ori=_most_directions(Parameters().n_hist, pooling=(1,))),
    )
    blur = next(launch for launch in default_launches() if launch.kernel == "blur")
    widest = replace(blur, sizes=radii(WIDE_RADIUS))
    return (widest, *(launch for p in parameters for launch in launches_of(p)))


def _most_directions(n_hist: int, **others: object) -> int:
    """The largest n_ori that is allowed with n_hist and other parameters."""
    n_ori = 1
    while True:
        try:
            Parameters(n_hist=n_hist, n_ori=n_ori + 1, **others)
        except ValueError:
            return n_ori
        n_ori += 1


def radii(*radii: int) -> tuple[tuple[str, str], ...]:
    """The sizes of a launch of blurs of these radii, the largest first."""
    return (("BLUR_RADII", ",".join(map(str, radii))),)


def order(launch: Launch) -> tuple:
    """The sort key of launches: stage, kernel, constant and sizes."""
    return OF_KERNELS.index(f"{launch.stage}.cu"), launch.kernel, launch.constant, launch.sizes
