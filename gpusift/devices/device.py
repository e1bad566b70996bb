"""What every device offers: the one interface between the pipeline and the hardware."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpusift.devices.launch_arguments import as_xyz, check_arguments

Launch = Callable[[], None]
"""A kernel with its grid, block and arguments; calling it makes the launch."""

Shape = tuple[int, int, int]

Sizes = Mapping[str, "int | str"]
"""Values of macros of a kernel: sizes of its shared arrays, or a list of numbers."""


class Copy(NamedTuple):
    """A copy to the host that is under way.

    Attributes
    ----------
    has_ended : callable
        Whether the device has made it.
    wait : callable
        Waits for it and returns it.
    """

    has_ended: Callable[[], bool]
    wait: Callable[[], np.ndarray]


class Device(Protocol):
    """Memory, copies and kernel launches of one processor.

    Launches and copies take effect in the order of the current stream; on a CPU they have ended when they return. A
    device's methods are called inside `active()`, except where a method says otherwise.

    Attributes
    ----------
    name : str
        "cpu" or "cuda:N".
    dtype : dtype
        float32 or float64, the precision of the kernels.
    xp : module
        NumPy or CuPy.
    cuda_index : int or None
        CUDA's number of the device; None for the CPU.
    uses_host_cores : bool
        Whether kernels run on the host's cores and so compete with the threads that read images.
    n_streams : int
        Batches in flight that keep the device busy.
    """

    name: str
    dtype: np.dtype
    xp: Any
    cuda_index: int | None
    uses_host_cores: bool
    n_streams: int

    @property
    @abstractmethod
    def n_blocks(self) -> int:
        """Blocks of a launch that occupy the whole device."""

    @property
    @abstractmethod
    def n_list_blocks(self) -> int:
        """Blocks that share a list whose length only the device knows."""

    @property
    @abstractmethod
    def blur_piece(self) -> tuple[int, int]:
        """Rows and columns of a level that a block blurs."""

    @property
    @abstractmethod
    def blur_blocks(self) -> int:
        """Blocks of the blur that run at once."""

    @property
    def blur_block(self) -> tuple[int, int]:
        """Threads of a block of the blur. A host runs one of them."""
        return 32, 4

    @property
    @abstractmethod
    def extrema_tile(self) -> tuple[int, int]:
        """Rows and columns of an octave in which a block looks for extrema at a time."""

    @property
    @abstractmethod
    def OutOfMemoryError(self) -> type[Exception]:  # noqa: N802, the name of an exception
        """What is raised when the device's memory has run out."""

    @property
    @abstractmethod
    def total_memory(self) -> int:
        """Bytes of the device's memory. May be called outside `active()`."""

    @abstractmethod
    def bind(
        self, name: str, grid: Shape, block: Shape, values: list[Any], constant: int, sizes: Sizes | None
    ) -> Launch:
        """A launch of a kernel with checked arguments; `prepare` describes the parameters."""

    def prepare(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: Sizes | None = None,
    ) -> Launch:
        """A launch of a kernel that can be made many times, each time on the stream that is then current.

        Parameters
        ----------
        name : str
            The kernel's name.
        grid, block : tuple of int
            Blocks of the launch, threads of a block: x, or x, y and z. No grid has a y. A block of the CPU is one
            thread, whatever `block` says.
        *arguments
            Arrays of this device, C-contiguous and of the parameters' dtypes, and Python or NumPy numbers.
        constant : int, optional
            Value of the compile-time constant of a KERNEL_OF.
        sizes : dict, optional
            Sizes of the kernel's shared arrays, for a compiler that runs now; the host library has the largest.

        Raises
        ------
        TypeError, OverflowError
            If an argument does not fit the kernel's signature.
        """
        values = check_arguments(name, arguments, self.dtype, self.xp)
        return self.bind(name, as_xyz(grid), as_xyz(block), values, constant, sizes)

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        constant: int = 0,
        sizes: Sizes | None = None,
    ) -> None:
        """Launches a kernel once; `prepare` describes the parameters."""
        self.prepare(name, grid, block, *arguments, constant=constant, sizes=sizes)()

    @abstractmethod
    def program(self, steps: Sequence[Launch]) -> Launch:
        """Launches and other steps, in their order, as one function."""

    @abstractmethod
    def gaussian_filter(self, image: Any, sigma: float, out: Any) -> None:
        """Blurs an image, reflected at its edges, by SciPy's filter or CuPy's.

        Parameters
        ----------
        image : (M, N) array
            The image, on this device.
        sigma : float
            Standard deviation, samples.
        out : (M, N) array
            The result.
        """

    @abstractmethod
    def staging(self) -> Any:
        """Host memory through which copies of one call at a time go; None where copies need none."""

    @abstractmethod
    def upload(self, parts: Sequence[tuple[int, np.ndarray]], memory: Any, staging: Any) -> None:
        """Copies host arrays into a block of this device's memory, in one copy. Does not wait for it.

        Parameters
        ----------
        parts : sequence of (int, array)
            The byte of the block from which on each array is written, ascending. What lies between them is undefined.
        memory : array of uint8
            The block.
        staging : object
            As `staging` made it; it has no other copy under way, or waits for that one.
        """

    @abstractmethod
    def download(self, array: Any, staging: Any) -> Copy:
        """Starts the copy of a C-contiguous array to the host, in the current stream.

        Returns
        -------
        Copy
            The array on the host is valid until `staging`, as for `upload`, is used again.
        """

    @abstractmethod
    def keep(self, array: np.ndarray) -> np.ndarray:
        """A copy of an array that `download` has brought to the host, in memory of its own."""

    @abstractmethod
    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """An array of the host or of this device on this device, C-contiguous."""

    @abstractmethod
    def from_gpu(self, array: Any, name: str) -> Any:
        """An array that lies on a GPU, by DLPack or CUDA's array interface, as an array of this device.

        The current stream waits for what the array's owner has in flight. May be called outside `active()`.

        Parameters
        ----------
        array : object
            With ``__dlpack__`` or ``__cuda_array_interface__``.
        name : str
            What an error message calls it.

        Raises
        ------
        ValueError
            If this device is the CPU.
        """

    @abstractmethod
    def to_host(self, array: Any) -> np.ndarray:
        """An array of this device as NumPy's. Waits for the current stream. May be called outside `active()`."""

    @abstractmethod
    def memory(self, size: int) -> Any:
        """(size,) bytes, aligned for any access, uninitialised."""

    @abstractmethod
    def free_memory(self) -> None:
        """Returns unused memory of the allocator's cache to the system. May be called outside `active()`."""

    @abstractmethod
    def batch_size(self, bytes_of_image: int) -> int:
        """Images to compute at once. May be called outside `active()`."""

    @abstractmethod
    def active(self) -> AbstractContextManager[Any]:
        """A context in which this device is the current one."""

    @abstractmethod
    def stream(self) -> AbstractContextManager[Any]:
        """A new stream, which is the current one in its context. May be called outside `active()`."""

    @abstractmethod
    def mark(self) -> Any:
        """The point in the current stream that is reached when everything launched so far has ended."""

    @abstractmethod
    def wait_for(self, mark: Any) -> None:
        """Makes the current stream, which may be another than the mark's, wait for a mark."""

    @abstractmethod
    def wait_until(self, mark: Any) -> None:
        """Waits on the host for a mark."""

    @abstractmethod
    def synchronize(self) -> None:
        """Waits on the host for the current stream."""
