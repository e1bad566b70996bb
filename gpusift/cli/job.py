"""A run of `gpusift extract` or `gpusift colmap`: events, signals and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gpusift.cli.options import report, say
from gpusift.errors import MachineError, escaped, reason_of

if TYPE_CHECKING:
    from gpusift.sources import Source, SourceFailure, Sources
    from gpusift.stream import Summary

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IMAGES_FAILED = 3  # exit code of a run that is complete, but for images that failed; click's own are 1 and 2
STOPPED = 128  # plus the signal's number: exit code of a program that a signal ended, by the shells' convention

SHOWN_SUFFIXES = 4  # of files that were left out

READING_OPTIONS = ("max_pixels", "max_scans", "allow_formats", "max_size", "decoder", "batch_size")


@dataclass(frozen=True)
class Command:
    """The arguments and options of a command.

    Attributes
    ----------
    sources : tuple of str
        Files, folders, globs, URLs.
    output : str
        Where the features go.
    given : dict
        Parameters of SIFT that the user gave, alone or by a profile; all others follow from the output's format.
    options : dict
        The other options of `gpusift extract`; those that a command does not have are missing.
    format_name : str, optional
        The output's format; by default it follows from the output's suffix.
    format_settings : dict, optional
        Settings of the output's format.
    """

    sources: tuple[str, ...]
    output: str
    given: dict[str, Any]
    options: dict[str, Any]
    format_name: str = ""
    format_settings: dict[str, Any] | None = None

    @property
    def described(self) -> str:
        """The sources, for messages."""
        return " ".join(self.sources) or str(self.options.get("files_from"))

    @property
    def target(self) -> str:
        """The output, with its format."""
        return f"{self.format_name}:{self.output}" if self.format_name else self.output

    @cached_property
    def kept_base(self) -> str | None:
        """The folder that names in the output are relative to, if it is to be resumed; an error ends the command."""
        from gpusift.sinks import recorded_base

        try:
            by_tasks = bool(self.options.get("dask"))
            return None if self.options["overwrite"] else recorded_base(self.target, by_tasks=by_tasks)
        except (ImportError, OSError, ValueError) as error:
            raise click.ClickException(_why_not_begun(error, escaped(self.output))) from None

    def expand(self) -> Sources:
        """Return the images; an error ends the command."""
        from gpusift.sources import Limits, expand

        options: dict[str, Any] = {name: self.options.get(name) for name in ("root", "pattern", "files_from", "shard")}
        try:
            limits = Limits.parse(self.options.get("limit") or ())
            return expand(self.sources, kept_base=self.kept_base, limits=limits, **options)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            raise click.UsageError(
                f"cannot read {escaped(str(error.filename or os.curdir))}: {reason_of(error)}"
            ) from None

    def count(self) -> int | None:
        """Count the images; None if that is not possible without reading stdin twice."""
        from gpusift.cli.progress import count

        return None if "-" in (*self.sources, self.options.get("files_from")) else count(self.expand())

    def extract(self, images: Iterator[Source | SourceFailure], **options: Any) -> Summary:
        """Compute here, on several devices, or on a cluster."""
        chosen = {name: self.options[name] for name in READING_OPTIONS if self.options.get(name) is not None}
        chosen |= {name: self.options[name] for name in ("overwrite", "retry_failed") if name in self.options}
        chosen |= {"n_decoders": self.options.get("decoders"), "format_settings": self.format_settings, **options}
        if self.options.get("no_exif"):
            chosen["exif_orientation"] = False
        if dask := self.options.get("dask"):
            from gpusift.distributed import connect, require_device
            from gpusift.distributed import extract as extract_on_cluster

            require_device(self.given, self.options["decoder"])  # before a cluster is waited for
            with connect(dask, device=self.given.get("device", "auto")) as client:
                return extract_on_cluster(images, client, self.target, self.given, **chosen)
        from gpusift.stream import extract

        return extract(
            images, self.target, self.given, devices=self.options.get("devices"), capture_stderr=True, **chosen
        )


def carry_out(command: Command, images: Sources, then: Callable[[], str] | None = None) -> NoReturn:
    """Run a command to its end.

    Parameters
    ----------
    command : Command
        The arguments and options.
    images : iterator of Source or SourceFailure
        The images.
    then : callable, optional
        Called when all images are done; returns a text that reports what it did.
    """
    from gpusift.cli.progress import Reporter
    from gpusift.stream import RunError

    quiet, log = command.options["quiet"], command.options.get("log_json")
    error: RunError | None = None
    with Reporter(log, not quiet and sys.stderr.isatty(), command.count) as tell, _signals() as stop:
        try:
            summary = command.extract(images, on_event=tell, stop=stop.event)
        except RunError as raised:
            summary, error = raised.summary, raised
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as raised:
            raise click.ClickException(_why_not_begun(raised, escaped(command.output))) from None
        is_whole = error is None and stop.number is None
        if is_whole:
            tell.finish(summary.seen)
        text = tell.summarize(summary, summary.seen if is_whole else tell.total)
        if images.left_out:
            text = f"{text}, {_left_out(images.left_out)}"
        if is_whole and then is not None:
            text = f"{text}, {then()}"
        code = _exit_code(summary, error, stop)
        end = {"event": "end", "exit_code": code, "error": error and str(error), "left_out": images.left_out}
        tell.log({**summary.as_event(), **end})
    output = escaped(command.output)
    if error:
        raise click.ClickException(f"{_what_failed(error, output)}; stopped after {text}, kept in {output}")
    if stop.number is not None:
        say(f"interrupted after {text}, kept in {output}")
    elif not quiet and log != "-":
        report(f"{text} -> {output}")
    sys.exit(code)


def from_the_first_image(items: Sources, described: str) -> Sources:
    """Return all items if there is an image among them; end the command if not."""
    from gpusift.sources import SourceFailure, Sources

    failed: list[Source | SourceFailure] = []
    try:
        for item in items:
            failed.append(item)
            if not isinstance(item, SourceFailure):
                return Sources(chain(failed, items), items.base, items.left_out)
            say(f"failed: {item.name}: {item.reason}")
    except MachineError as error:
        raise click.ClickException(f"cannot list the images: {reason_of(error)}") from None
    raise click.ClickException(f"no image found in {escaped(described)}")


def _left_out(suffixes: Counter[str]) -> str:
    """Describe the files that were skipped for their suffix, the most frequent suffixes first."""
    first = ", ".join(f"{suffix or 'no suffix'} {count}" for suffix, count in suffixes.most_common(SHOWN_SUFFIXES))
    more = ", ..." if len(suffixes) > SHOWN_SUFFIXES else ""
    n = sum(suffixes.values())
    return f"{n} other file{'s' if n > 1 else ''} left out ({first}{more})"


def _exit_code(summary: Summary, error: Exception | None, stop: _Stop) -> int:
    if stop.number is not None and not error:
        return STOPPED + stop.number
    if error:
        return 1
    return IMAGES_FAILED if summary.failures or summary.failed_before else 0


def _why_not_begun(error: Exception, output: str) -> str:
    """Return the reason why a run could not start."""
    from gpusift.sinks import OutputExistsError

    if isinstance(error, OutputExistsError):
        file = escaped(str(error.filename))
        is_output = os.path.basename(file) == os.path.basename(output.rstrip("/"))
        return f"{output if is_output else file} {error.strerror}, or --overwrite"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot write to {output}: {reason_of(error)}"
    return str(error)


def _what_failed(error: Exception, output: str) -> str:
    """Return the reason why a run ended early."""
    stage, cause = getattr(error, "stage", "write"), error.__cause__ or error
    if isinstance(cause, click.ClickException):
        return cause.message
    what = {"sources": "cannot list the images", "compute": "cannot compute", "write": f"cannot write to {output}"}
    return f"{what[stage]}: {reason_of(cause)}"


@dataclass
class _Stop:
    """Whether the run is to stop, and because of which signal."""

    event: threading.Event
    number: int | None = None


@contextmanager
def _signals() -> Iterator[_Stop]:
    """Stop the run at the first signal. The second one ends the process at once; committed results stay valid."""
    stop = _Stop(threading.Event())
    caught = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it

    def handle(number: int, frame: object) -> None:
        stop.number = number
        for each in caught:
            signal.signal(each, signal.SIG_DFL)
        stop.event.set()

    if threading.current_thread() is not threading.main_thread():
        caught = []
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
