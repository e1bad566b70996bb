"""Operations on arrays: shapes and dtypes are known at once, elements when the operation runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
from cupy.cuda import stream as streams
from standin import copies, faults
from standin.errors import CUDARuntimeError
from standin.machine import machine
from standin.operations import Use
from standin.pools import use_of_array

SCALARS = (bool, int, float, complex, np.generic)


def current_stream() -> Any:
    """The machine's stream that is current on the current device."""
    return machine().stream_of(streams.get_current_stream().ptr)


def use(array: Any, writes: bool, what: str) -> Use:
    """A use of an array on the current device."""
    machine().require_current(array.data.device_id, what)
    return use_of_array(array, writes, what)


def enqueue(what: str, run: Callable[[], None], reads: tuple[Any, ...], writes: tuple[Any, ...]) -> None:
    """Appends an operation on arrays to the current stream."""
    uses = *(use(array, False, what) for array in reads), *(use(array, True, what) for array in writes)

    def quietly() -> None:
        with np.errstate(all="ignore"):
            run()

    machine().enqueue(current_stream(), what, quietly, tuple(each for each in uses if each.high > each.low))


def _operands(what: str, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    for operand in operands:
        if not isinstance(operand, (cupy.ndarray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(operand)}")
    return tuple(operand for operand in operands if isinstance(operand, cupy.ndarray))


def _host_of(operand: Any) -> Any:
    return operand._host if isinstance(operand, cupy.ndarray) else operand


def _into(what: str, function: Any, operands: tuple[Any, ...], shape: Any, dtype: Any, out: Any) -> Any:
    arrays = _operands(what, operands)
    out = cupy.ndarray(shape, dtype) if out is None else out
    target, sources = out._host, tuple(map(_host_of, operands))  # which, unlike arrays, keep no memory from being freed

    def run() -> None:
        target[...] = function(*sources)

    enqueue(what, run, arrays, (out,))
    return out


def elementwise(what: str, function: Any, *operands: Any, out: Any = None) -> Any:
    """Applies a NumPy function of elements."""
    _operands(what, operands)
    shape = np.broadcast_shapes(*(o.shape for o in operands if isinstance(o, cupy.ndarray)))
    samples = (np.ones((1,) * o.ndim, o.dtype) if isinstance(o, cupy.ndarray) else o for o in operands)
    with np.errstate(all="ignore"):
        dtype = np.asarray(function(*samples)).dtype
    return _into(what, function, operands, shape, dtype, out)


def whole(what: str, function: Any, *operands: Any, out: Any = None) -> Any:
    """Applies a NumPy function whose result has a shape that does not depend on elements."""
    _operands(what, operands)
    samples = (np.zeros(o.shape, o.dtype) if isinstance(o, cupy.ndarray) else o for o in operands)
    with np.errstate(all="ignore"):
        result = np.asarray(function(*samples))
    return _into(what, function, operands, result.shape, result.dtype, out)


def assign(target: Any, value: Any) -> None:
    """Sets the elements of a view to those of an array of the device, or to a scalar."""
    if isinstance(value, np.ndarray):
        if value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        value = value.item()
    reads = _operands("assignment", (value,))
    if reads:
        shape = value.shape
        while len(shape) > target.ndim and shape[0] == 1:
            shape = shape[1:]
        np.broadcast_to(np.empty(shape, bool), target.shape)

    host, source = target._host, _host_of(value)

    def run() -> None:
        host[...] = source

    enqueue("assignment", run, reads, (target,))


def copy(array: Any) -> Any:
    """A C-contiguous copy on the current device, also of another device's array."""
    if array.data.device_id == machine().device:
        return elementwise("copy", np.copy, array)
    if faults.is_due("copy"):
        raise CUDARuntimeError(700)
    target = cupy.ndarray(array.shape, array.dtype)

    host, source = target._host, array._host

    def run() -> None:
        host[...] = source

    what = "copy between devices"
    uses = use_of_array(array, False, what), use_of_array(target, True, what)
    machine().enqueue(current_stream(), what, run, uses)
    return target


def ascontiguousarray(array: Any) -> Any:
    """The array, or a C-contiguous copy."""
    return array if array.flags.c_contiguous else elementwise("copy", np.copy, array)


def from_host(array: np.ndarray) -> Any:
    """A host array on the current device, copied through memory of CuPy's own."""
    target = cupy.ndarray(array.shape, array.dtype)
    if array.ndim == 0:
        target.fill(array)
    elif array.size:
        copies.to_device(target, np.array(array, order="C"), current_stream())
    return target


def nonzero(array: Any) -> tuple[Any, ...]:
    """The indices of elements that are not zero; waits for the device, as their number is needed."""
    machine().require_not_capturing(current_stream(), "nonzero")
    machine().require_current(array.data.device_id, "nonzero")
    found = array.get().nonzero()
    return tuple(from_host(indices) for indices in found)


def _index(key: Any) -> tuple[bool, tuple[Any, ...]]:
    """Whether a key is a basic one, and the key with its arrays on the device, those of booleans as indices."""
    parts: list[Any] = []
    is_basic = True
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)):
            parts.append(part)
            continue
        is_basic = False
        part = part if isinstance(part, cupy.ndarray) else cupy.asarray(part)
        parts += nonzero(part) if part.dtype == bool else [part]
    return is_basic, tuple(parts)


def getitem(array: Any, key: Any) -> Any:
    """A view, or for a key with arrays a copy."""
    is_basic, parts = _index(key)
    if is_basic:
        return array._view(array._host[parts if Ellipsis in parts else (*parts, Ellipsis)])
    if array.ndim == 1 and len(parts) == 1 and array.size:  # CuPy wraps indices that are out of bounds
        return whole("take", lambda a, i: a[i % len(a)], array, parts[0])
    held = [number for number, part in enumerate(parts) if isinstance(part, cupy.ndarray)]

    def take(a: Any, *indices: Any) -> Any:
        given = list(parts)
        for number, index in zip(held, indices):
            given[number] = index
        return a[tuple(given)]

    return whole("take", take, array, *(parts[number] for number in held))


def setitem(array: Any, key: Any, value: Any) -> None:
    """Sets the elements of a key."""
    is_basic, parts = _index(key)
    if is_basic:
        assign(getitem(array, key), value)
        return
    if isinstance(value, np.ndarray):
        value = cupy.asarray(value)
    reads = tuple(part for part in (*parts, value) if isinstance(part, cupy.ndarray))

    host, at, source = array._host, tuple(map(_host_of, parts)), _host_of(value)

    def run() -> None:
        host[at] = source

    enqueue("scatter", run, (*reads, array), (array,))


def _operator(name: str, ufunc: Any, is_reversed: bool = False) -> Any:
    def operate(self: Any, other: Any) -> Any:
        if isinstance(other, np.ndarray) or not isinstance(other, (cupy.ndarray, *SCALARS)):
            return NotImplemented
        operands = (other, self) if is_reversed else (self, other)
        return elementwise(name, ufunc, *operands)

    return operate


def _in_place(name: str, ufunc: Any) -> Any:
    def operate(self: Any, other: Any) -> Any:
        return elementwise(name, lambda a, b: ufunc(a, b).astype(a.dtype, casting="same_kind"), self, other, out=self)

    return operate


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def add_operators(cls: type) -> None:
    """Gives an array class Python's operators."""
    for name, ufunc in BINARY.items():
        setattr(cls, f"__{name}__", _operator(name, ufunc))
        setattr(cls, f"__r{name}__", _operator(name, ufunc, True))
        setattr(cls, f"__i{name}__", _in_place(name, ufunc))
    for name, ufunc in COMPARISONS.items():
        setattr(cls, f"__{name}__", _operator(name, ufunc))
    for name, ufunc in {"neg": np.negative, "abs": np.absolute, "invert": np.invert}.items():
        setattr(cls, f"__{name}__", lambda self, name=name, ufunc=ufunc: elementwise(name, ufunc, self))
    cls.__hash__ = None
