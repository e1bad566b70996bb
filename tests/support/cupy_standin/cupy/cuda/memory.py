"""Device memory."""

from __future__ import annotations

from cupy.cuda.device import Device as _Device
from standin.errors import OutOfMemoryError as OutOfMemoryError
from standin.lacks import lacks
from standin.machine import machine
from standin.pools import device_pool


class _UnownedMemory:
    """Memory that another object owns, which is kept."""

    def __init__(self, block, owner):
        self.block, self.owner, self.ptr = block, owner, block.address
        self.generation, self.device_id, self.size = block.generation, block.device, block.size


class MemoryPointer:
    """A place in memory."""

    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset

    @property
    def device_id(self):
        """The device that it lies on."""
        return self.mem.device_id

    @property
    def device(self):
        """The device that it lies on."""
        return _Device(self.mem.device_id)

    def __int__(self):
        return self.ptr


def alloc(size):
    """Memory of the current device, in the pool of its current stream."""
    from cupy.cuda.stream import get_current_stream

    stream = machine().stream_of(get_current_stream().ptr)
    return MemoryPointer(device_pool().allocate(size, stream), 0)


class MemoryPool:
    """The pool of device memory, of which there is one."""

    def malloc(self, size):
        """Memory of the current device."""
        return alloc(size)

    @lacks("stream")
    def free_all_blocks(self, stream=None):
        """Gives memory that nobody uses back to the current device."""
        device_pool().free_all_blocks(machine().device)

    def free_bytes(self):
        """Bytes of the current device that nobody uses."""
        return device_pool().free_bytes(machine().device)

    def total_bytes(self):
        """Bytes taken from the current device."""
        return device_pool().total_bytes(machine().device)

    def used_bytes(self):
        """Bytes of the current device in use."""
        return self.total_bytes() - self.free_bytes()


_default_pool = MemoryPool()
