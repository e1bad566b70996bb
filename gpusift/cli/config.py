"""`--config FILE.toml`: a file with a command's options."""

from __future__ import annotations

import sys
from typing import Any

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def config_option(command: Any) -> Any:
    """Add the option --config; the command line has precedence over the file, and the file over the defaults."""
    return click.option(
        "--config",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="A TOML file with these options, such as max-size = 1600.",
    )(command)


def _read(context: click.Context, option: click.Parameter, path: str | None) -> None:
    """Make a file's values the command's defaults."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise click.UsageError(f"{path} must be a TOML file: {error}") from None
    by_key = {_key(other): other for other in context.command.params if other is not option}
    defaults = {}
    for key, value in values.items():
        other = by_key.get(key.replace("_", "-"))
        if other is None or other.name is None:
            raise click.UsageError(
                f"{path} must hold options of this command, got {key!r}; options: {', '.join(by_key)}"
            )
        defaults[other.name] = _value(path, key, value, several=other.nargs == -1)
    context.default_map = {**(context.default_map or {}), **defaults}


def _key(parameter: click.Parameter) -> str:
    """Return an option's long name, without its dashes."""
    return max(parameter.opts, key=len).lstrip("-").replace("_", "-")


def _value(path: str, key: str, value: Any, several: bool) -> Any:
    """Return a value as text, so that click checks it as it checks the command line."""
    if several and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    if not isinstance(value, (str, int, float)):
        wanted = "a list of strings" if several else "a string, a number, true or false"
        raise click.UsageError(f"{path}: {key} must be {wanted}, got {value!r}")
    return [str(value)] if several else str(value)
