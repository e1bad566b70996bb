"""Devices, streams, events, memory and the runtime."""

from typing import Any

from cupy.cuda import compiler, device, driver, graph, memory, pinned_memory, runtime, stream
from cupy.cuda.device import Device
from cupy.cuda.graph import Graph
from cupy.cuda.memory import MemoryPointer, MemoryPool, alloc
from cupy.cuda.pinned_memory import PinnedMemoryPool, alloc_pinned_memory
from cupy.cuda.stream import Event, Stream, get_current_stream, get_elapsed_time


def is_available():
    """Whether there is a device."""
    return True


def __getattr__(name: str) -> Any:
    raise AttributeError(f"the stand-in has no cupy.cuda.{name}")
