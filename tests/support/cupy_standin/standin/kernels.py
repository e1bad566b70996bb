"""Modules of kernels: the source that CuPy would compile, run by the host library that was built from the same text."""

from __future__ import annotations

import ctypes
import re
import struct
from functools import cache
from typing import Any

import numpy as np
from standin import faults
from standin.errors import CompileException, CUDADriverError
from standin.machine import machine
from standin.operations import Stream, Use
from standin.violations import Violation, report

from gpusift.devices import kernel_sources
from gpusift.devices.cpu import RECORD
from gpusift.devices.launch_arguments import CODES

DTYPES = {"int": "int32", "long long": "int64", "unsigned char": "uint8", "double": "float64", "float": "float32"}
SIGNATURE = r"^KERNEL(?:_OF\((?P<constant>\w+)\))? {name}\((?P<parameters>[^)]*)\)"
LARGEST_GRID, LARGEST_BLOCK, MOST_THREADS = (2**31 - 1, 65535, 65535), (1024, 1024, 64), 1024
LARGEST_SHARED = 48 << 10


class Kernel:
    """A kernel of a source, compiled with some options.

    Attributes
    ----------
    parameters : list of (dtype, is_array, is_written)
    """

    def __init__(self, code: str, options: tuple[str, ...], name: str) -> None:
        match = re.search(SIGNATURE.format(name=name), code, re.MULTILINE)
        if match is None:
            raise CUDADriverError(500)
        values = dict(re.findall(r"-D(\w+)=(\S+)", " ".join(options)))
        self.name, self.precision = name, np.dtype(DTYPES[values["REAL"]])
        self.parameters = [_parameter(words, self.precision) for words in match["parameters"].split(",")]
        self.constant = int(values[match["constant"]]) if match["constant"] else 0
        self._library = machine().library
        self._address = self._library.find(self.precision.name, name, self.constant)

    def enqueue(self, stream: Stream, grid: Any, block: Any, arguments: Any, shared_mem: int) -> None:
        """Launches the kernel, after the driver's checks."""
        grid, block = ((*shape, 1, 1)[:3] for shape in (grid, block))
        within = all(1 <= n <= most for n, most in zip((*grid, *block), (*LARGEST_GRID, *LARGEST_BLOCK)))
        if not within or np.prod(block) > MOST_THREADS or not 0 <= shared_mem <= LARGEST_SHARED:
            raise CUDADriverError(1)
        if faults.is_due("launch"):
            raise CUDADriverError(701)
        machine().require_current(stream.device, f"the launch of {self.name}")
        uses, codes, values, kept = self._checked(arguments)
        packed = ctypes.create_string_buffer(struct.pack("=" + codes, *values))
        record = RECORD.pack(self._address, *grid, *block, ctypes.addressof(packed))

        def run() -> None:
            with self._library.team(1) as team:
                self._library.launch[self.precision.name](team, record, 1)
            for use in uses:
                use.block.require_guards(f"kernel {self.name}")

        run.memory = packed, kept  # what the record points to
        machine().enqueue(stream, f"kernel {self.name}", run, uses)

    def _checked(self, arguments: Any) -> tuple[tuple[Use, ...], str, list[Any], list[Any]]:
        """The uses of memory, how arguments are packed, their values, and the memory that stays mapped."""
        if len(arguments) != len(self.parameters):
            raise report(
                Violation(f"kernel {self.name} has {len(self.parameters)} parameters, got {len(arguments)} arguments")
            )
        uses, codes, values, kept = [], "", [], []
        for (dtype, is_array, is_written), argument in zip(self.parameters, arguments):
            is_pointer = hasattr(argument, "_byte_bounds")
            if is_pointer != is_array or getattr(argument, "dtype", None) != dtype:
                wanted = f"{'an array' if is_array else 'a scalar'} of {dtype}"
                raise report(Violation(f"kernel {self.name} must get {wanted}, got {argument!r}"))
            if is_array:
                machine().require_current(argument.data.device_id, f"kernel {self.name}")
                block = argument.data.mem.block
                block.require_alive(argument.data.mem.generation, f"kernel {self.name}")
                uses.append(Use(block, 0, block.size, is_written))  # a kernel may reach beyond a view
                kept.append(block)
            codes += "Q" if is_array else CODES[dtype.name]
            values.append(argument.data.ptr if is_array else argument)
        return tuple(uses), codes, values, kept


def _parameter(words: str, real: np.dtype) -> tuple[np.dtype, bool, bool]:
    plain = " ".join(re.sub(r"\bconst\b|__restrict__|\*", " ", words).split()).rsplit(" ", 1)[0]
    dtype = real if plain == "real" else np.dtype(DTYPES[plain])
    return dtype, "*" in words, not words.strip().startswith("const")


def require_source(code: str, options: tuple[str, ...]) -> None:
    """Raises CompileException unless the host library was built from this source, and all macros have values."""
    if code not in _sources():
        raise CompileException("the stand-in compiles nothing but the stages of kernels/, which the host library has")
    if not any(option.startswith("-DREAL=") for option in options):
        raise CompileException('identifier "REAL" is undefined')
    if faults.is_due("module load"):
        raise CUDADriverError(200)


@cache
def _sources() -> set[str]:
    return {kernel_sources.text(stage) for stage in kernel_sources.stages()}
