"""Names of images: the folder that they are relative to, and which names are valid for results."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable

from gpusift.errors import escaped
from gpusift.sources.locations import Location

# Results are called by an image's name with more at its end; file systems allow 255 bytes.
MAX_PART_BYTES = 230
MAX_NAME_BYTES = 2000

Parts = tuple[str, ...]


class BaseDiffersError(ValueError):
    """Images are not in the folder that the names of earlier results are relative to.

    Attributes
    ----------
    kept, now : str
        That folder, and the one that the images are in.
    """

    def __init__(self, kept: str, now: str, advice: str) -> None:
        super().__init__(kept, now, advice)
        self.kept, self.now, self._advice = kept, now, advice

    def __str__(self) -> str:
        return (
            f"names must be relative to the same folder as those of the earlier results, {escaped(self.kept)}, "
            f"got images in {escaped(self.now)}; {self._advice}"
        )


def choose_base(root: str | None, kept: str | None, natural: Parts) -> Parts:
    """Choose the folder that names are relative to.

    Parameters
    ----------
    root : str or None
        The folder that the caller wants.
    kept : str or None
        The folder of earlier results that are resumed.
    natural : tuple of str
        The folder that holds all images.

    Returns
    -------
    base : tuple of str
        Parts of the folder's path, as `Location.parts`.

    Raises
    ------
    BaseDiffersError
        Names would be others than those of the same images in the earlier results.
    ValueError
        The images are not under `root`.
    """
    if root is not None:
        top = Location.parse(root).parts
        if kept is not None and not same_folder(top, parts_of(kept)) and not _has_moved(kept):
            raise BaseDiffersError(kept, text_of(top), f"give root (--root) {escaped(kept)}, or another output")
        return top
    if kept is None:
        return natural
    top = parts_of(kept)
    if natural[: len(top)] == top:
        return top
    if same_folder(natural, top):
        return natural
    advice = "give another output"
    if _has_moved(kept):
        advice += ", or, if that folder was moved, its new path as root (--root)"
    raise BaseDiffersError(kept, text_of(natural), advice)


def text_of(parts: Parts) -> str:
    """Return the path or URL of a folder; empty if it holds files of this machine and others."""
    if not parts:
        return ""
    scheme, path = parts[0], "/".join(parts[1:])
    return f"/{path}" if scheme == "file" else f"{scheme}://{path}"


def parts_of(text: str) -> Parts:
    """Return the parts that `text_of` was given."""
    return Location.parse(text).parts if text else ()


def same_folder(a: Parts, b: Parts) -> bool:
    """Say whether two paths are one folder's, also through links."""
    if a == b:
        return True
    if a[:1] != ("file",) or b[:1] != ("file",):
        return False
    try:
        return os.path.samefile(text_of(a), text_of(b))
    except (OSError, ValueError):
        return False


def _has_moved(kept: str) -> bool:
    """Return whether a folder of this machine no longer exists."""
    return parts_of(kept)[:1] == ("file",) and not os.path.exists(kept)


def deepest_common(bases: Iterable[Parts]) -> Parts:
    """Return the deepest folder that holds all of these."""
    common: Parts | None = None
    for base in bases:
        if common is None:
            common = base
        while common != base[: len(common)]:
            common = common[:-1]
    return common or ()


def base_of_line(location: Location, current: Parts) -> Parts:
    """Return the folder that the name of a line of a list is relative to; it does not depend on other lines.

    Parameters
    ----------
    location : Location
        What the line names.
    current : tuple of str
        The current folder.

    Returns
    -------
    base : tuple of str
        The current folder if the file is in it, and else the root of its file system: "/", a server or a bucket.
    """
    parts = location.parent().parts
    if location.is_local:
        return current if parts[: len(current)] == current else parts[:1]
    return parts[:1] if parts[0] == "file" else parts[:2]


def shard_of(name: str, n_shards: int) -> int:
    """Return the number of an image's shard, which depends on its name alone, so it is the same on every machine.

    Source: the first eight bytes of the name's BLAKE2b digest, modulo the number of shards.
    """
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % n_shards


def wrong_name(name: str) -> str | None:
    """Return why a name is not valid for results: it may lead out of their folder, or no file can have it; else None.

    Parameters
    ----------
    name : str
        As in `gpusift.sources.Source`.
    """
    parts = re.split(r"[/\\]", name)
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        return f"a name must be text that files can be called by, got {name!r}"
    if any(part in ("", ".", "..") for part in parts) or re.match("[A-Za-z]:", name):
        return f"a name must stay within a folder, without empty parts, '.', '..' or a drive, got {name!r}"
    if any(ord(character) < 32 for character in name):
        return f"a name must not hold control characters, got {name!r}"
    if max(sizes) > MAX_PART_BYTES or sum(sizes) + len(sizes) > MAX_NAME_BYTES:
        return f"a name must have at most {MAX_PART_BYTES} bytes between slashes and {MAX_NAME_BYTES} in all"
    return None
