"""`gpusift extract`: the features of any number of photographs to a file, folder or database."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from gpusift import __version__
from gpusift.cli.config import config_option
from gpusift.cli.options import say, sift_options
from gpusift.cli.workers import computing
from gpusift.errors import reason_of
from gpusift.images.reader import DECODERS, OPENCV
from gpusift.parameters import Parameters

if TYPE_CHECKING:
    from gpusift.sinks import Sink
    from gpusift.sources import Source, SourceFailure

DATABASE = ".db"  # of COLMAP
PARQUET = "parquet:"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 128  # plus the signal's number: exit code of a program that a signal ended, by the shells' convention


@click.command(short_help="Write the features of photographs to a file, folder or database.")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where the features go, see above.")
@click.option("--files-from", metavar="FILE", help="A list of further sources, one a line; - is stdin.")
@click.option("--pattern", metavar="GLOB", help="Of folders, only files whose names match: '*.jpg'.")
@click.option("--root", metavar="FOLDER", help="Name images by their path in this folder.")
@click.option("--max-size", type=click.IntRange(1), metavar="PIXELS", help="Make images with longer sides smaller.")
@click.option("--max-pixels", type=click.IntRange(1), help="Refuse larger images.  [default: 500 million]")
@click.option("--devices", metavar="all|0,1,...", help="GPUs to compute on, each by a process; or cpu,cpu.")
@click.option("--dask", metavar="ADDRESS|local:N", help="Compute on a Dask cluster: tcp://HOST:8786.")
@click.option("--batch-size", type=click.IntRange(1), help="Images computed at once.  [default: 16 on a GPU]")
@click.option(
    "--decoder",
    type=click.Choice(DECODERS),
    default=OPENCV,
    show_default=True,
    help="What decodes JPEG: OpenCV, or NVIDIA's nvImageCodec where SIFT is computed.",
)
@click.option("--decoders", type=click.IntRange(1), help="Threads that read images, for each device.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, instead of going on with it.")
@click.option("--log-json", metavar="FILE|-", help="Add a line of JSON for each event; - is stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
@config_option
@sift_options
@click.pass_context
def extract(context: click.Context, /, sources: tuple[str, ...], output: str, **options: Any) -> None:
    """Write the features of every image in SOURCE...: files, folders (to any depth), globs, URLs.

    URLs are those of fsspec: s3://bucket/folder, https://..., zip://*.jpg::photos.zip. SOURCE - is a
    list on stdin.

    \b
    OUT is either
      a file *.h5 or *.hdf5, in hloc's layout: a group for each image;
      a file *.db: a COLMAP database, with COLMAP's defaults for the options of SIFT;
      a file *.parquet, or parquet:FOLDER: a folder of Parquet files; or
      a folder: a file for each image, <name>.npz.

    An image's name is its path, with its suffix, relative to the folder that was given, or that the
    file or glob is in; of several SOURCEs, to the deepest folder that holds all of them.

    What is done is safe a second later. After an interruption of any kind the same command goes on
    where it was. Ctrl-C, or SIGTERM, finishes what is in hand, and the exit code is 130, or 143.

    An image that cannot be read is reported, and the rest goes on; the exit code is then 1. Failures
    are kept beside OUT, with their reasons, and are tried again with --retry-failed only. An image
    without features gives an empty entry.
    """  # noqa: D301
    if not sources and not options["files_from"]:
        raise click.UsageError("there must be a SOURCE, or --files-from")
    try:
        _extract(sources, output, _parameters(context, output, options), options)
    except KeyboardInterrupt:  # before the first image, or of a second Ctrl-C
        say("interrupted")
        sys.exit(STOPPED + signal.SIGINT)


def _extract(sources: tuple[str, ...], output: str, parameters: dict[str, Any], options: dict[str, Any]) -> NoReturn:
    from gpusift.cli.progress import Reporter, count, said
    from gpusift.stream import RunError, run

    stdin = "-" in (*sources, options["files_from"])  # which cannot be read twice, to count
    progress = not options["quiet"] and sys.stderr.isatty()
    with (
        computing(parameters, options) as (devices, workers_for),
        Reporter(
            options["log_json"], progress, len(devices), lambda: None if stdin else count(_expand(sources, options))
        ) as tell,
    ):
        device = ", ".join(devices)
        images = _from_the_first_image(_expand(sources, options), " ".join(sources) or options["files_from"])
        device_of_pixels = parameters["device"] if options["dask"] else devices[0]
        sink = _open(output, {**parameters, "device": device_of_pixels}, options)
        tell.log(
            {"event": "start", "version": __version__, "output": output, "device": device, "settings": sink.settings}
        )
        error: Exception | None = None
        with _signals() as stop:
            try:
                summary = run(images, sink, sink.failures, workers_for(sink), on_event=tell, stop=stop.event)
            except RunError as raised:
                summary, error = raised.summary, raised
            whole = error is None and stop.number is None
            if whole:
                tell.finish(summary.seen)
            error = _close(sink, error)
        text = said(summary, summary.seen if whole else tell.total, device)
        code = 1 if error or summary.failures or summary.failed_before else 0
        if stop.number is not None and not error:
            code = STOPPED + stop.number
        tell.log({**summary.as_event(), "event": "end", "exit_code": code, "error": error and str(error)})
    if error:
        raise click.ClickException(f"{_what_failed(error, output)}; stopped after {text}, kept in {output}")
    if stop.number is not None:
        say(f"interrupted after {text}, kept in {output}")
    elif not options["quiet"] and options["log_json"] != "-":
        click.echo(f"{text} -> {output}")
    sys.exit(code)


def _parameters(context: click.Context, output: str, options: dict[str, Any]) -> dict[str, Any]:
    """Take SIFT's keyword arguments out of the options, for a COLMAP database with COLMAP's defaults."""
    names = (*Parameters.__dataclass_fields__, "device", "dtype", "blur", "num_threads", "memory_limit")
    parameters = {name: options.pop(name) for name in names}
    if output.endswith(DATABASE):
        from gpusift.colmap import SIFT_PARAMETERS

        chosen = [name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
        parameters |= {name: value for name, value in SIFT_PARAMETERS.items() if name not in chosen}
        options["no_exif"] = True  # COLMAP reads images as they are stored
    return parameters


def _expand(sources: tuple[str, ...], options: dict[str, Any]) -> Iterator[Source | SourceFailure]:
    from gpusift.sources import expand

    try:
        return expand(sources, root=options["root"], pattern=options["pattern"], files_from=options["files_from"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"cannot read {error.filename}: {reason_of(error)}") from None


def _from_the_first_image(items: Iterator[Source | SourceFailure], given: str) -> Iterator[Source | SourceFailure]:
    """Return all items if there is an image among them; end the command if not."""
    from gpusift.sources import SourceFailure

    failed: list[Source | SourceFailure] = []
    for item in items:
        failed.append(item)
        if not isinstance(item, SourceFailure):
            return chain(failed, items)
        say(f"failed: {item.name}: {item.reason}")
    raise click.ClickException(f"no image found in {given}")


def _open(output: str, parameters: dict[str, Any], options: dict[str, Any]) -> Sink:
    """Open the sink, to go on with it if it is there."""
    from gpusift.sinks import open_sink
    from gpusift.stream import settings_of

    how = {name: options[name] for name in ("overwrite", "retry_failed")}
    settings = settings_of(
        parameters,
        exif_orientation=not options["no_exif"],
        max_size=options["max_size"],
        decoder=options["decoder"],
    )
    try:
        if options["dask"] and output.startswith(PARQUET) and "://" in output:  # each task writes a part
            from gpusift.sinks.parquet_url import open_parquet_folder

            return open_parquet_folder(output.removeprefix(PARQUET), settings, **how)
        return open_sink(output, settings, **how)
    except OSError as error:
        if isinstance(error, FileExistsError) and error.strerror != os.strerror(error.errno or 0):  # the sink's
            raise click.ClickException(f"{output} {error.strerror} (--overwrite)") from None
        raise click.ClickException(f"cannot write to {output}: {reason_of(error)}") from None
    except (ImportError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _close(sink: Sink, error: Exception | None) -> Exception | None:
    """Close the sink; return what was wrong before or is now."""
    try:
        sink.close()
    except Exception as failed:
        return error or failed
    return error


def _what_failed(error: Exception, output: str) -> str:
    """Say what ended a run."""
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
    """Have a signal stop the run; the next one ends the process at once, which the sink survives."""
    stop = _Stop(threading.Event())
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it

    def handle(number: int, frame: object) -> None:
        stop.number = number
        for each in heard:
            signal.signal(each, signal.SIG_DFL)
        stop.event.set()

    if threading.current_thread() is not threading.main_thread():
        heard = []
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
