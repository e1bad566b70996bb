"""The `gpusift` command and its subcommands: extract, match, colmap, show and info.

A subcommand's module is imported when the subcommand is called. So `gpusift --help` and the other subcommands start
without the libraries that only this one needs.
"""

from __future__ import annotations

import os
import resource
import sys
from importlib import import_module
from typing import Any

import click

from gpusift import __version__
from gpusift.errors import escaped

# In this order in `gpusift --help`; the command `name` is the function of that name in `gpusift.cli.<name>`.
COMMANDS = ("extract", "match", "colmap", "show", "info")


MIN_ADDRESS_SPACE = 1 << 30  # bytes: OpenCV, HDF5, Arrow, COLMAP and the stacks of threads


class _Commands(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"gpusift.cli.{cmd_name}"), cmd_name)
        return command

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line; a daemon's streams may be closed."""
        _open_streams()
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Call a command; the names in a message of an error may be any bytes."""
        _require_address_space()
        try:
            return super().invoke(ctx)
        except ImportError as error:
            raise click.ClickException(str(error)) from None
        except MemoryError as error:
            reason = str(error) or "out of memory"
            raise click.ClickException(
                f"memory must hold the libraries and the data, but does not ({reason})"
            ) from None
        except click.ClickException as error:
            error.message = "\n".join(map(escaped, error.message.split("\n")))  # type: ignore[misc]  # final for mypy only
            raise


def _open_streams() -> None:
    """Open the standard streams on the null device if they are closed, so that no other file gets their descriptors."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _require_address_space() -> None:
    """Raise unless the process may map what its libraries need: some of them crash where they cannot be loaded."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    with open("/proc/self/statm") as file:
        free = max(limit - int(file.read().split()[0]) * resource.getpagesize(), 0)
    if free < MIN_ADDRESS_SPACE:
        raise click.ClickException(
            f"the limit of the address space must leave {MIN_ADDRESS_SPACE >> 20} MiB for the libraries, "
            f"but leaves {free >> 20} MiB; raise it (ulimit -v)"
        )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="gpusift %(version)s")
def main() -> None:
    """Find SIFT features in photographs, on an NVIDIA GPU or the CPU."""
