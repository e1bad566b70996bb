"""Kernels of the user's own."""

from __future__ import annotations

from cupy.cuda import stream as streams
from standin import kernels
from standin.lacks import lacks
from standin.machine import machine


class RawKernel:
    """A kernel of a source. It is loaded on a device by its first launch there."""

    @lacks("backend", "translate_cucomplex", "enable_cooperative_groups", "jitify")
    def __init__(
        self,
        code,
        name,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        *,
        enable_cooperative_groups=False,
        jitify=None,
    ):
        self.code, self.name, self.options, self.backend = code, name, options, backend
        self._loaded = {}

    def __call__(self, grid, block, args, **kwargs):
        self.kernel.enqueue(
            machine().stream_of(streams.get_current_stream().ptr), grid, block, args, **{"shared_mem": 0, **kwargs}
        )

    @property
    def kernel(self):
        """The kernel on the current device."""
        device = machine().device
        if device not in self._loaded:
            machine().make_context()
            kernels.require_source(self.code, self.options)
            self._loaded[device] = kernels.Kernel(self.code, self.options, self.name)
        return self._loaded[device]


class RawModule:
    """A source with kernels."""

    @lacks("path", "backend", "translate_cucomplex", "enable_cooperative_groups", "name_expressions", "jitify")
    def __init__(
        self,
        code=None,
        *,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=None,
    ):
        if code is None or not isinstance(options, tuple):
            raise NotImplementedError("the stand-in's RawModule takes code, and options as a tuple")
        self.code, self.options, self.backend = code, options, backend

    def get_function(self, name):
        """A kernel of the source."""
        return RawKernel(self.code, name, self.options, self.backend)
