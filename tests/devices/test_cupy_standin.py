"""Each check of the stand-in for CuPy fires on a small wrong program and is silent on the right one."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest

from gpusift.devices import definitions, kernel_sources

pytestmark = pytest.mark.standin


@pytest.fixture(autouse=True)
def cupy():
    """The stand-in, with nothing in flight."""
    import cupy
    import standin

    gc.collect()  # arrays that earlier tests have left behind return to their pools now, not in the middle of this test
    standin.reset(seed=3)
    yield cupy
    standin.reset()


def violation(kind, function):
    """Asserts that a program raises a violation, which is recorded, and returns what it says."""
    import standin

    with pytest.raises(getattr(standin, kind)) as caught:
        function()
    assert caught.value in standin.take_violations()
    return str(caught.value)


def recorded(kind):
    """Asserts that a violation was recorded without being raised, and returns what it says."""
    import standin

    standin.machine().settle()
    (found,) = standin.take_violations()
    assert isinstance(found, getattr(standin, kind))
    return str(found)


def streams(cupy, n=2):
    return [cupy.cuda.Stream(non_blocking=True) for _ in range(n)]


def decimate(cupy, name="decimate"):
    """A kernel of the sources, and arguments that it takes: in, rows, cols, pitch, stride, out, out_pitch."""
    module = cupy.RawModule(
        code=kernel_sources.text("scale_space"), options=definitions("decimate", np.dtype("float32"))
    )
    return module.get_function(name)


def arguments(cupy, level, out):
    return (level, np.int32(4), np.int32(4), np.int32(4), np.int64(0), out, np.int32(2))


# Lateness


def test_nothing_runs_before_something_waits(cupy):
    array = cupy.zeros(3, np.int32)
    assert array.get().tolist() == [0, 0, 0]
    array += 1
    assert array._host.tolist() == [0, 0, 0]
    assert array.get().tolist() == [1, 1, 1]


def test_unset_memory_is_nan_and_0xff(cupy):
    assert np.isnan(cupy.empty(5, np.float32).get()).all()
    assert (cupy.empty(5, np.uint8).get() == 255).all()


def test_the_seed_decides_the_order_of_independent_streams(cupy):
    import standin

    def order(seed):
        standin.reset(seed=seed)
        done = []
        for number, stream in enumerate(streams(cupy, 4)):
            machine = standin.machine()
            for step in range(3):
                machine.enqueue(machine.stream_of(stream.ptr), "step", lambda at=(number, step): done.append(at))
        cupy.cuda.runtime.deviceSynchronize()
        return done

    orders = {tuple(order(seed)) for seed in range(6)}
    assert len(orders) > 3
    assert all(list(done).index((n, 0)) < list(done).index((n, 2)) for done in orders for n in range(4))
    assert order(1) == order(1)


# Order of streams


def test_a_read_on_another_stream_without_an_event(cupy):
    first, second = streams(cupy)
    with first:
        array = cupy.zeros(4)

    def read():
        with second:
            return array + 1

    message = violation("RaceError", read)
    assert message.count("test_cupy_standin.py:") >= 2  # both places
    event = first.record()
    second.wait_event(event)
    with second:
        assert (read().get() == 1).all()


def test_a_write_after_a_read_on_another_stream(cupy):
    first, second = streams(cupy)
    with first:
        array = cupy.zeros(4)
    second.wait_event(first.record())
    with second:
        total = array.sum()
    with first:
        violation("RaceError", lambda: array.fill(1))
        first.wait_event(second.record())
        array.fill(1)
    with second:
        assert int(total) == 0


def test_reads_on_two_streams_need_no_order(cupy):
    first, second = streams(cupy)
    array = cupy.zeros(4)
    event = cupy.cuda.get_current_stream().record()
    for stream in (first, second):
        stream.wait_event(event)
        with stream:
            array.sum()


def test_different_bytes_of_an_array_need_no_order(cupy):
    first, second = streams(cupy)
    array = cupy.zeros(8)
    cupy.cuda.get_current_stream().synchronize()
    with first:
        array[:4] = 1
    with second:
        array[4:] = 2
        violation("RaceError", lambda: array.__setitem__(slice(3, 5), 3))


def test_a_blocking_stream_orders_with_the_null_stream_and_a_non_blocking_one_does_not(cupy):
    array, stream = cupy.zeros(4), cupy.cuda.Stream()
    with stream:
        array += 1
    array += 1
    assert (array.get() == 2).all()
    array += 1
    with cupy.cuda.Stream(non_blocking=True):
        violation("RaceError", lambda: array.sum())


def test_the_host_orders_what_it_has_waited_for(cupy):
    first, second = streams(cupy)
    with first:
        array = cupy.zeros(4)
    first.synchronize()
    with second:
        assert float(array.sum()) == 0
    with first:
        array += 1
        event = first.record()
    event.synchronize()
    with second:
        assert float(array.sum()) == 4


def test_an_event_orders_only_what_was_before_it(cupy):
    first, second = streams(cupy)
    with first:
        array = cupy.zeros(4)
        event = first.record()
        array += 1
    second.wait_event(event)
    with second:
        violation("RaceError", lambda: array.sum())


# Host memory


def test_pinned_memory_that_changes_before_its_copy(cupy):
    import cupyx

    pinned, array = cupyx.empty_pinned(4, np.int32), cupy.empty(4, np.int32)
    pinned[:] = 1
    array.set(pinned)

    def change():
        pinned[:] = 2

    violation("RaceError", change)
    cupy.cuda.get_current_stream().synchronize()
    change()
    assert (array.get() == 1).all()


def test_pinned_memory_that_changes_unseen(cupy):
    """Through a plain view, no write is seen, but the copy compares."""
    import cupyx

    pinned, array = cupyx.empty_pinned(4, np.int32), cupy.empty(4, np.int32)
    pinned[:] = 1
    array.set(pinned)
    pinned.view(np.ndarray)[:] = 2
    violation("RaceError", cupy.cuda.get_current_stream().synchronize)


def test_a_host_read_before_the_copy_has_ended(cupy):
    import cupyx

    pinned, array = cupyx.empty_pinned(4, np.int32), cupy.zeros(4, np.int32)
    array.get(out=pinned, blocking=False)
    violation("RaceError", pinned.copy)
    cupy.cuda.get_current_stream().synchronize()
    assert (pinned.copy() == 0).all()


def test_pageable_memory_may_change_at_once(cupy):
    host = np.ones(4, np.int32)
    array = cupy.asarray(host)
    host[:] = 2
    assert (array.get() == 1).all()


def test_pinned_memory_that_is_freed_before_its_copy(cupy):
    import cupyx

    pinned, array = cupyx.empty_pinned(4, np.int32), cupy.empty(4, np.int32)
    pinned[:] = 1
    array.set(pinned)
    del pinned
    assert "while it may still be used by copy to the device" in recorded("UseAfterFreeError")
    violation("RaceError", cupy.cuda.get_current_stream().synchronize)  # it was poisoned
    pinned = cupyx.empty_pinned(4, np.int32)
    pinned[:] = 1
    array.set(pinned)
    cupy.cuda.get_current_stream().synchronize()
    del pinned
    assert (array.get() == 1).all()


# Memory


def test_freed_memory_is_poisoned_and_returns_to_its_stream(cupy):
    array = cupy.zeros(1000, np.float32)
    address = array.data.ptr
    del array
    with cupy.cuda.Stream(non_blocking=True):
        assert cupy.empty(1000, np.float32).data.ptr != address
    again = cupy.empty(1000, np.float32)
    assert again.data.ptr == address
    assert np.isnan(again.get()).all()


def test_memory_that_is_freed_while_another_stream_uses_it(cupy):
    array = cupy.zeros(4)
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        array.sum()
    del array
    assert "freeing" in recorded("RaceError")
    stream.synchronize()
    array = cupy.zeros(4)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        array.sum()
    cupy.cuda.get_current_stream().wait_event(stream.record())
    del array
    cupy.cuda.get_current_stream().synchronize()


def test_an_interface_of_freed_memory(cupy):
    class Exporter:
        def __init__(self, array):
            self.__cuda_array_interface__ = array.__cuda_array_interface__

    kept = cupy.arange(4)
    assert cupy.asarray(Exporter(kept)).get().tolist() == [0, 1, 2, 3]
    freed = [cupy.arange(77)]
    dangling = Exporter(freed[0])
    imported = cupy.asarray(dangling)
    freed.clear()
    gc.collect()
    cupy.zeros(1)
    violation("UseAfterFreeError", lambda: cupy.asarray(dangling))
    again = cupy.arange(77)  # has the same address
    for use in (imported.get, lambda: imported.set(np.arange(77)), lambda: imported + 1):
        violation("UseAfterFreeError", use)
    assert again.get().tolist() == list(range(77))


def test_a_write_outside_a_block(cupy):
    import standin

    array = cupy.zeros(128, np.float32)
    block = array.data.mem.block
    block._guards[1][0] = 0
    del array
    violation("Violation", cupy.cuda.get_current_stream().synchronize)
    block._guards[1][0] = 0xA5
    assert standin.machine().has_ended(None)


def test_memory_runs_out_as_cupy_says(cupy):
    import standin

    standin.reset(memory=1 << 20)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating 4,194,304 bytes"):
        cupy.empty(1 << 22, np.uint8)
    standin.reset()
    cupy.empty(1 << 22, np.uint8)


# Devices


def test_an_array_of_another_device(cupy):
    with cupy.cuda.Device(1):
        array = cupy.zeros(4)
        array += 1
    violation("DeviceError", lambda: array + 1)
    violation("DeviceError", lambda: array.fill(1))
    with cupy.cuda.Device(1):
        assert (array.get() == 1).all()
        assert array.device.id == 1


def test_get_takes_the_stream_of_the_device_that_is_current(cupy):
    with cupy.cuda.Device(1):
        array = cupy.zeros(4)
    with cupy.cuda.Stream(non_blocking=True):
        violation("RaceError", array.get)
    assert (array.get() == 0).all()  # the null stream is that of the device of the copy
    with cupy.cuda.Stream(non_blocking=True), cupy.cuda.Device(1):
        assert (array.get() == 0).all()


def test_set_takes_the_stream_of_the_device_that_is_current(cupy):
    with cupy.cuda.Device(1):
        array = cupy.zeros(4)
    with cupy.cuda.Stream(non_blocking=True):
        violation("RaceError", lambda: array.set(np.ones(4)))
    array.set(np.ones(4))  # in the null stream of the array's device
    assert (array.get() == 1).all()


def test_copies_stay_on_their_device_and_pickles_do_not(cupy):
    with cupy.cuda.Device(1):
        array = cupy.asarray(np.arange(5))
    copies = [copy.copy(array), copy.deepcopy(array), pickle.loads(pickle.dumps(array))]
    assert [each.device.id for each in copies] == [1, 1, 0]
    for each in copies:
        with each.device:
            np.testing.assert_array_equal(each.get(), np.arange(5))


def test_a_copy_from_another_device(cupy):
    with cupy.cuda.Device(1):
        array = cupy.arange(4)
        event = cupy.cuda.get_current_stream().record()
    violation("RaceError", lambda: cupy.asarray(array))
    cupy.cuda.get_current_stream().wait_event(event)
    copy = cupy.asarray(array)
    assert copy.device.id == 0
    assert copy.get().tolist() == [0, 1, 2, 3]


def test_a_stream_of_another_device(cupy):
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(RuntimeError, match="does not match with the current device"), stream:
        pass
    with cupy.cuda.Device(1), stream:
        assert cupy.cuda.get_current_stream() == stream


def test_a_device_that_cannot_be_had(cupy):
    import standin

    standin.reset(unavailable=[1])
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorDevicesUnavailable"):
        cupy.cuda.Device(1).__enter__()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.runtime.setDevice(9)
    assert cupy.cuda.runtime.getDeviceProperties(1)["major"] == 9


# Launches


def test_a_launch_runs_the_kernel(cupy):
    level, out = cupy.ones((4, 4), np.float32), cupy.zeros((2, 2), np.float32)
    decimate(cupy)((2, 1, 1), (32, 1, 1), arguments(cupy, level, out))
    assert (out.get() == 1).all()


@pytest.mark.parametrize(
    ("grid", "block"),
    [((0,), (1,)), ((1, 65536), (1,)), ((2**31,), (1,)), ((1,), (1025,)), ((1,), (33, 32)), ((1,), (1, 1, 65))],
)
def test_shapes_that_the_driver_refuses(cupy, grid, block):
    level, out = cupy.ones((4, 4), np.float32), cupy.zeros((2, 2), np.float32)
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        decimate(cupy)(grid, block, arguments(cupy, level, out))
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        decimate(cupy)((1,), (1,), arguments(cupy, level, out), shared_mem=1 << 20)


def test_arguments_that_nobody_else_checks(cupy):
    level, out = cupy.ones((4, 4), np.float32), cupy.zeros((2, 2), np.float32)
    right = arguments(cupy, level, out)
    wrong = {
        "has 7 parameters, got 6": right[:-1],
        "a scalar of int32": (level, np.int64(4), *right[2:]),
        "a scalar of int64": (*right[:4], 0, *right[5:]),
        "an array of float32": (level.astype(np.float64), *right[1:]),
    }
    for message, given in wrong.items():
        assert message in violation("Violation", lambda given=given: decimate(cupy)((1,), (32,), given))
    with cupy.cuda.Device(1):
        violation("DeviceError", lambda: decimate(cupy)((1,), (32,), right))


def test_a_source_that_is_not_ours(cupy):
    with pytest.raises(cupy.cuda.compiler.CompileException):
        cupy.RawModule(code="KERNEL f(int n) {}", options=("-DREAL=float",)).get_function("f")((1,), (1,), (1,))
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_NOT_FOUND"):
        decimate(cupy, "sharpen")((1,), (1,), ())


def test_a_kernel_takes_part_in_the_order_of_streams(cupy):
    level, out = cupy.ones((4, 4), np.float32), cupy.zeros((2, 2), np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        violation("RaceError", lambda: decimate(cupy)((2,), (32,), arguments(cupy, level, out)))
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        decimate(cupy)((2,), (32,), arguments(cupy, level, out))
        violation("RaceError", lambda: cupy.cuda.Stream.null.__enter__() and out.sum())
    cupy.cuda.Stream.null.__exit__()
    stream.synchronize()


# Graphs


def captured(cupy, stream, function):
    with stream:
        stream.begin_capture()
        function()
        return stream.end_capture()


def test_a_graph_replays_with_its_addresses(cupy):
    (stream,) = streams(cupy, 1)
    array = cupy.zeros(4)
    graph = captured(cupy, stream, lambda: array.__iadd__(1))
    assert (array.get() == 0).all()
    for _ in range(3):
        graph.launch()
    assert (array.get() == 3).all()


def test_a_graph_whose_memory_was_freed(cupy):
    (stream,) = streams(cupy, 1)
    arrays = [cupy.zeros(333)]
    graph = captured(cupy, stream, lambda: arrays[0].__iadd__(1))
    arrays.clear()
    violation("UseAfterFreeError", graph.launch)
    other = cupy.zeros(333)  # has the same address
    violation("UseAfterFreeError", graph.launch)
    assert (other.get() == 0).all()


def test_a_graph_takes_part_in_the_order_of_streams(cupy):
    first, second = streams(cupy)
    array = cupy.zeros(4)
    graph = captured(cupy, first, lambda: array.__iadd__(1))
    violation("RaceError", lambda: graph.launch(second))
    second.wait_event(cupy.cuda.get_current_stream().record())
    graph.launch(second)
    second.synchronize()
    assert (array.get() == 1).all()


def refused(cupy, stream, kind, match, function):
    """Asserts that a function raises while a stream captures, and that the capture is then of no use."""
    with stream:
        stream.begin_capture()
        with pytest.raises(kind, match=match):
            function()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
    assert not stream.is_capturing()


def test_what_a_capture_forbids(cupy):
    (stream,) = streams(cupy, 1)
    array = cupy.zeros(4)
    outside = cupy.cuda.get_current_stream().record()
    error = cupy.cuda.runtime.CUDARuntimeError

    refused(cupy, stream, error, "cudaErrorStreamCaptureUnsupported", stream.synchronize)
    refused(cupy, stream, error, "cudaErrorStreamCaptureUnsupported", lambda: stream.done)
    refused(cupy, stream, error, "cudaErrorStreamCaptureUnsupported", cupy.cuda.Device().synchronize)
    refused(cupy, stream, error, "cudaErrorStreamCaptureUnsupported", cupy.cuda.runtime.deviceSynchronize)
    refused(cupy, stream, error, "cudaErrorCapturedEvent", lambda: stream.record().synchronize())
    refused(cupy, stream, error, "cudaErrorCapturedEvent", lambda: stream.record().done)
    refused(cupy, stream, RuntimeError, "D2H transfers are disallowed", array.get)
    refused(cupy, stream, RuntimeError, "H2D transfers are disallowed", lambda: array.set(np.zeros(4)))
    refused(cupy, stream, error, "cudaErrorStreamCaptureIsolation", lambda: stream.wait_event(outside))
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cupy.cuda.Stream.null.begin_capture()
    with pytest.raises(NotImplementedError, match="captures in relaxed mode"):
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
    with pytest.raises(error, match="cudaErrorInvalidValue"):
        stream.end_capture()


def test_the_null_stream_while_a_blocking_stream_captures(cupy):
    stream, null = cupy.cuda.Stream(), cupy.cuda.Stream.null
    stream.begin_capture()
    for use in (lambda: cupy.zeros(4), null.synchronize, lambda: null.done):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
            use()
    stream.end_capture()
    cupy.zeros(4)
    null.synchronize()


def test_memory_of_a_capture_that_is_freed_before_its_end(cupy):
    (stream,) = streams(cupy, 1)
    array = cupy.zeros(4)
    graph = captured(cupy, stream, lambda: array.__iadd__(array * 2))
    violation("UseAfterFreeError", graph.launch)
    kept = []
    graph = captured(cupy, stream, lambda: kept.append(array * 2) or array.__iadd__(kept[0]))
    cupy.cuda.Device().synchronize()
    graph.launch()


def forked(cupy, first, second, in_second, joined=True):
    """A graph of two streams: `second` follows `first`, and, if `joined`, `first` then follows `second`."""
    with first:
        first.begin_capture()
        second.wait_event(first.record())
    with second:
        in_second()
    if joined:
        first.wait_event(second.record())
    return first.end_capture()


@pytest.mark.parametrize("seed", range(4))
def test_a_capture_of_two_streams(cupy, seed):
    import standin

    standin.reset(seed=seed)
    first, second = streams(cupy)
    array, other = cupy.zeros(4), cupy.zeros(4)
    cupy.cuda.Device().synchronize()

    def in_both():
        array.__iadd__(1)
        with first:
            other.__iadd__(1)

    graph = forked(cupy, first, second, in_both)
    assert not first.is_capturing()
    assert not second.is_capturing()
    for _ in range(2):
        graph.launch(first)
    with first:
        array += other  # the graph ends when all of its streams do
        assert array.get().tolist() == [4] * 4


def test_streams_of_a_capture_without_an_order(cupy):
    first, second = streams(cupy)
    array = cupy.zeros(4)
    cupy.cuda.Device().synchronize()

    def in_both():
        array.__iadd__(1)
        with first:
            array.__iadd__(1)

    graph = forked(cupy, first, second, in_both)
    violation("RaceError", lambda: graph.launch(first))


def test_a_capture_whose_streams_do_not_join(cupy):
    first, second = streams(cupy)
    array = cupy.zeros(4)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnjoined"):
        forked(cupy, first, second, lambda: array.__iadd__(1), joined=False)
    assert not second.is_capturing()


def test_events_of_one_capture_in_another_stream(cupy):
    first, second = streams(cupy)
    error = cupy.cuda.runtime.CUDARuntimeError
    first.begin_capture()
    second.begin_capture()
    event = first.record()
    with pytest.raises(error, match="cudaErrorStreamCaptureMerge"):
        second.wait_event(event)
    for stream in (first, second):
        with pytest.raises(error, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
    with pytest.raises(error, match="cudaErrorCapturedEvent"):
        second.wait_event(event)
    refused(
        cupy, first, error, "cudaErrorStreamCaptureImplicit", lambda: cupy.cuda.Stream.null.wait_event(first.record())
    )
    first.begin_capture()
    second.wait_event(first.record())
    with pytest.raises(error, match="cudaErrorStreamCaptureUnmatched"):
        second.end_capture()
    with pytest.raises(error, match="cudaErrorStreamCaptureInvalidated"):
        first.end_capture()


# The default stream of each thread


def test_each_thread_has_a_default_stream_of_its_own(cupy):
    array = cupy.zeros(4)
    with cupy.cuda.Stream.ptds:
        array += 1  # it orders with the null stream

    def use():
        with cupy.cuda.Stream.ptds:
            raised.append(violation("RaceError", lambda: array.__iadd__(1)))

    raised = []
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "stream 2 of device 0" in raised[0]
    assert cupy.cuda.Stream(ptds=True) == cupy.cuda.Stream.ptds
    assert (array.get() == 1).all()


# Faults


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("device allocation", "memory.OutOfMemoryError", "Out of memory allocating 64 bytes"),
        ("pinned allocation", "runtime.CUDARuntimeError", "cudaErrorMemoryAllocation: out of memory"),
        ("launch", "driver.CUDADriverError", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
        ("copy", "runtime.CUDARuntimeError", "cudaErrorIllegalAddress"),
        ("module load", "driver.CUDADriverError", "CUDA_ERROR_INVALID_IMAGE"),
    ],
)
def test_the_second_operation_of_a_kind_fails(cupy, kind, error, message):
    import cupyx
    import standin

    def use():
        level, out = cupy.ones((4, 4), np.float32), cupy.zeros((2, 2), np.float32)
        cupyx.empty_pinned(4)
        decimate(cupy)((2,), (32,), arguments(cupy, level, out))
        return out.get()

    module, name = error.split(".")
    standin.fail_at(kind, 2)
    first = 0 if kind == "device allocation" else 1
    for _ in range(first):
        use()
    if kind == "device allocation":
        message = message.replace("64", "16")
    with pytest.raises(getattr(getattr(cupy.cuda, module), name), match=message):
        use()
    assert (use() == 1).all()


def test_a_launch_of_a_graph_fails(cupy):
    import standin

    (stream,) = streams(cupy, 1)
    array = cupy.zeros(4)
    graph = captured(cupy, stream, lambda: array.__iadd__(1))
    standin.fail_at("launch", 1)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorLaunchOutOfResources"):
        graph.launch()
    graph.launch()
    assert (array.get() == 1).all()


# What is not there


@pytest.mark.parametrize(
    "use",
    [
        lambda cupy: cupy.zeros(4).get(order="F"),
        lambda cupy: cupy.zeros(4).copy("F"),
        lambda cupy: cupy.zeros(4).astype(int, casting="safe"),
        lambda cupy: cupy.zeros(4).sum(out=cupy.zeros(())),
        lambda cupy: cupy.zeros(4).argmin(dtype=np.int32),
        lambda cupy: cupy.array([1], ndmin=2),
        lambda cupy: cupy.copyto(cupy.zeros(4), cupy.ones(4), where=cupy.ones(4, bool)),
        lambda cupy: cupy.concatenate([cupy.zeros(4)], casting="no"),
        lambda cupy: cupy.searchsorted(cupy.zeros(4), cupy.zeros(4), sorter=cupy.arange(4)),
        lambda cupy: cupy.sqrt(cupy.zeros(4), dtype=np.float32),
        lambda cupy: cupy.from_dlpack(cupy.zeros(4), copy=True),
        lambda cupy: cupy.cuda.Stream(priority=-1),
        lambda cupy: cupy.cuda.Event(block=True),
        lambda cupy: cupy.RawModule(code="", backend="nvcc"),
        lambda cupy: cupy.RawKernel("", "f", jitify=True),
        lambda cupy: cupy.get_default_memory_pool().free_all_blocks(cupy.cuda.Stream.null),
    ],
)
def test_an_argument_that_would_be_ignored_raises(cupy, use):
    with pytest.raises(NotImplementedError, match=r"the stand-in.s .* takes no"):
        use(cupy)


def test_what_the_stand_in_lacks_raises(cupy):
    for name in ("fft", "linalg", "nosuchthing"):
        with pytest.raises(AttributeError, match="the stand-in has no"):
            getattr(cupy, name)
    with pytest.raises(NotImplementedError, match=r"the stand-in has no cupy\.ndarray\.cumprod"):
        cupy.zeros(4).cumprod()
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        np.asarray(cupy.zeros(4))
    with pytest.raises(TypeError, match="Unsupported type"):
        cupy.sqrt(np.zeros(4))


def test_arrays_of_the_host_set_no_elements(cupy):
    array, host = cupy.zeros(4, np.float32), np.ones(4, np.float32)
    for key in (..., slice(None), slice(1, 3), None):
        with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
            array[key] = host[key]
    for value in (host, host[:1]):
        with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
            array.fill(value)
    array[...] = cupy.asarray(host)
    array[1] = host[1] + 1
    array[2:] = np.array(3.0)  # without dimensions it is a scalar
    array[[3]] = np.array([4.0])  # and at indices CuPy copies it
    assert array.get().tolist() == [1, 2, 3, 4]
