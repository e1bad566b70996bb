"""Pools of device and pinned memory, as CuPy's: freed blocks return to the pool of their stream and are poisoned."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import suppress
from typing import Any

from standin import faults
from standin.blocks import POISON, Block
from standin.errors import CUDARuntimeError, OutOfMemoryError
from standin.machine import Machine, machine
from standin.operations import Operation, Stream, Use
from standin.violations import UseAfterFreeError, Violation, place, report

UNIT = 512  # bytes that sizes are rounded to


class DeviceMemory:
    """A block in use. When it is no longer referred to, it goes back to its pool."""

    def __init__(self, pool: DevicePool, block: Block, size: int) -> None:
        self.block, self.size, self.ptr, self.device_id = block, size, block.address, block.device
        self.generation = block.generation
        self._pool = pool

    def __del__(self) -> None:
        self._pool.freed.append((self.block, place()))


class DevicePool:
    """Memory of all devices. Each stream has an arena of its own."""

    def __init__(self, of: Machine) -> None:
        self._machine = of
        self._free: defaultdict[Stream, defaultdict[int, list[Block]]] = defaultdict(lambda: defaultdict(list))
        self.blocks: dict[int, Block] = {}  # by their addresses
        self.freed: deque[tuple[Block, str]] = deque()
        of.before_operation.append(self.settle)

    def allocate(self, size: int, stream: Stream) -> DeviceMemory:
        """Memory of the current device, to be used in the order of a stream."""
        self._machine.make_context()
        self._machine.settle()
        size_of_block = -(-max(size, 1) // UNIT) * UNIT
        with self._machine.lock:
            if faults.is_due("device allocation"):
                raise OutOfMemoryError(size, self.total_bytes(stream.device))
            kept = self._free[stream][size_of_block]
            if kept:
                block = kept.pop()
                block.is_alive = True
                return DeviceMemory(self, block, size)
            if self.total_bytes(stream.device) + size_of_block > self._machine.memory:
                self.free_all_blocks(stream.device)
            if self.total_bytes(stream.device) + size_of_block > self._machine.memory:
                raise OutOfMemoryError(size, self.total_bytes(stream.device))
            block = Block(size_of_block, stream.device, stream)
            self.blocks[block.address] = block
            return DeviceMemory(self, block, size)

    def settle(self) -> None:
        """Takes back what the garbage collector has freed: poisoned in the order of the block's stream."""
        while self.freed:
            try:
                block, where = self.freed.popleft()
            except IndexError:
                return
            with self._machine.lock:
                self._take_back(block, where)

    def _take_back(self, block: Block, where: str) -> None:
        stream = block.arena
        assert stream is not None
        block.is_alive, block.freed_at = False, where
        block.generation += 1
        self._free[stream][block.size].append(block)
        if stream.capture is not None:
            return

        def poison() -> None:
            block.require_guards("something")
            block.bytes[:] = POISON

        use = Use(block, 0, block.size, True)
        with suppress(Violation):  # it is recorded; a collector cannot raise
            self._machine._append(stream, Operation(stream, "freeing", poison, (use,), where))

    def total_bytes(self, device: int) -> int:
        """Bytes taken from a device."""
        return sum(block.size for block in self.blocks.values() if block.device == device)

    def free_bytes(self, device: int) -> int:
        """Bytes of a device that are kept for later."""
        kept = (blocks for stream, sizes in self._free.items() if stream.device == device for blocks in sizes.values())
        return sum(block.size for blocks in kept for block in blocks)

    def free_all_blocks(self, device: int) -> None:
        """Gives what is kept back to a device, which waits for all of its work (cudaFree)."""
        self._machine.settle()
        with self._machine.lock:
            kept = [stream for stream in self._free if stream.device == device and self._free[stream]]
            if kept:
                self._machine.finish(device)
            for stream in kept:
                for blocks in self._free.pop(stream).values():
                    for block in blocks:
                        del self.blocks[block.address]

    def block_at(self, address: int) -> Block:
        """The block that an address lies in; a violation if none does."""
        for block in self.blocks.values():
            if block.address <= address < block.address + block.size:
                return block
        raise report(UseAfterFreeError(f"no device memory at address {address:#x}, used at {place()}"))


class PinnedMemoryOf:
    """Pinned memory in use. When it is no longer referred to, it goes back to its pool at once."""

    def __init__(self, pool: PinnedPool, block: Block, size: int) -> None:
        self.block, self.size, self.ptr = block, size, block.address
        self._pool = pool

    def __del__(self) -> None:
        self._pool.take_back(self.block, place())


class PinnedPool:
    """Pinned memory. A block may have its next owner as soon as it is freed."""

    def __init__(self, of: Machine) -> None:
        self._machine = of
        self._free: defaultdict[int, list[Block]] = defaultdict(list)
        self.blocks: dict[int, Block] = {}

    def allocate(self, size: int) -> PinnedMemoryOf:
        """So many bytes."""
        self._machine.make_context()
        rounded = 1 << (max(size, UNIT) - 1).bit_length()
        with self._machine.lock:
            if faults.is_due("pinned allocation"):
                raise CUDARuntimeError(2)
            kept = self._free[rounded]
            block = kept.pop() if kept else Block(rounded, -1, None)
            block.is_alive = True
            self.blocks[block.address] = block
            return PinnedMemoryOf(self, block, size)

    def take_back(self, block: Block, where: str) -> None:
        """Frees a block; reports a copy that may still use it."""
        user = block.pending()
        if user is not None:
            report(UseAfterFreeError(f"{block} is freed at {where} while it may still be used by {user}"))
        block.is_alive, block.freed_at = False, where
        block.generation += 1
        block.bytes[:] = POISON
        self.blocks.pop(block.address, None)
        self._free[block.size].append(block)

    def free_all_blocks(self) -> None:
        """Gives what is kept back to the system."""
        self._free.clear()

    def use_of(self, address: int, size: int, writes: bool) -> Use | None:
        """A use of host memory, if it is pinned."""
        for block in tuple(self.blocks.values()):
            if block.address <= address < block.address + block.size:
                return Use(block, address - block.address, address - block.address + size, writes)
        return None


_pools: tuple[DevicePool, PinnedPool] | None = None
_lock = threading.RLock()


def pools() -> tuple[DevicePool, PinnedPool]:
    """The device's and the pinned pool of this process."""
    global _pools
    with _lock:
        if _pools is None:
            _pools = DevicePool(machine()), PinnedPool(machine())
    return _pools


def device_pool() -> DevicePool:
    """The pool of device memory."""
    return pools()[0]


def pinned_pool() -> PinnedPool:
    """The pool of pinned memory."""
    return pools()[1]


def use_of_array(array: Any, writes: bool, what: str) -> Use:
    """The use of all bytes that a device array spans."""
    array.data.mem.block.require_alive(array.data.mem.generation, f"{what} at {place()}")
    low, high = array._byte_bounds()
    return Use(array.data.mem.block, low, high, writes)
