"""`cupy.ndarray`: memory of a device, whose host copy only operations that run may touch."""

from __future__ import annotations

from typing import Any

import numpy as np
from cupy import _evaluate
from cupy.cuda import memory
from cupy.cuda import stream as streams
from cupy.cuda.device import Device
from standin import copies
from standin.blocks import byte_bounds
from standin.lacks import lacks
from standin.machine import machine
from standin.violations import UseAfterFreeError, report


class _Flags:
    def __init__(self, host: np.ndarray, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous = host.flags.c_contiguous, host.flags.f_contiguous
        self.owndata = owndata


class ndarray:
    """An array of a device.

    Attributes
    ----------
    _host : numpy.ndarray
        The bytes. Not CuPy's: for operations that run.
    """

    __module__ = "cupy"
    __array_priority__ = 100

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        dtype = np.dtype(dtype)
        if dtype.kind not in "buifc":
            raise ValueError(f"Unsupported dtype {dtype}")
        if memptr is None:
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            memptr = memory.alloc(size)
        offset = memptr.ptr - memptr.mem.block.address
        self._set(np.ndarray(shape, dtype, memptr.mem.block.bytes, offset, strides, order), memptr, None)

    def _set(self, host: np.ndarray, memptr: Any, base: Any) -> None:
        self._host, self.data, self.base = host, memptr, base

    def _view(self, host: np.ndarray) -> ndarray:
        """An array in the same memory."""
        array = ndarray.__new__(ndarray)
        start = host.__array_interface__["data"][0] if host.size else self.data.ptr
        pointer = memory.MemoryPointer(self.data.mem, start - self.data.mem.ptr)
        array._set(host, pointer, self if self.base is None else self.base)
        return array

    def _byte_bounds(self) -> tuple[int, int]:
        """Where its bytes begin and end in its block."""
        if not self._host.size:
            return 0, 0
        low, high = byte_bounds(self._host)
        return low - self.data.mem.block.address, high - self.data.mem.block.address

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: _Flags(self._host, self.base is None))
    device = property(lambda self: Device(self.data.device_id))
    T = property(lambda self: self._view(self._host.T))

    def __getattr__(self, name):
        if hasattr(np.ndarray, name) and not name.startswith("__"):
            raise NotImplementedError(f"the stand-in has no cupy.ndarray.{name}")
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")

    # Copies from and to the host

    @lacks("order")
    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy on the host. The stream is chosen before the array's device becomes current, as in CuPy."""
        stream = streams.get_current_stream() if stream is None else stream
        source = self
        if out is not None:
            if not isinstance(out, np.ndarray):
                raise TypeError("Only numpy.ndarray can be obtained fromcupy.ndarray")
            if out.dtype != self.dtype:
                raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
            if out.shape != self.shape:
                raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        elif self.size == 0:
            return np.ndarray(self.shape, self.dtype)
        before = machine().device
        machine().set_device(self.data.device_id)
        try:
            if not self._host.flags.c_contiguous:
                with stream:
                    source = _evaluate.ascontiguousarray(self)
            target = np.empty(self.shape, self.dtype) if out is None else out
            if self.size:
                copies.to_host(source, target, machine().stream_of(stream.ptr))
            if blocking:
                stream.synchronize()
        finally:
            machine().set_device(before)
        return target

    def set(self, arr, stream=None):
        """Copies a host array to this array. The stream is chosen as in `get`."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self._host.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        stream = streams.get_current_stream() if stream is None else stream
        before = machine().device
        machine().set_device(self.data.device_id)
        try:
            if self.size:
                copies.to_device(self, np.ascontiguousarray(arr), machine().stream_of(stream.ptr))
        finally:
            machine().set_device(before)

    def item(self):
        """The only element."""
        return self.get().item()

    def tolist(self):
        """The elements as lists."""
        return self.get().tolist()

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __index__(self):
        return self.get().__index__()

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    __hash__ = None

    # Interchange

    @property
    def __cuda_array_interface__(self):
        pointer = streams.get_current_stream().ptr or 1
        strides = None if self.flags.c_contiguous else self.strides
        data = (self.data.ptr if self.size else 0, False)
        described = {"shape": self.shape, "typestr": self.dtype.str, "descr": [("", self.dtype.str)]}
        return {**described, "stream": pointer, "version": 3, "strides": strides, "data": data}

    @lacks("dl_device", "copy")
    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        before = machine().device
        machine().set_device(self.data.device_id)
        try:
            current = streams.get_current_stream()
            wanted = 0 if stream in (None, 1) else stream
            if stream != -1 and wanted != current.ptr:
                event = current.record()
                machine().follow(machine().stream_of(wanted), event._operation, event._capture)
        finally:
            machine().set_device(before)
        return _Capsule(self)

    def __dlpack_device__(self):
        return 2, self.data.device_id

    # Views and elements

    def __len__(self):
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        return (self[number] for number in range(len(self)))

    def __getitem__(self, key):
        return _evaluate.getitem(self, key)

    def __setitem__(self, key, value):
        _evaluate.setitem(self, key, value)

    @lacks("type")
    def view(self, dtype=None, type=None):
        """The same bytes as another dtype."""
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    @lacks("copy")
    def reshape(self, *shape, order="C", copy=None):
        """The same elements in another shape; a copy if the strides do not allow a view."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        reshaped = self._host.reshape(shape, order=order)
        if not self.size or np.shares_memory(reshaped, self._host):
            return self._view(reshaped)
        return _evaluate.ascontiguousarray(self).reshape(shape)

    @lacks("order")
    def ravel(self, order="C"):
        """The elements as one row."""
        return self.reshape(-1)

    def transpose(self, *axes):
        """A view with its axes permuted."""
        return self._view(self._host.transpose(*axes))

    # Operations

    @lacks("order")
    def copy(self, order="C"):
        """A copy on the current device."""
        return _evaluate.copy(self)

    def __copy__(self):
        """A copy on the array's device."""
        with self.device:
            return self.copy()

    def __deepcopy__(self, memo):
        """A copy on the array's device."""
        with self.device:
            return self.copy()

    def __reduce__(self):
        """Pickled by its elements on the host: it is unpickled on the device that is current then."""
        import cupy

        return cupy.array, (self.get(),)

    @lacks("order", "casting", "subok")
    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        """A copy of another dtype."""
        if not copy and self.dtype == dtype:
            return self
        return _evaluate.elementwise("astype", lambda a: a.astype(dtype), self)

    def fill(self, value):
        """Sets all elements."""
        _evaluate.assign(self, value)

    def round(self, decimals=0, out=None):
        """The elements rounded."""
        return _evaluate.elementwise("round", lambda a: a.round(decimals), self, out=out)

    def nonzero(self):
        """The indices of elements that are not zero. Waits for the device."""
        return _evaluate.nonzero(self)

    @lacks("out", "dtype")
    def argmin(self, axis=None, out=None, dtype=None, keepdims=False):
        """The index of the least element."""
        return _evaluate.whole("argmin", lambda a: a.argmin(axis, keepdims=keepdims), self)


def _reduction(name: str) -> Any:
    @lacks("out")
    def reduce(self, axis=None, out=None, keepdims=False):
        return _evaluate.whole(name, lambda a: getattr(a, name)(axis=axis, keepdims=keepdims), self)

    reduce.__doc__ = f"The {name} of the elements along an axis."
    return reduce


for _name in ("min", "max", "any", "all"):
    setattr(ndarray, _name, _reduction(_name))


@lacks("out")
def _sum(self, axis=None, dtype=None, out=None, keepdims=False):
    """The sum of the elements along an axis."""
    return _evaluate.whole("sum", lambda a: a.sum(axis=axis, dtype=dtype, keepdims=keepdims), self)


ndarray.sum = _sum


class _Capsule:
    """What stands for a DLPack capsule: it may be consumed once."""

    def __init__(self, array: ndarray) -> None:
        self.array: ndarray | None = array

    def consume(self) -> ndarray:
        """An array in the capsule's memory."""
        array, self.array = self.array, None
        if array is None:
            raise ValueError("A DLPack tensor object cannot be consumed multiple times")
        return array._view(array._host)


def from_interface(source: Any) -> ndarray:
    """The array that an object describes by CUDA's array interface; waits for the stream that it names."""
    from standin.pools import device_pool

    described = source.__cuda_array_interface__
    dtype, shape = np.dtype(described["typestr"]), described["shape"]
    address = described["data"][0]
    if not address:
        return ndarray(shape, dtype)
    block = device_pool().block_at(address)
    if not block.is_alive:
        raise report(UseAfterFreeError(f"an interface names {block}, which was freed at {block.freed_at}"))
    if described.get("stream") is not None:
        machine().wait_for_stream(machine().stream_of(described["stream"]))
    pointer = memory.MemoryPointer(memory._UnownedMemory(block, source), address - block.address)
    return ndarray(shape, dtype, pointer, described.get("strides"))
