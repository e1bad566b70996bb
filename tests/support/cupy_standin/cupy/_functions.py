"""CuPy's functions that make arrays and work on whole ones."""

from __future__ import annotations

import numpy as np
from cupy import _evaluate
from cupy._array import _Capsule, from_interface, ndarray
from standin.lacks import lacks
from standin.machine import machine


def empty(shape, dtype=float, order="C"):
    """An array that is not set to anything."""
    return ndarray(shape, dtype, order=order)


@lacks("order", "subok")
def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    """An array of the shape and dtype of another one."""
    return ndarray(prototype.shape if shape is None else shape, dtype or prototype.dtype)


def full(shape, fill_value, dtype=None, order="C"):
    """An array of one value."""
    made = ndarray(shape, np.array(fill_value).dtype if dtype is None else dtype, order=order)
    made.fill(fill_value)
    return made


def zeros(shape, dtype=float, order="C"):
    """An array of zeros."""
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order="C"):
    """An array of ones."""
    return full(shape, 1, dtype, order)


def arange(start, stop=None, step=1, dtype=None):
    """The numbers of a range."""
    begin, end = (0, start) if stop is None else (start, stop)
    numbers = np.arange(begin, end, step, dtype)
    made = ndarray(numbers.shape, numbers.dtype)
    host = made._host

    def run() -> None:
        host[...] = numbers

    _evaluate.enqueue("arange", run, (), (made,))
    return made


@lacks("subok", "ndmin")
def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """An array on the current device."""
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = from_interface(obj)
    if isinstance(obj, ndarray):
        if obj.data.device_id != machine().device:
            obj = obj.copy()
        elif copy and (dtype is None or obj.dtype == dtype):
            return obj.copy()
        made = obj if dtype is None else obj.astype(dtype, copy=False)
        return _evaluate.ascontiguousarray(made) if order == "C" else made
    if isinstance(obj, (list, tuple)) and obj and all(isinstance(each, ndarray) for each in obj):
        return stack(obj)
    return _evaluate.from_host(np.asarray(obj, dtype))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    """The array on the current device; a copy if it is needed."""
    return array(a, dtype, bool(copy), "K" if order is None else order, blocking=blocking)


def ascontiguousarray(a, dtype=None):
    """The array on the current device, C-contiguous."""
    return _evaluate.ascontiguousarray(asarray(a, dtype))


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    """The array on the host."""
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    if hasattr(a, "__cuda_array_interface__"):
        return array(a).get(stream=stream, order=order, out=out, blocking=blocking)
    return np.asarray(a)


@lacks("device", "copy")
def from_dlpack(array, *, device=None, copy=None):
    """The array in the memory that an object exports, in order with the stream that is current on its device."""
    if isinstance(array, _Capsule):
        return array.consume()
    kind, number = array.__dlpack_device__()
    if kind != 2:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead."
            if kind == 1
            else f"Unsupported array type: {kind}"
        )
    from cupy.cuda import stream as streams

    before = machine().device
    machine().set_device(number)
    try:
        pointer = streams.get_current_stream().ptr or 1
        try:
            capsule = array.__dlpack__(stream=pointer, max_version=(1, 0), copy=copy)
        except TypeError:
            capsule = array.__dlpack__(stream=pointer)
    finally:
        machine().set_device(before)
    return capsule.consume()


def where(condition, x=None, y=None):
    """Elements of one or the other."""
    if x is None or y is None:
        raise NotImplementedError("the stand-in's where takes three arguments")
    return _evaluate.elementwise("where", np.where, condition, x, y)


@lacks("casting")
def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    """Arrays of one shape along a new axis."""
    return _evaluate.whole("stack", lambda *arrays: np.stack(arrays, axis, dtype=dtype), *tup, out=out)


@lacks("casting")
def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    """Arrays one after the other."""
    return _evaluate.whole("concatenate", lambda *arrays: np.concatenate(arrays, axis, dtype=dtype), *tup, out=out)


@lacks("sorter")
def searchsorted(a, v, side="left", sorter=None):
    """Where values belong in a sorted array."""
    return _evaluate.whole("searchsorted", lambda a, v: np.searchsorted(a, v, side), a, v)


@lacks("kind")
def sort(a, axis=-1, kind=None):
    """A sorted copy."""
    return _evaluate.whole("sort", lambda a: np.sort(a, axis, kind="stable"), a)


def lexsort(keys):
    """The indices that sort by the last key, then by the one before it."""
    if not isinstance(keys, ndarray):
        raise TypeError("lexsort takes an array of keys")
    return _evaluate.whole("lexsort", np.lexsort, keys)


def flatnonzero(a):
    """The indices of elements that are not zero. Waits for the device."""
    return a.ravel().nonzero()[0]


@lacks("casting", "where")
def copyto(dst, src, casting="same_kind", where=None):
    """Copies elements."""
    dst[...] = src
