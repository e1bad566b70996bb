"""NumPy arrays in pinned memory: what the host reads and writes in them is checked against copies under way."""

from __future__ import annotations

from typing import Any

import numpy as np
from standin.blocks import byte_bounds
from standin.machine import machine
from standin.pools import PinnedMemoryOf, pinned_pool


class PinnedArray(np.ndarray):
    """An array in pinned memory, and its views."""

    memory: PinnedMemoryOf | None = None

    def __array_finalize__(self, source: Any) -> None:
        self.memory = getattr(source, "memory", None)

    def __setitem__(self, key: Any, value: Any) -> None:
        check(self, True)
        super().__setitem__(key, value)

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        if not isinstance(item, PinnedArray):
            check(self, False)
        return item

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        for array in inputs:
            check(array, False)
        for array in out:
            check(array, True)
        options.update({"out": tuple(map(plain, out))} if out else {})
        return getattr(ufunc, method)(*map(plain, inputs), **options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        for number, array in enumerate(args):
            check(array, number == 0 and function is np.copyto)
        return function(*map(plain, args), **{name: plain(value) for name, value in kwargs.items()})


def _checked(name: str, writes: bool) -> Any:
    method = getattr(np.ndarray, name)

    def call(self: PinnedArray, *args: Any, **kwargs: Any) -> Any:
        check(self, writes)
        return getattr(plain(self), name)(*args, **kwargs)

    call.__doc__ = method.__doc__
    return call


for _name in ("copy", "astype", "tobytes", "tolist", "item", "sum", "min", "max", "any", "all"):
    setattr(PinnedArray, _name, _checked(_name, False))
PinnedArray.fill = _checked("fill", True)


def plain(array: Any) -> Any:
    """The same array without the checks."""
    return array.view(np.ndarray) if isinstance(array, PinnedArray) else array


def check(array: Any, writes: bool) -> None:
    """Checks that no copy under way conflicts with the host's use of an array."""
    if isinstance(array, PinnedArray) and array.size:
        low, high = byte_bounds(plain(array))
        use = pinned_pool().use_of(low, high - low, writes)
        if use is not None:
            machine().host_uses("the host " + ("writing" if writes else "reading"), (use,))


def empty(shape: Any, dtype: Any, order: str) -> PinnedArray:
    """An array in pinned memory."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = pinned_pool().allocate(size)
    array = np.ndarray(shape, dtype, memory.block.bytes, order=order).view(PinnedArray)
    array.memory = memory
    return array
