"""Graphs."""

from __future__ import annotations

from standin.machine import machine


class Graph:
    """Operations that streams have captured, with the addresses of their memory. It keeps no memory alive."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via stream capture"
        )

    @classmethod
    def _of(cls, operations):
        graph = cls.__new__(cls)
        graph._operations = operations
        return graph

    def launch(self, stream=None):
        """Runs the operations in a stream, by default the current one."""
        from cupy.cuda.stream import get_current_stream

        stream = get_current_stream() if stream is None else stream
        machine().launch_graph(machine().stream_of(stream.ptr), self._operations)

    def upload(self, stream=None):
        """Prepares a launch, which needs nothing here."""
