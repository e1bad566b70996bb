"""What a person or a log reads: the reason of an exception, and names from strangers without what a terminal obeys."""

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


# Errors of the system that say nothing of the file they are met at: descriptors, memory or room on a disk are used up.
MACHINE_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})

# An image of so many pixels fits in the memory of any machine that gpusift is for; else the machine is short of it.
SMALL_PIXELS = 1 << 24


class MachineError(RuntimeError):
    """A fault of the machine, or of a limit of this process: other images would meet it too."""


def is_of_machine(error: BaseException) -> bool:
    """Whether an error, met while an image was found, read or computed, is a fault of the machine, not of the image."""
    if isinstance(error, (ImportError, MemoryError, MachineError)):
        return True
    if not isinstance(error, OSError):
        return False
    is_of_linker = error.errno is None and "shared object" in str(error)
    return error.errno in MACHINE_ERRORS or is_of_linker


def raise_if_of_machine(error: BaseException, url: str) -> None:
    """Raise a MachineError if an error, met at a file, is a fault of the machine."""
    if is_of_machine(error):
        raise MachineError(f"{reason_of(error)}: a fault of this machine, or a limit, met at {escaped(url)}") from error


def escaped(text: str) -> str:
    r"""Return a text as it may be printed: whatever is not a visible character or a space is written as an escape.

    Names of files are any bytes but 0 and "/". A terminal obeys control characters, a line feed makes a line of its own
    in a log, a mark of direction changes the order in which the rest is read, and a byte that is not UTF-8 cannot be
    encoded. The result has none of these. Escaping it once more changes nothing.

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
