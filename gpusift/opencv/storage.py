"""Parameters in files of OpenCV: YAML, XML or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2


def write(file: Any, name: str | None, values: Mapping[str, Any]) -> None:
    """Write values by name.

    Parameters
    ----------
    file : str or cv2.FileStorage
        A file, or storage that is open for writing.
    name : str or None
        Name of the node in the storage.
    values : mapping of str to str, int or float
        What to write.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    if not isinstance(file, cv2.FileStorage):
        storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
        if not storage.isOpened():
            raise OSError(f"the parameters must go to a file that can be written, with a suffix of OpenCV, got {file}")
        _write_each(storage, values)
        storage.release()
        return
    if name:
        file.startWriteStruct(name, cv2.FILE_NODE_MAP)
    _write_each(file, values)
    if name:
        file.endWriteStruct()


def _write_each(storage: cv2.FileStorage, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        storage.write(key, value)


def read(file: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Read values by name.

    Parameters
    ----------
    file : str or cv2.FileNode
        A file, or the node of storage.
    values : mapping of str to str, int or float
        What counts where the file has no value; the types are read.

    Returns
    -------
    dict
        The values, of the same names and types.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It has the parameters of another algorithm.
    """
    if isinstance(file, cv2.FileNode):
        return _read_each(file, values)
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_READ)
    if not storage.isOpened():
        raise OSError(f"the parameters must come from a file that OpenCV reads, got {file}")
    try:
        return _read_each(storage.root(), values)
    finally:
        storage.release()


def _read_each(node: cv2.FileNode, values: Mapping[str, Any]) -> dict[str, Any]:
    read = {key: _value(node.getNode(key), value) for key, value in values.items()}
    if read["name"] != values["name"]:
        raise ValueError(f"the parameters must be those of {values['name']}, got those of {read['name']}")
    return read


def _value(node: cv2.FileNode, default: Any) -> Any:
    if node.empty():
        return default
    return node.string() if isinstance(default, str) else type(default)(node.real())
