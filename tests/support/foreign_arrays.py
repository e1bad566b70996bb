"""Arrays of another library on a GPU."""

from __future__ import annotations

from typing import Any


class Tensor:
    """An array that another library is still writing, in a stream of its own, as PyTorch does.

    It is exported by DLPack, which orders the importer's stream behind its own, and by CUDA's array interface, which
    does not name the stream.
    """

    def __init__(self, cupy: Any, array: Any) -> None:
        """Copies a host array."""
        self.stream = cupy.cuda.Stream(non_blocking=True)
        with self.stream:
            self._array = cupy.asarray(array)
        self._device = cupy.cuda.Device()

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        with self._device, self.stream:
            return self._array.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._array.__cuda_array_interface__, "stream": None}
