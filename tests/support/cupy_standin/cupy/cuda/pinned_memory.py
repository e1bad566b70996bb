"""Pinned memory."""

from __future__ import annotations

from standin.pools import pinned_pool


def alloc_pinned_memory(size):
    """Pinned memory; the stand-in gives arrays in it only, by `cupyx.empty_pinned`."""
    raise NotImplementedError("the stand-in has no cupy.cuda.alloc_pinned_memory: use cupyx.empty_pinned")


class PinnedMemoryPool:
    """The pool of pinned memory, of which there is one."""

    def free_all_blocks(self):
        """Gives memory that nobody uses back to the system."""
        pinned_pool().free_all_blocks()


_default_pool = PinnedMemoryPool()
