"""A machine with GPUs whose work runs late, on the host, and whose every access to memory is checked for order.

`machine()` is the machine of this process. The packages `cupy` and `cupyx` beside this one are its faces.
"""

from standin.faults import fail_at
from standin.machine import Machine, machine, reset
from standin.violations import (
    CaptureError,
    DeviceError,
    RaceError,
    UseAfterFreeError,
    Violation,
    take_violations,
)

__all__ = [
    "CaptureError",
    "DeviceError",
    "Machine",
    "RaceError",
    "UseAfterFreeError",
    "Violation",
    "fail_at",
    "machine",
    "reset",
    "take_violations",
]
