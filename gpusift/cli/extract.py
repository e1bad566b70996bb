"""`gpusift extract`: the features of any number of photographs to a file, folder or database."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from gpusift.cli.config import config_option
from gpusift.cli.job import STOPPED, Command, carry_out, from_the_first_image
from gpusift.cli.options import Shard, complete_path, given_parameters, say, sift_options
from gpusift.images.formats import UNBOUNDED
from gpusift.images.reader import DECODERS, OPENCV


@click.command(short_help="Write the features of photographs to a file, folder or database.")
@click.argument("sources", nargs=-1, metavar="SOURCE...", shell_complete=complete_path)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    shell_complete=complete_path,
    help="Where the features go, see above.",
)
@click.option("--files-from", metavar="FILE", help="A list of further sources, one a line; - is stdin.")
@click.option("--pattern", metavar="GLOB", help="In folders, only files whose names match: '*.jpg'.")
@click.option("--root", metavar="FOLDER", help="Name images by their path in this folder.")
@click.option("--shard", type=Shard(), help="Only the I-th of N parts of the images, counted from 0.")
@click.option("--limit", multiple=True, metavar="NAME=N", help="Bound on finding images, such as entries=1000000.")
@click.option("--max-size", type=click.IntRange(1), metavar="PIXELS", help="Shrink images whose longer side is larger.")
@click.option("--max-pixels", type=click.IntRange(1), help="Refuse larger images.  [default: 500 million]")
@click.option("--max-scans", type=click.IntRange(1), help="Refuse large JPEGs of more scans.  [default: 20]")
@click.option(
    "--allow-format",
    "allow_formats",
    type=click.Choice(UNBOUNDED, case_sensitive=False),
    multiple=True,
    help="Decode a format whose header does not bound the work; only for files that you trust.",
)
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
@click.option("--overwrite", is_flag=True, help="Replace OUT, instead of resuming it.")
@click.option("--log-json", metavar="FILE|-", help="Append a line of JSON for each event; - is stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
@config_option
@sift_options
@click.pass_context
def extract(context: click.Context, /, sources: tuple[str, ...], output: str, **options: Any) -> None:
    """Write the features of every image in SOURCE...: files, folders (to any depth), globs, URLs.

    URLs are those of fsspec: s3://bucket/folder, https://..., zip://*.jpg::photos.zip. An archive
    .zip or .tar, .tgz, ... counts as a folder. SOURCE - is a list on stdin.

    \b
    OUT is either
      a file *.h5 or *.hdf5, in hloc's layout: a group for each image;
      a file *.db: a COLMAP database, with COLMAP's defaults for the options of SIFT;
      *.parquet: a folder of Parquet files; or
      a folder: a file for each image, <name>.npz.
    hdf5:PATH, colmap:PATH, parquet:PATH and npz:PATH choose the format, whatever the suffix. With
    --dask, a URL is a folder of Parquet files that the cluster's tasks write.

    An image's name is its path, with its suffix, relative to the folder that was given, or that the
    file or glob is in; of several SOURCEs, to the deepest folder that holds all of them; of a list, to
    the current folder, or "/", the server or the bucket for what lies elsewhere. OUT keeps this folder:
    later runs name images by it, or are refused.

    --shard I/N divides the images by their names among N machines, each with an OUT of its own. Limits
    are list_bytes, listing_bytes, entries, depth, idle_seconds, listing_seconds and redirects.

    Results are safe on the disk within a second. After an interruption of any kind, the same command
    resumes. Ctrl-C, or SIGTERM, finishes the images that are being computed.

    An image that cannot be read is reported, and the others are computed. Failures are recorded with
    their reasons, in the folder OUT or beside the file OUT. They are tried again only with
    --retry-failed. An image without features gives an empty entry.

    Exit codes: 0, all images are done; 3, all are done but those that failed, in this run or before; 1,
    the run failed, and what was committed is kept; 2, the command line is wrong; 130 and 143, Ctrl-C and
    SIGTERM.
    """  # noqa: D301
    if not sources and not options["files_from"]:
        raise click.UsageError("there must be a SOURCE, or --files-from")
    if options["devices"] and options["dask"]:
        raise click.UsageError("--devices and --dask exclude each other: a cluster's workers have devices of their own")
    command = Command(sources, output, given_parameters(context, options), options)
    try:
        carry_out(command, from_the_first_image(command.expand(), command.described))
    except KeyboardInterrupt:  # before the first image, or of a second Ctrl-C
        say("interrupted")
        sys.exit(STOPPED + signal.SIGINT)
