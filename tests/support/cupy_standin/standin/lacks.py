"""What the stand-in lacks of CuPy raises."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def lacks(*names: str) -> Callable[[Any], Any]:
    """Lets a function refuse arguments of these names, unless they are the defaults: it would ignore them."""

    def refuse(function: Any) -> Any:
        signature = inspect.signature(function)
        defaults = {name: signature.parameters[name].default for name in names}

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            for name, default in defaults.items():
                value = given.get(name, default)
                if value is not default and (type(value) is not type(default) or value != default):
                    raise NotImplementedError(
                        f"the stand-in's {function.__qualname__} takes no {name}={value!r}, but {default!r}"
                    )
            return function(*args, **kwargs)

        return call

    return refuse
