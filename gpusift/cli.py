"""The `gpusift` command: extract features from photographs, show, match and hand them on, say what it runs on."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpusift import __version__
from gpusift.cli_colmap import colmap
from gpusift.cli_match import match
from gpusift.cli_options import (
    INTERRUPTED,
    check_new,
    check_png,
    compute,
    make_sift,
    reason_of,
    say,
    sift_options,
    writing,
)

if TYPE_CHECKING:
    from gpusift.hdf5 import Hdf5File
    from gpusift.npz import NpzFolder
    from gpusift.sift import SIFT

# A small photograph is enlarged by `show` until its longer side has about this many pixels.
SHOWN_SIZE = 1500
MAX_ZOOM = 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="gpusift %(version)s")
def main() -> None:
    """Find SIFT features in photographs, on an NVIDIA GPU or the CPU."""


main.add_command(match)
main.add_command(colmap)


@main.command(short_help="Write the features of photographs to a file or folder.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", required=True, metavar="OUT", help="A .h5 file, or a folder for .npz files.")
@click.option("--root", metavar="FOLDER", help="Name images by their path in this folder.")
@click.option("--overwrite", is_flag=True, help="Replace results that are there.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
@sift_options
def extract(
    paths: tuple[str, ...],
    output: str,
    root: str | None,
    overwrite: bool,
    quiet: bool,
    no_exif: bool,
    **parameters: Any,
) -> None:
    r"""Write the features of every image in PATH...: files, folders (to any depth), globs.

    \b
    OUT is either
      a file *.h5 or *.hdf5, in hloc's layout: a group for each image; or
      a folder: a file for each image, <name>.npz.

    An image's name is its path, with its suffix, relative to the folder that was given, or that the
    file or glob is in; of several PATHs, to the deepest folder that holds all of them.

    A file that cannot be read is reported, and the rest goes on; the exit code is then 1. An image
    without features gives an empty entry. Ctrl-C keeps what is done: a .h5 file grows under the
    name *.partial.h5 and is renamed when it is complete.
    """
    from gpusift.images import find_images

    try:
        found = find_images(paths, root)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sift = make_sift(parameters)
    for path, reason in found.failures:
        say(f"failed: {path}: {reason}")
    if not found.images:
        raise click.ClickException(f"no image found in {' '.join(paths)}")
    files = _open_output(output, list(found.images), overwrite, sift.parameters.normalization)
    run = Run(sift, files, not no_exif, failures=len(found.failures))

    try:
        run.extract(found.images, progress=not quiet and sys.stderr.isatty())
    except KeyboardInterrupt:
        say(f"interrupted after {run.summary(len(found.images))}, kept in {run.unfinished()}")
        sys.exit(INTERRUPTED)
    except (OSError, RuntimeError) as error:  # of writing: those of reading are the image's failures
        raise click.ClickException(
            f"cannot write to {output}: {reason_of(error)}; stopped after "
            f"{run.summary(len(found.images))}, kept in {run.unfinished()}"
        ) from None
    if not quiet:
        click.echo(f"{run.summary(len(found.images))} -> {output if run.images else 'no file'}")
    if run.failures:
        sys.exit(1)


@dataclass
class Run:
    """One extraction: what it works with, and its counts so far."""

    sift: SIFT
    output: Hdf5File | NpzFolder
    exif_orientation: bool
    images: int = 0
    keypoints: int = 0
    failures: int = 0
    start: float = field(default_factory=time.perf_counter)

    def extract(self, images: dict[str, Path], progress: bool) -> None:
        """Read, compute and write each image (name -> file); count, and report, failures."""
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its thread would print while `decoder_messages` listens
        for name, path in tqdm(images.items(), unit="image", disable=not progress):
            try:
                image, features = compute(self.sift, path, self.exif_orientation)
            except Exception as error:  # whatever is wrong with one image, the others go on
                self.fail(str(path), reason_of(error))
                continue
            try:
                self.output.write(name, features, image.shape)
            except ValueError as error:  # a name that the file format cannot hold
                self.fail(str(path), reason_of(error))
                continue
            self.images += 1
            self.keypoints += len(features)
        self.output.finish()

    def fail(self, path: str, reason: str) -> None:
        """Count and report a file that gave no features."""
        self.failures += 1
        say(f"failed: {path}: {reason}")

    def summary(self, total: int) -> str:
        """Say what was done so far, in one line."""
        seconds = time.perf_counter() - self.start
        return (
            f"{self.images} of {total} images, {self.keypoints} keypoints, {seconds:.1f} s on "
            f"{self.sift.device.name}, {self.failures} failed"
        )

    def unfinished(self) -> str:
        """Return where an interrupted run's results are."""
        return str(self.output.unfinished()) if self.images else "no file"


def _open_output(output: str, names: list[str], overwrite: bool, normalization: str) -> Hdf5File | NpzFolder:
    from gpusift.hdf5 import SUFFIXES, Hdf5File
    from gpusift.npz import NpzFolder

    try:
        if output.endswith(SUFFIXES):
            return Hdf5File(output, overwrite=overwrite, normalization=normalization)
        return NpzFolder(output, names, overwrite=overwrite)
    except FileExistsError as error:
        raise click.ClickException(f"{error.strerror or error} (--overwrite)") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {reason_of(error)}") from None


@main.command(short_help="Draw the keypoints of a photograph.")
@click.argument("image", type=click.Path())
@click.option("-o", "--output", required=True, metavar="PNG", help="The picture to write.")
@click.option("--zoom", type=click.IntRange(1, 16), help="Enlarge.  [default: small images only]")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it is there.")
@sift_options
def show(image: str, output: str, zoom: int | None, overwrite: bool, no_exif: bool, **parameters: Any) -> None:
    """Draw the keypoints of IMAGE: circles of their size, a line along their orientation.

    Colours tell octaves apart.
    """
    from gpusift.plot import draw_keypoints, write_png

    check_png(output)
    check_new(output, overwrite)
    sift = make_sift(parameters)
    try:
        pixels, features = compute(sift, Path(image), not no_exif)
    except Exception as error:
        raise click.ClickException(f"{image}: {reason_of(error)}") from None
    if zoom is None:
        zoom = min(max(round(SHOWN_SIZE / max(pixels.shape)), 1), MAX_ZOOM)
    with writing(output):
        write_png(output, draw_keypoints(pixels, features, zoom=zoom))
    click.echo(f"{len(features)} keypoints on {sift.device.name} -> {output}")


@main.command(short_help="Say what gpusift runs on.")
def info() -> None:
    """Say what gpusift runs on: GPUs, CUDA and CuPy, and the CPU's instruction set."""
    import platform
    from importlib.metadata import version

    from gpusift.device import cpu_info, cuda_info

    python = f"Python {platform.python_version()}, NumPy {version('numpy')}"
    click.echo(f"gpusift {__version__}, {python}")
    cpu, cuda = cpu_info(), cuda_info()
    builds = ", ".join(cpu["available"])
    click.echo(f"CPU: {cpu['instruction_set']} (of {builds}), {cpu['threads']} threads")
    if "error" in cuda:
        click.echo(f"CUDA: none; {cuda['error']}")
        return
    versions = f"driver {cuda['cuda_driver']}, runtime {cuda['cuda_runtime']}, CuPy {cuda['cupy']}"
    click.echo(f"CUDA: {versions}")
    for gpu in cuda["devices"]:
        free, total = gpu["memory_free"] / 2**30, gpu["memory_total"] / 2**30
        click.echo(
            f"cuda:{gpu['index']}: {gpu['name']}, compute capability {gpu['compute_capability']}, "
            f"{free:.1f} of {total:.1f} GiB free"
        )
