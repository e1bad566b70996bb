"""Text for messages and logs: the reason of an exception, and names whose control characters are escaped."""

from __future__ import annotations

import errno

# Longest text that is quoted from an error.
MAX_QUOTED = 200


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one printable line, without the path, which the caller has."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    if isinstance(error, MemoryError):
        reason = f"must fit in memory, but does not ({reason or 'out of memory'}); try a max_size, or upsampling 1"
    elif isinstance(error, UnicodeError) and hasattr(error, "object"):
        reason = f"must be valid UTF-8, got {error.object[:MAX_QUOTED]!r}"
    return escaped(" ".join(str(reason).split())) or type(error).__name__


# System errors that do not depend on the file: no descriptors, no memory or no disk space are left.
MACHINE_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})

# An image of this many pixels fits in any supported machine. If it does not, the machine is short of memory.
SMALL_PIXELS = 1 << 24


NO_THREAD = "can't start new thread"  # Python's RuntimeError, of a limit of processes or memory


class MachineError(RuntimeError):
    """A fault of the machine, or a limit of this process: other images would fail in the same way."""


def is_of_machine(error: BaseException) -> bool:
    """Whether an error, met while an image was found, read or computed, is a fault of the machine, not of the image."""
    if isinstance(error, (ImportError, MemoryError, MachineError)):
        return True
    if isinstance(error, RuntimeError):
        return str(error) == NO_THREAD
    if not isinstance(error, OSError):
        return False
    is_of_linker = error.errno is None and "shared object" in str(error)
    return error.errno in MACHINE_ERRORS or is_of_linker


def raise_if_of_machine(error: BaseException, url: str) -> None:
    """Raise a MachineError if an error, met at a file, is a fault of the machine."""
    if is_of_machine(error):
        raise MachineError(f"{reason_of(error)}: a fault of this machine, or a limit, met at {escaped(url)}") from error


def escaped(text: str) -> str:
    r"""Return a text that is safe to print: all characters except visible ones and spaces are escaped.

    A file name may hold any byte except 0 and "/". A terminal executes control characters. A line feed splits a line of
    a log. A direction mark changes the order in which the rest is read. A byte that is not UTF-8 cannot be encoded. The
    result has none of these. Escaping it again changes nothing.

    Parameters
    ----------
    text : str
        Bytes that are not UTF-8 are in it as `os.fsdecode` gives them.

    Returns
    -------
    printable : str
        Such as ``caf\xe9`` for a byte, ``a\nb`` for a line feed, ``\u202e`` for a mark of direction.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
