"""A launch is checked before it runs, and what there is to launch on is found, or its lack is said clearly."""

import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

from gpusift import devices, processors
from gpusift.devices import definitions, get_device, host_library, kernel_sources
from gpusift.devices.launch_arguments import CODES, check_arguments

PRECISIONS = ("float32", "float64")
in_each_precision = pytest.mark.parametrize("dtype", PRECISIONS)
of_each_kernel = pytest.mark.parametrize("name", kernel_sources.kernels())
of_each_parameter = pytest.mark.parametrize(
    ("name", "index"),
    [(name, i) for name, kernel in kernel_sources.kernels().items() for i in range(len(kernel.parameters))],
)


def dtype_of(parameter, dtype):
    return np.dtype(dtype if parameter.dtype == "real" else parameter.dtype)


def arguments_of(name, dtype, xp=np):
    """Arguments that pass the check: arrays of ones and numbers."""
    return [
        xp.ones((2, 3), dtype_of(p, dtype)) if p.is_array else 1 if p.dtype.startswith("int") else 0.5
        for p in kernel_sources.kernels()[name].parameters
    ]


def refused(name, dtype, arguments, xp=np):
    """The message of the TypeError that these arguments raise."""
    with pytest.raises(TypeError) as caught:
        check_arguments(name, tuple(arguments), np.dtype(dtype), xp)
    return str(caught.value)


# Signatures


@in_each_precision
@of_each_kernel
def test_the_host_library_knows_every_kernel_of_the_sources(name, dtype):
    for library in host_library.libraries():
        assert library.find(dtype, name, 1)


def test_the_compiler_contracts_no_products_and_sums():
    """Those that the sources ask for are in single precision. GCC 12 makes others, unless it is told not to twice."""
    objdump = shutil.which("objdump")
    if not objdump:
        pytest.skip("objdump is missing: it comes with g++, in binutils")
    for library in host_library.libraries():
        command = [objdump, "--disassemble", "--no-show-raw-insn", library.path]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert not re.findall(r"\bvf(?:maddsub|msubadd)\w+|\bvfn?m\w+[sp]d\b", code), library.instruction_set


@in_each_precision
def test_an_unknown_kernel_is_said_to_be_missing(dtype):
    with pytest.raises(RuntimeError, match=r"libgpusift_\w+\.so has no kernel 'sharpen': build gpusift again"):
        host_library.library().find(dtype, "sharpen", 0)


def test_a_signature_is_read_as_written():
    upsample = kernel_sources.kernels()["upsample"]
    assert (upsample.stage, upsample.constant) == ("scale_space", "FACTOR")
    assert [(p.name, p.dtype, p.is_array) for p in upsample.parameters] == [
        ("image", "real", True),
        ("rows", "int32", False),
        ("cols", "int32", False),
        ("stride", "int64", False),
        ("centre", "real", False),
        ("out", "real", True),
        ("pitch", "int32", False),
    ]
    types = {(p.name, p.dtype) for p in kernel_sources.kernels()["refine"].parameters}
    assert {("keys", "int64"), ("mask", "uint8"), ("max_offset", "real")} <= types


@of_each_kernel
def test_types_are_those_that_a_launch_can_check(name):
    for parameter in kernel_sources.kernels()[name].parameters:
        assert parameter.dtype in ("real", "int32", "int64", "uint8", "float64")
        assert parameter.is_array or parameter.dtype in CODES or parameter.dtype == "real"


def test_numbers_are_packed_as_c_has_them():
    numbers = (-7, -(2**40), 0.1, 0.1)
    packed = b"".join(struct.pack("=" + CODES[name], n) for name, n in zip(CODES, numbers, strict=True))
    of_c = (
        np.array(numbers[:1], np.int32),
        np.array(numbers[1:2]),
        np.array(numbers[2:3], np.float32),
        np.array(numbers[3:]),
    )
    assert packed == b"".join(array.tobytes().ljust(8, b"\0") for array in of_c)


# Arguments


@in_each_precision
@of_each_kernel
def test_right_arguments_pass_and_numbers_get_their_parameters_dtype(name, dtype):
    given = arguments_of(name, dtype)
    values = check_arguments(name, tuple(given), np.dtype(dtype), np)
    for parameter, argument, value in zip(kernel_sources.kernels()[name].parameters, given, values, strict=True):
        assert value.dtype == dtype_of(parameter, dtype)
        if parameter.is_array:
            assert value is argument
        else:
            assert value.shape == ()
            assert value == argument


def test_numbers_of_the_right_dtype_and_whole_reals_pass():
    x = np.zeros(4, np.float64)
    arguments = (x, np.int32(2), 2, np.int64(2), 0.5, x, np.int32(2))
    assert [v.dtype for v in check_arguments("upsample", arguments, np.dtype("float64"), np)][1] == np.int32
    refine = arguments_of("refine", "float32")
    at = [p.name for p in kernel_sources.kernels()["refine"].parameters].index("c_dog")
    for number in (np.float32(2), 2, 2.0):
        refine[at] = number
        assert check_arguments("refine", tuple(refine), np.dtype("float32"), np)[at].dtype == np.float32


@in_each_precision
@of_each_kernel
def test_the_number_of_arguments(name, dtype):
    right = arguments_of(name, dtype)
    for wrong in (right[:-1], [*right, 1], []):
        message = f"kernel {name} takes {len(right)} arguments, got {len(wrong)}"
        assert refused(name, dtype, wrong) == message


@in_each_precision
@of_each_parameter
def test_each_wrong_argument_is_refused_by_name(name, index, dtype):
    parameter = kernel_sources.kernels()[name].parameters[index]
    right = dtype_of(parameter, dtype)
    if parameter.is_array:
        other = np.dtype("int32") if right != np.int32 else np.dtype("int64")
        wrong = {
            f"a contiguous array of {right}, got {other}": np.ones(6, other),
            f"a contiguous array of {right}, got not contiguous {right}": np.ones((4, 6), right)[:, ::2],
            "an array of numpy, got list": [1, 2],
            "an array of numpy, got int": 1,
            f"an array of numpy, got {right.type.__name__}": right.type(1),
            "an array of at least one dimension, got one of none": np.array(1, right),
            "an array of numpy, got NoneType": None,
        }
        if right.itemsize > 1:
            swapped = right.newbyteorder()
            wrong[f"a contiguous array of {right}, got {swapped}"] = np.ones(6, swapped)
    else:
        other = np.float64 if right == np.float32 else np.float32
        wrong = {
            f"{right}, got {np.dtype(other)}": other(1),
            f"{right}, got bool": np.bool_(True),
            "a number, got bool": True,
            "a number, got str": "1",
            "a number, got NoneType": None,
            "a number, got complex": 1j,
            "a number, got list": [1],
            "a number, got ndarray": np.ones(1, right),
        }
        if right.kind == "i":
            other = np.int64 if right == np.int32 else np.int32
            wrong |= {"an integer, got 1.0": 1.0, f"{right}, got {np.dtype(other)}": other(1)}
    for must_be, value in wrong.items():
        arguments = arguments_of(name, dtype)
        arguments[index] = value
        assert refused(name, dtype, arguments) == f"argument {parameter.name!r} of kernel {name} must be {must_be}"


def test_a_number_that_does_not_fit_is_refused_by_name():
    arguments = arguments_of("decimate", "float32")
    arguments[1] = 2**31
    with pytest.raises(OverflowError, match="argument 'rows' of kernel decimate must fit into int32, got 2147483648"):
        check_arguments("decimate", tuple(arguments), np.dtype("float32"), np)


@in_each_precision
def test_a_refused_launch_does_not_run(device, dtype):
    device = get_device(device, dtype)
    xp = device.xp
    level, out = xp.ones((4, 4), dtype), xp.full((2, 2), 7, dtype)
    foreign = [1.0] if xp is np else np.ones((4, 4), dtype)

    def launch(*arguments):
        device.launch("decimate", (2,), (32,), *arguments)
        return device.to_host(out)

    wrong = {
        "takes 7 arguments, got 6": (level, 4, 4, 4, 0, out),
        "'in' of kernel decimate must be an array": (1.0, 4, 4, 4, 0, out, 2),
        f"'in' of kernel decimate must be an array of {xp.__name__}, got": (foreign, 4, 4, 4, 0, out, 2),
        "'rows' of kernel decimate must be a number": (level, level, 4, 4, 0, out, 2),
        "'cols' of kernel decimate must be an integer": (level, 4, 4.0, 4, 0, out, 2),
        "'pitch' of kernel decimate must be int32, got int64": (level, 4, 4, np.int64(4), 0, out, 2),
        "got not contiguous": (level[::2], 4, 4, 4, 0, out, 2),
        "'out' of kernel decimate must be a contiguous array of": (level, 4, 4, 4, 0, out.astype(np.int32), 2),
    }
    for message, arguments in wrong.items():
        with pytest.raises(TypeError, match=re.escape(message)):
            launch(*arguments)
        assert (device.to_host(out) == 7).all()
    assert (launch(level, 4, 4, 4, 0, out, 2) == 1).all()


# Definitions


@in_each_precision
@of_each_kernel
def test_definitions_are_sorted_and_stable(name, dtype):
    given = definitions(name, np.dtype(dtype), 3, {"MAX_VALUES": 5, "MAX_BINS": 6})
    assert given == definitions(name, np.dtype(dtype), 3, {"MAX_BINS": 6, "MAX_VALUES": 5})
    assert given[: len(devices.OPTIONS)] == devices.OPTIONS
    n_limits = name in devices.MAX_REGISTERS and dtype == "float32"
    assert sum(option.startswith("--maxrregcount=") for option in given) == n_limits
    rest = given[len(devices.OPTIONS) + n_limits :]
    names = [re.fullmatch(r"-D(\w+)=([\w,]+)", option)[1] for option in rest]
    assert names == sorted(set(names))
    assert f"-DREAL={'float' if dtype == 'float32' else 'double'}" in rest


def test_definitions_have_the_constant_and_the_sizes():
    def of(name, *given):
        return definitions(name, np.dtype("float32"), *given)

    assert "-DFUSED=7" in of("first_level", 7)
    assert "-DFUSED=1" in of("upsample", 2)  # the file's other kernel is not asked for
    assert "-DFACTOR=2" in of("upsample", 2)
    assert of("first_level", 7) != of("first_level", 8)
    assert {"-DBLUR_RADII=12,9,0", "-DBLUR_TILE_ROWS=32"} <= set(of("blur", 0, {"BLUR_RADII": "12,9,0"}))
    assert "-DBLUR_TILE_ROWS=8" in of("blur", 0, {"BLUR_RADII": "65,9"})  # the widest decides
    assert "-DMAX_BINS=36" in of("assign_orientations")
    assert "-DMAX_BINS=90" in of("assign_orientations", 0, {"MAX_BINS": 90})
    assert not [option for option in of("refine") if "TILE" in option or "MAX_BINS" in option]


# The host library


def test_the_environment_chooses_the_instruction_set(monkeypatch):
    for name in [library.instruction_set for library in host_library.libraries()]:
        monkeypatch.setenv("GPUSIFT_INSTRUCTION_SET", name)
        assert host_library.library().instruction_set == name
        assert get_device("cpu").library.instruction_set == name
        assert devices.cpu_info()["instruction_set"] == name


@pytest.mark.parametrize("given", [None, ""])
def test_the_best_instruction_set_is_taken_by_default(given, monkeypatch):
    monkeypatch.delenv("GPUSIFT_INSTRUCTION_SET", raising=False)
    if given is not None:
        monkeypatch.setenv("GPUSIFT_INSTRUCTION_SET", given)
    assert host_library.library() is host_library.libraries()[0]
    assert devices.cpu_info()["available"] == [library.instruction_set for library in host_library.libraries()]
    assert devices.cpu_info()["threads"] == processors.threads()


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv("GPUSIFT_INSTRUCTION_SET", "altivec")
    names = ", ".join(library.instruction_set for library in host_library.libraries())
    with pytest.raises(RuntimeError) as caught:
        get_device("cpu")
    assert str(caught.value) == f"GPUSIFT_INSTRUCTION_SET must be one of {names} on this processor, got 'altivec'"
