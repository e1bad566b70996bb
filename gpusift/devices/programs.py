"""Sequences of launches, which become CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gpusift.devices.device import Launch

_log = logging.getLogger("gpusift")


class Program:
    """Steps in their order: one by one the first time, when kernels are loaded; from the second time on as one graph.

    Parameters
    ----------
    steps : sequence of callables
        Launches, and other work of the host between them.
    capture : callable or None
        Makes a function that does the same as a function of launches, as one graph. None: the steps need the host.
    """

    def __init__(self, steps: Sequence[Launch], capture: Callable[[Launch], Launch] | None) -> None:
        self.steps = steps
        self._capture = capture
        self._graph: Launch | None = None
        self._has_run = False

    def __call__(self) -> None:
        """Does all steps."""
        if self._graph is None and self._capture is not None and self._has_run:
            capture, self._capture = self._capture, None
            try:
                self._graph = capture(self._run)
            except Exception as error:  # the steps one by one do the same
                _log.warning("no CUDA graph could be made of %d launches: %s", len(self.steps), error)
        (self._graph or self._run)()
        self._has_run = True

    def _run(self) -> None:
        for step in self.steps:
            step()
