"""What the CuPy that is on the path offers: run as a program, the names and signatures of the stand-in as JSON."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from typing import Any

MODULES = (
    "cupy",
    "cupy.cuda",
    "cupy.cuda.compiler",
    "cupy.cuda.device",
    "cupy.cuda.driver",
    "cupy.cuda.graph",
    "cupy.cuda.memory",
    "cupy.cuda.pinned_memory",
    "cupy.cuda.runtime",
    "cupy.cuda.stream",
    "cupyx",
    "cupyx.scipy.ndimage",
)


def signature(function: Any) -> list[str] | None:
    """A function's parameters with their defaults, such as "out=None"; from its docstring if it is Cython's."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return _documented(function)
    found = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found and not any(f[0] == "*" for f in found):
            found.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_plain(repr(parameter.default))}"
        found.append(f"{stars}{parameter.name}{default}")
    return [each for each in found if each != "self"]


def _documented(function: Any) -> list[str] | None:
    """The signature in the first line of a docstring, without types."""
    match = re.match(r"[\w.]*\((.*?)\)(?: -> .*)?$", (function.__doc__ or "").strip().split("\n")[0])
    if match is None:
        return None
    parts = [part.strip().replace("\\", "") for part in match[1].split(",")]
    return [_plain(re.sub(r"^[\w.]+ (?=\w)", "", part)) for part in parts if part not in ("self", "/", "")]


def _plain(text: str) -> str:
    return text.replace("<class 'float'>", "float").replace('"', "'")


def members(cls: type) -> dict[str, Any]:
    """For each public member of a class "property", or its signature."""
    of_init = signature(cls.__init__)
    found: dict[str, Any] = {"__init__": _documented(cls) if of_init == ["*args", "**kwargs"] else of_init}
    for name in dir(cls):
        if not name.startswith("_"):
            found[name] = signature(getattr(cls, name)) if callable(getattr(cls, name)) else "property"
    return found


# Those of the runtime, whose messages need no driver.
STATUS = (1, 2, 46, 101, 400, 600, 700, 701, 900, 901, 902, 903, 904, 905, 906, 907)


def error(cls: type) -> dict[str, Any]:
    """An exception's module and bases, and what it says."""
    arguments = {"CUDARuntimeError": [(status,) for status in STATUS], "OutOfMemoryError": [(4096, 512)]}
    messages = [str(cls(*each)) for each in arguments.get(cls.__name__, ())]
    return {"module": cls.__module__, "bases": [base.__name__ for base in cls.__mro__], "messages": str(messages)}


def offered() -> dict[str, Any]:
    """For each module its public names: of a class its members, of a function its signature, otherwise None."""
    found: dict[str, Any] = {}
    for module_name in MODULES:
        module = _module(module_name)
        names = [name for name in vars(module) if not name.startswith("_")]
        described = {name: _described(getattr(module, name)) for name in names if _is_cupys(getattr(module, name))}
        found[module_name] = described
    return found


def _module(name: str) -> Any:
    """A module by the attributes that lead to it; `cupy.cuda.driver` is one under another name."""
    importlib.import_module("cupyx.scipy.ndimage")
    first, *rest = name.split(".")
    module = importlib.import_module(first)
    for part in rest:
        module = getattr(module, part)
    return module


def _is_cupys(thing: Any) -> bool:
    return type(thing).__name__ == "ufunc" or getattr(thing, "__module__", "").split(".")[0] in (
        "cupy",
        "cupyx",
        "cupy_backends",
    )


def _described(thing: Any) -> Any:
    if isinstance(thing, type):
        return error(thing) if issubclass(thing, BaseException) else members(thing)
    return "ufunc" if type(thing).__name__ == "ufunc" else signature(thing)


if __name__ == "__main__":
    print(json.dumps(offered()))
