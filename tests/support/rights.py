"""Permissions of files, for root too."""

from __future__ import annotations

import ctypes
import os

VERSION_3 = 0x20080522  # of the header, linux/capability.h
OVERRIDING = 1 << 1 | 1 << 2 | 1 << 3  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def obey_permissions() -> None:
    """Make this process obey the permissions of files, as those of other users do.

    Root keeps its user, as another one could not import modules from folders that only root can enter; it loses the
    capabilities that override permissions.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, words = Header(VERSION_3, 0), (Words * 2)()
    for call in (libc.capget, libc.capset):
        if call(ctypes.byref(header), words):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        words[0].effective &= ~OVERRIDING
