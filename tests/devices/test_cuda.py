"""CUDA devices: copies, streams, graphs, several devices, and what happens when something fails."""

import ast
import subprocess
import sys
import threading

import numpy as np
import pytest

from gpusift.devices import CpuDevice, get_device
from gpusift.devices.cuda import _cuda_function
from gpusift.devices.staging import Staging
from tests.support.checkout import ROOT
from tests.support.foreign_arrays import Tensor

standin_only = pytest.mark.standin
ARRAY = np.arange(48, dtype=np.float32).reshape(6, 8)


@pytest.fixture
def cuda():
    """A CUDA device, the current one, and its streams."""
    device = get_device("cuda")
    with device.active():
        yield device
        device.xp.cuda.Device().synchronize()


def fail_at(kind, *numbers):
    import standin

    standin.fail_at(kind, *numbers)


def in_threads(*functions):
    """Calls functions in a thread each, and raises what one of them raises."""
    errors = []

    def call(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# Copies


def uploaded(cuda, arrays, staging):
    """Arrays in a block of memory, copied at once, with gaps between them."""
    starts = [256 * n for n in range(len(arrays))]
    memory = cuda.memory(256 * len(arrays) + max(array.nbytes for array in arrays))
    cuda.upload(list(zip(starts, arrays)), memory, staging)
    return [memory[n : n + a.nbytes].view(a.dtype).reshape(a.shape) for n, a in zip(starts, arrays)]


@pytest.mark.gpu
def test_uploads_do_not_overwrite_each_other(cuda):
    """The second one waits for the copies of the first, whose memory it reuses."""
    staging = cuda.staging()
    several = [uploaded(cuda, [ARRAY + n, ARRAY.astype(np.uint8) + n], staging) for n in range(3)]
    for n, (reals, integers) in enumerate(several):
        np.testing.assert_array_equal(cuda.to_host(reals), ARRAY + n)
        np.testing.assert_array_equal(cuda.to_host(integers), ARRAY.astype(np.uint8) + n)


@pytest.mark.gpu
def test_an_upload_of_views_of_any_layout(cuda):
    (turned,) = uploaded(cuda, [ARRAY[::-1].T], cuda.staging())
    np.testing.assert_array_equal(cuda.to_host(turned), ARRAY[::-1].T)


@pytest.mark.gpu
def test_staging_that_is_dropped_waits_for_its_copies(cuda):
    (copied,) = uploaded(cuda, [ARRAY], cuda.staging())
    again = cuda.staging().take(ARRAY.nbytes)  # CuPy's pool has this memory at once
    again[:] = 0
    np.testing.assert_array_equal(cuda.to_host(copied), ARRAY)


@pytest.mark.gpu
def test_a_download_is_in_order_with_the_current_stream(cuda):
    with cuda.stream():
        (copied,) = uploaded(cuda, [ARRAY], cuda.staging())
        copied += 1
        copy = cuda.download(copied, cuda.staging())
    np.testing.assert_array_equal(copy.wait(), ARRAY + 1)
    assert copy.has_ended()


@pytest.mark.gpu
def test_a_download_may_be_waited_for_while_another_stream_works(cuda):
    staging, array = cuda.staging(), cuda.asarray(ARRAY)
    copy = cuda.download(array, staging)
    with cuda.stream():
        (copied,) = uploaded(cuda, [ARRAY], cuda.staging())
        copied += 1
    np.testing.assert_array_equal(copy.wait(), ARRAY)


@pytest.mark.gpu
def test_a_mark_orders_two_streams(cuda):
    first, second = cuda.stream(), cuda.stream()
    with first:
        array = cuda.xp.zeros(5)
        array += 1
        mark = cuda.mark()
    with second:
        cuda.wait_for(mark)
        array += 1
        mark = cuda.mark()
    cuda.wait_until(mark)
    array += 1
    assert (cuda.to_host(array) == 3).all()


@pytest.mark.gpu
def test_synchronize_waits_for_the_current_stream(cuda):
    with cuda.stream():
        array = cuda.xp.zeros(5)
        cuda.synchronize()
    assert (cuda.to_host(array) == 0).all()


@pytest.mark.gpu
def test_arrays_of_other_libraries_are_in_order(cuda):
    tensor = Tensor(cuda.xp, ARRAY)
    assert (cuda.to_host(cuda.from_gpu(tensor, "image")) == ARRAY).all()
    with cuda.stream():
        imported = cuda.from_gpu(Tensor(cuda.xp, ARRAY), "image")
        imported += 1
        assert (cuda.to_host(imported) == ARRAY + 1).all()


@pytest.mark.gpu
def test_an_interface_without_dlpack(cuda):
    class Exporter:
        def __init__(self, array):
            self.array = array
            self.__cuda_array_interface__ = array.__cuda_array_interface__

    array = cuda.xp.asarray(ARRAY)
    imported = cuda.from_gpu(Exporter(array), "image")
    assert imported.data.ptr == array.data.ptr
    assert (cuda.to_host(imported) == ARRAY).all()
    assert cuda.from_gpu(array, "image") is array


def test_the_cpu_refuses_an_array_of_a_gpu():
    with pytest.raises(ValueError, match="mask must be on the host to be computed on the CPU"):
        CpuDevice().from_gpu(object(), "mask")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sigma", [0.8, 1.6, 3.1])
def test_the_filter_is_as_exact_as_scipys(cuda, dtype, sigma):
    """In float32 CuPy's own weights and sums are off by 3e-7."""
    image = np.random.default_rng(1).random((40, 50)).astype(dtype)
    out = cuda.xp.empty((40, 50), dtype)
    cuda.gaussian_filter(cuda.xp.asarray(image), sigma, out)
    expected = np.empty_like(image)
    CpuDevice(dtype).gaussian_filter(image, sigma, expected)
    np.testing.assert_allclose(cuda.to_host(out), expected, rtol=0, atol=6e-8 if dtype == "float32" else 1e-14)


# Several devices


@standin_only
@pytest.mark.parametrize("kind", ["cupy", "tensor"])
def test_an_array_of_another_device_is_copied_in_order(kind):
    device = get_device("cuda:1")
    other = get_device("cuda:0")
    with other.active(), other.stream():
        array = other.xp.asarray(ARRAY) if kind == "cupy" else Tensor(other.xp, ARRAY)
        copy = device.from_gpu(array, "image")
        del array  # its memory may be reused at once
        other.xp.zeros(ARRAY.shape, np.float32)
    assert copy.device.id == 1
    np.testing.assert_array_equal(device.to_host(copy), ARRAY)


@standin_only
def test_a_view_of_another_device_is_copied_in_order():
    device, other = get_device("cuda:1"), get_device("cuda:0")
    with other.active(), other.stream():
        array = other.xp.asarray(ARRAY)
        np.testing.assert_array_equal(device.to_host(device.from_gpu(array.T[::2], "image")), ARRAY.T[::2])


@standin_only
def test_a_copy_to_the_host_names_its_stream():
    """A stream of another device is current when it is asked for."""
    device, other = get_device("cuda:1"), get_device("cuda:0")
    with device.active(), device.stream():
        array = device.xp.asarray(ARRAY)
        with other.active(), other.stream():
            np.testing.assert_array_equal(device.to_host(array), ARRAY)


def run_on(settings, code):
    """Runs code in a process with a stand-in of its own, and returns what it prints."""
    install = f"from tests.support import cupy_standin; cupy_standin.install(**{settings!r})\n"
    done = subprocess.run([sys.executable, "-c", install + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


COMPUTE = """
import numpy as np
from gpusift import SIFT
from gpusift.devices import cuda_info, free_memory_of
from standin import machine
print(len(cuda_info()["devices"]), machine().contexts, free_memory_of(1))
SIFT(device="cuda", n_octaves=1).compute(np.eye(32, dtype=np.uint8)).to_host()
print(machine().contexts)
"""


def test_a_context_is_made_only_on_the_device_that_is_used():
    assert run_on({"devices": 3, "unavailable": [1]}, COMPUTE).splitlines() == ["3 set() None", "{0}"]


@standin_only
def test_a_stream_is_that_of_the_device_itself():
    device = get_device("cuda:1")
    stream = device.stream()
    with device.active(), stream:
        assert (device.to_host(device.asarray(ARRAY)) == ARRAY).all()


@standin_only
def test_memory_is_that_of_the_device_itself():
    import standin

    standin.reset(memory=1 << 26)
    device, other = get_device("cuda:1"), get_device("cuda:0")
    pool = device.xp.get_default_memory_pool()
    with device.active():
        device.memory(1 << 20)
    device.free_memory()
    with device.active():
        assert pool.free_bytes() == 0
    other.free_memory()
    fitting = device.batch_size(1 << 20)
    with other.active():
        held = other.memory(3 << 24)
    assert device.batch_size(1 << 20) == fitting > other.batch_size(1 << 20)
    del held
    other.free_memory()
    assert device.total_memory == 1 << 26


# Launches


def steps_of(device, n=3):
    """Launches that increase an array's elements, from (4, 4) to (2, 2), and the arrays."""
    level, out = device.xp.ones((4, 4), np.float32), device.xp.zeros((2, 2), np.float32)
    return [device.prepare("decimate", (2,), (32,), level, 4, 4, 4, 0, out, 2)] * n, level, out


@pytest.mark.gpu
def test_a_program_does_the_same_as_a_graph(cuda):
    steps, level, out = steps_of(cuda)
    program = cuda.program(steps)
    for n in range(4):
        level.fill(n)
        program()
        assert (cuda.to_host(out) == n).all()
    assert program._graph is not None


@pytest.mark.gpu
def test_launches_on_either_side_of_a_step_of_the_host_are_graphs(cuda):
    (first, second), level, out = steps_of(cuda, 2)
    total = cuda.xp.zeros((2, 2), np.float32)

    def add():
        total[...] = total + out

    program = cuda.program([first, second, add, first])
    for n in range(1, 5):
        level.fill(n)
        program()
    assert (cuda.to_host(total) == 1 + 2 + 3 + 4).all()
    assert [part._graph is not None for part in program.steps] == [True, False, True]


@pytest.mark.gpu
def test_a_graph_is_in_order_with_the_stream_that_it_is_launched_in(cuda):
    steps, level, out = steps_of(cuda)
    program = cuda.program(steps)
    for n in range(4):
        mark = cuda.mark()
        with cuda.stream():
            cuda.wait_for(mark)
            level.fill(n)
            program()
            mark = cuda.mark()
        cuda.wait_for(mark)
        assert (cuda.to_host(out) == n).all()


@pytest.mark.gpu
def test_the_error_in_a_capture_is_the_one_that_is_told(cuda, caplog):
    (step, *_), _, _ = steps_of(cuda)

    def broken():
        raise KeyError("the first error")

    program = cuda.program([step])
    program()
    program.steps = [step, broken]
    with pytest.raises(KeyError):
        program()
    assert "no CUDA graph could be made of 2 launches: 'the first error'" in caplog.text
    program.steps = [step]
    program()


@standin_only
def test_first_launches_and_captures_in_threads_on_two_devices():
    results = {}

    def work(number):
        device = get_device(f"cuda:{number % 2}", "float32" if number < 2 else "float64")
        with device.active(), device.stream():
            dtype = device.dtype
            level, out = device.xp.ones((4, 4), dtype), device.xp.zeros((2, 2), dtype)
            program = device.program([device.prepare("decimate", (2,), (32,), level, 4, 4, 4, 0, out, 2)])
            for n in range(4):
                level.fill(n + number)
                program()
            results[number] = device.to_host(out).tolist()

    in_threads(*(lambda number=number: work(number) for number in range(4)))
    assert results == {number: [[3.0 + number] * 2] * 2 for number in range(4)}


def imported_by(path):
    """The modules that import statements of a file name, wherever they are in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_cupy_is_imported_in_one_place():
    """By `load_cupy`, whose lock an import statement would not take."""
    imports = [(path.name, name) for path in (ROOT / "gpusift").rglob("*.py") for name in imported_by(path)]
    assert ("cuda.py", "numpy") in imports
    assert [each for each in imports if each[1].split(".")[0] in ("cupy", "cupyx")] == []


def test_cupy_is_imported_whole_by_two_threads():
    """With CuPy itself, or its stand-in."""
    code = """
import threading
from gpusift.devices.cuda_info import load_cupy
barrier, errors = threading.Barrier(4), []
def use(number):
    barrier.wait()
    try:
        load_cupy("cupyx").empty_pinned
        load_cupy("cupyx.scipy.ndimage").gaussian_filter
        load_cupy().RawModule
    except ModuleNotFoundError:
        pass
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=use, args=[n]) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not errors, errors
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Failures


@standin_only
def test_memory_that_cannot_be_pinned_is_done_without(cuda, caplog):
    staging = cuda.staging()
    fail_at("pinned allocation", 1)
    (copied,) = uploaded(cuda, [ARRAY], staging)
    assert "192 bytes of host memory could not be pinned: cudaErrorMemoryAllocation" in caplog.text
    np.testing.assert_array_equal(cuda.download(copied, staging).wait(), ARRAY)
    (copied,) = uploaded(cuda, [np.tile(ARRAY, 9)], staging)  # larger: it is pinned this time
    np.testing.assert_array_equal(cuda.download(copied, staging).wait(), np.tile(ARRAY, 9))


@standin_only
def test_a_copy_that_fails_leaves_its_memory_alone(cuda):
    staging = cuda.staging()
    fail_at("copy", 1)
    with pytest.raises(RuntimeError):
        uploaded(cuda, [ARRAY, ARRAY], staging)
    array = cuda.asarray(ARRAY)
    fail_at("copy", 1)
    with pytest.raises(RuntimeError):
        cuda.download(array, staging)
    fail_at("copy")
    for n, array in enumerate(uploaded(cuda, [ARRAY + 1, ARRAY + 2], staging)):
        np.testing.assert_array_equal(cuda.to_host(array), ARRAY + 1 + n)


@standin_only
@pytest.mark.parametrize("kind", ["launch", "module load"])
def test_a_launch_that_fails_says_so_and_the_next_one_works(cuda, kind):
    _cuda_function.cache_clear()  # the kernel is loaded again
    level, out = cuda.xp.ones((4, 4), np.float32), cuda.xp.zeros((2, 2), np.float32)
    step = cuda.prepare("decimate", (2,), (32,), level, 4, 4, 4, 0, out, 2)
    fail_at(kind, 1)
    with pytest.raises(cuda.xp.cuda.driver.CUDADriverError):
        step()
    step()
    assert (cuda.to_host(out) == 1).all()


def test_a_staging_that_never_was_used_ends_quietly():
    Staging(None, MemoryError).__del__()
