"""Host memory through which copies to and from a GPU go."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

_log = logging.getLogger("gpusift")


class Staging:
    """Pinned memory that is reused from copy to copy, and the event until which the GPU uses it.

    Where no memory can be pinned, copies go through ordinary memory: they are then slower, and wait for the GPU.

    Parameters
    ----------
    cupyx : module
        CuPy's extensions.
    out_of_memory : type
        What they raise when no memory can be pinned.
    """

    def __init__(self, cupyx: Any, out_of_memory: type[Exception]) -> None:
        self._cupyx, self._out_of_memory = cupyx, out_of_memory
        self._memory = np.empty(0, np.uint8)
        self._event: Any = None

    def take(self, size: int) -> np.ndarray:
        """(size,) bytes that the GPU no longer uses; waits for it."""
        self.wait()
        if len(self._memory) < size:
            self._memory = np.empty(0, np.uint8)  # frees the old memory first
            self._memory = self._allocate(size)
        return self._memory[:size]

    def used_until(self, event: Any) -> None:
        """Keeps the memory for the GPU, which uses it until this event."""
        self._event = event

    def _allocate(self, size: int) -> np.ndarray:
        try:
            memory: np.ndarray = self._cupyx.empty_pinned(size, np.uint8)
        except self._out_of_memory as error:
            _log.warning("copies are slower, as %d bytes of host memory could not be pinned: %s", size, error)
            memory = np.empty(size, np.uint8)
        return memory

    def is_unused(self) -> bool:
        """Whether the GPU no longer uses the memory."""
        return self._event is None or bool(self._event.done)

    def wait(self) -> None:
        """Waits until the GPU no longer uses the memory."""
        event, self._event = self._event, None
        if event is not None:
            event.synchronize()

    def __del__(self) -> None:
        self.wait()  # CuPy may hand the memory out again at once
