"""The command line, called within the process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from gpusift import cli


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
