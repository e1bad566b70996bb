"""`gpusift match features.h5 pairs.txt`: the matches of many images, in hloc's files."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from click.core import ParameterSource

from gpusift.cli.options import check_new, report
from gpusift.errors import escaped, reason_of

SUFFIXES = (".h5", ".hdf5")

# Options of `gpusift match` that matching features uses, too; the others are for photographs.
USED = ("image_a", "image_b", "output", "max_ratio", "symmetric_ratio", "overwrite", "device")


def is_features_file(path: str) -> bool:
    """Whether a path is that of a file of features."""
    return path.lower().endswith(SUFFIXES)


def match_file(context: click.Context, path: str, pairs: str, output: str, overwrite: bool, **matching: Any) -> None:
    """Match the images of a file of features, as a list of pairs says, and report it.

    Parameters
    ----------
    context : click.Context
        Of the command, whose options must all be for this.
    path, pairs, output : str
        The file of features, the list of pairs, and the file of matches.
    overwrite : bool
        Whether the file of matches may exist.
    **matching
        As for `gpusift.hdf5.match_file`.
    """
    from tqdm import tqdm

    from gpusift import hdf5
    from gpusift.colmap import pairs as image_pairs

    for option in context.command.params:
        if option.name not in USED and context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option.opts[0]} is for photographs, not for a file of features")
    if not is_features_file(output):
        raise click.UsageError(f"the file of matches must be .h5 or .hdf5, got {escaped(output)}")
    if os.path.realpath(output) in map(os.path.realpath, (path, pairs)):
        raise click.UsageError(f"the file of matches must be another than those that are read, got {escaped(output)}")
    check_new(output, overwrite)
    try:
        listed = image_pairs.read(pairs, hdf5.names_in(path))
        with tqdm(total=len(listed), unit="pair", disable=not sys.stderr.isatty()) as bar:
            matched, matches = hdf5.match_file(path, listed, output, on_pairs=bar.update, **matching)
    except OSError as error:
        raise click.ClickException(f"{escaped(str(error.filename or path))}: {reason_of(error)}") from None
    except (ImportError, KeyError, MemoryError, RuntimeError, ValueError) as error:
        raise click.ClickException(reason_of(error)) from None
    report(f"{matched} pairs, {matches} matches -> {output}")
