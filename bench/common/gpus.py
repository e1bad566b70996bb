"""GPUs: bandwidth and float32 rate by data sheet or measured, and the resident blocks of a kernel.

The table has the vendor's figures, from data sheets and architecture papers. Copies on a device reach about nine tenths
of the data sheet's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WARP = 32  # threads
PARTITIONS = 4  # of a multiprocessor, each with a quarter of the registers
REGISTER_UNIT = 256  # registers: the granularity of a warp's allocation
MAX_REGISTERS = 255  # of a thread

COPY_BYTES = 2**30  # of the device-to-device copy that gives the bandwidth
COPY_CALLS = 10
COPY_WARM_UP = 2


@dataclass(frozen=True)
class Gpu:
    """A GPU: compute capability ("9.0"), bytes a second of its memory, float32 operations a second, multiprocessors.

    The sheet's rate counts a fused multiply-add as two operations.
    """

    name: str
    capability: str
    bandwidth: float
    rate: float
    multiprocessors: int
    source: str

    @property
    def instructions(self) -> float:
        """Float32 instructions per second; a fused multiply-add is one instruction, as an addition is."""
        return self.rate / 2

    @property
    def issued(self) -> float:
        """Instructions of a warp, of any kind, per second: one a cycle for each quarter of a multiprocessor."""
        return self.instructions / MULTIPROCESSORS[self.capability].lanes * PARTITIONS

    @property
    def architecture(self) -> str:
        """The compute capability as NVRTC writes it: "90"."""
        return self.capability.replace(".", "")


GPUS = (
    Gpu("H200", "9.0", 4.8e12, 67e12, 132, "NVIDIA H200 data sheet, SXM"),
    Gpu("H100", "9.0", 3.35e12, 67e12, 132, "NVIDIA H100 data sheet, SXM"),
    Gpu("A100", "8.0", 2.039e12, 19.5e12, 108, "NVIDIA A100 data sheet, 80 GB SXM"),
    Gpu("L4", "8.9", 300e9, 30.3e12, 58, "NVIDIA L4 data sheet"),
    Gpu("RTX 4090", "8.9", 1.008e12, 82.6e12, 128, "NVIDIA Ada architecture paper"),
    Gpu("T4", "7.5", 320e9, 8.1e12, 40, "NVIDIA T4 data sheet"),
    Gpu("Orin", "8.7", 204.8e9, 5.3e12, 16, "Jetson AGX Orin data sheet, 64 GB module"),
)


@dataclass(frozen=True)
class Multiprocessor:
    """Resources of a multiprocessor, by compute capability (CUDA C++ Programming Guide, technical specifications).

    Attributes
    ----------
    warps, blocks : int
        Maximum number resident at once.
    shared : int
        Bytes of shared memory for all resident blocks.
    reserved : int
        Bytes of it that the system reserves for each block.
    shared_unit : int
        Bytes: the granularity of a block's allocation.
    lanes : int
        Float32 instructions per cycle.
    registers : int
        For all resident warps.
    """

    warps: int
    blocks: int
    shared: int
    reserved: int = 1024
    shared_unit: int = 128
    lanes: int = 128
    registers: int = 64 * 1024


MULTIPROCESSORS = {
    "7.5": Multiprocessor(warps=32, blocks=16, shared=64 * 1024, reserved=0, shared_unit=256, lanes=64),
    "8.0": Multiprocessor(warps=64, blocks=32, shared=164 * 1024, lanes=64),
    "8.6": Multiprocessor(warps=48, blocks=16, shared=100 * 1024),
    "8.7": Multiprocessor(warps=48, blocks=16, shared=164 * 1024),
    "8.9": Multiprocessor(warps=48, blocks=24, shared=100 * 1024),
    "9.0": Multiprocessor(warps=64, blocks=32, shared=228 * 1024),
    "10.0": Multiprocessor(warps=64, blocks=32, shared=228 * 1024),
    "12.0": Multiprocessor(warps=48, blocks=24, shared=100 * 1024),
}


@dataclass(frozen=True)
class Occupancy:
    """Resident blocks of a kernel on a multiprocessor, the fraction of its warps, and the limiting resource."""

    blocks: int
    share: float
    limit: str


def occupancy(capability: str, threads: int, registers: int, shared: int) -> Occupancy:
    """Return the number of blocks of a kernel that are resident on a multiprocessor at once.

    It is the smallest of four numbers: the maximum number of blocks; the blocks whose warps fit; the blocks whose
    shared memory, rounded up, fits; and the blocks whose registers fit. A warp's registers are allocated in units of
    256 from the quarter of the multiprocessor that the warp is in, so the count of a quarter is rounded down before it
    is multiplied by four.

    Parameters
    ----------
    capability : str
        Compute capability: "9.0", for example.
    threads : int
        Of a block.
    registers : int
        Of a thread.
    shared : int
        Bytes of a block.

    Raises
    ------
    ValueError
        If a block fits no multiprocessor of that capability.
    """
    has = MULTIPROCESSORS[capability]
    warps = -(-threads // WARP)
    of_warp = _up(max(registers, 1) * WARP, REGISTER_UNIT)
    warps_by_registers = PARTITIONS * (has.registers // PARTITIONS // of_warp)
    of_block = _up(shared + has.reserved, has.shared_unit)
    limits = {
        "blocks": has.blocks,
        "threads": has.warps // warps,
        "registers": warps_by_registers // warps if registers <= MAX_REGISTERS else 0,
        "shared": has.shared // of_block if of_block else has.blocks,
    }
    limit = min(limits, key=lambda name: limits[name])
    if limits[limit] == 0:
        raise ValueError(
            f"a block must fit a multiprocessor of capability {capability}; {threads} threads of {registers} registers "
            f"with {shared} bytes of shared memory have too many {limit}"
        )
    return Occupancy(limits[limit], limits[limit] * warps / has.warps, limit)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def copy_bandwidth() -> float:
    """Return the bytes read and written per second by a device-to-device copy of 1 GiB on the current GPU."""
    import cupy

    source = cupy.zeros(COPY_BYTES, cupy.uint8)
    target = cupy.empty_like(source)
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    seconds = []
    for _ in range(COPY_CALLS):
        start.record()
        cupy.copyto(target, source)
        end.record()
        end.synchronize()
        seconds.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    del source, target
    cupy.get_default_memory_pool().free_all_blocks()
    return 2 * COPY_BYTES / float(np.median(seconds[COPY_WARM_UP:]))


def this_gpu() -> Gpu:
    """Return the current GPU: its copy bandwidth as measured now, its rate from its multiprocessors and clock."""
    import cupy

    device = cupy.cuda.Device()
    properties = cupy.cuda.runtime.getDeviceProperties(device.id)
    capability = f"{properties['major']}.{properties['minor']}"
    hertz = 1e3 * device.attributes["ClockRate"]
    multiprocessors = device.attributes["MultiProcessorCount"]
    rate = 2 * multiprocessors * MULTIPROCESSORS[capability].lanes * hertz
    name = properties["name"].decode()
    return Gpu(name, capability, copy_bandwidth(), rate, multiprocessors, "measured copy; multiprocessors x clock")
