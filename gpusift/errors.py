"""What an exception says to a person."""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one line, without the path, which the caller has."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    if isinstance(error, MemoryError):
        reason = f"must fit in memory, but does not ({reason or 'out of memory'}); try a max_size, or upsampling 1"
    return " ".join(str(reason).split()) or type(error).__name__
