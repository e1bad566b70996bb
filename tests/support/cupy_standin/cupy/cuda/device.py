"""Devices."""

from __future__ import annotations

import threading

from standin.machine import MULTIPROCESSORS, machine

_stack = threading.local()


class Device:
    """A device, which is the current one in its context."""

    def __init__(self, device=None):
        self.id = machine().device if device is None else int(device)

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return int(self) == int(other) if isinstance(other, (int, Device)) else NotImplemented

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        current = machine().device
        if self.id != current:
            machine().set_device(self.id)
        _stack.__dict__.setdefault("ids", []).append(current)
        return self

    def __exit__(self, *args):
        machine().set_device(_stack.ids.pop())

    def use(self):
        """Makes this device the current one."""
        machine().set_device(self.id)
        return self

    def synchronize(self):
        """Waits for all work of this device."""
        machine().make_context(self.id)
        machine().wait_for_device(self.id)

    @property
    def compute_capability(self):
        """As CuPy writes it."""
        return "90"

    @property
    def attributes(self):
        """Figures of the device, which make no context."""
        return {"MultiProcessorCount": MULTIPROCESSORS, "MaxSharedMemoryPerMultiprocessor": 228 * 1024}

    @property
    def mem_info(self):
        """Free and total bytes."""
        from cupy.cuda import runtime

        with self:
            return runtime.memGetInfo()
