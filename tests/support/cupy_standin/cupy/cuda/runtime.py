"""CUDA's runtime."""

from standin.errors import CUDARuntimeError as CUDARuntimeError
from standin.machine import machine
from standin.pools import device_pool

streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = range(3)


def getDeviceCount():
    """How many devices there are."""
    return machine().n_devices


def getDevice():
    """The current device."""
    return machine().device


def setDevice(device):
    """Makes a device current."""
    machine().set_device(device)


def getDeviceProperties(device):
    """What a device is like; makes no context."""
    if not 0 <= device < machine().n_devices:
        raise CUDARuntimeError(101)
    return {"name": b"stand-in", "major": 9, "minor": 0, "totalGlobalMem": machine().memory, "multiProcessorCount": 2}


def memGetInfo():
    """Free and total bytes of the current device."""
    machine().make_context()
    return machine().memory - device_pool().total_bytes(machine().device), machine().memory


def driverGetVersion():
    """CUDA's version that the driver knows."""
    return 13000


def runtimeGetVersion():
    """CUDA's version."""
    return 13000


def deviceSynchronize():
    """Waits for the current device."""
    machine().make_context()
    machine().wait_for_device(machine().device)
