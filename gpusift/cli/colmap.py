"""`gpusift colmap`: photographs to a COLMAP database, with verified matches if asked for."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpusift.cli.options import INTERRUPTED, compute, make_sift, say, sift_options
from gpusift.colmap import SIFT_PARAMETERS, Database, folder_of
from gpusift.colmap import pairs as image_pairs
from gpusift.errors import reason_of

if TYPE_CHECKING:
    from gpusift.colmap.pairs import Pair
    from gpusift.sift import SIFT

# Options of SIFT that COLMAP's conventions settle.
SETTLED = ("no_exif", "n_hist", "n_ori", "precise_upscale", "descriptor_layout")


@click.command(short_help="Write a COLMAP database of photographs.")
@click.argument("paths", nargs=-1, required=True, metavar="IMAGES...")
@click.option("-o", "--output", required=True, metavar="DATABASE", help="The database to write.")
@click.option("--root", metavar="FOLDER", help="Name images by their path in this folder.")
@click.option("--match", type=click.Choice(image_pairs.KINDS), help="Match these images.  [default: none]")
@click.option("--overlap", type=click.IntRange(1), default=10, show_default=True, help="For sequential.")
@click.option("--pairs", metavar="FILE", help="For pairs: two names of images a line.")
@click.option("--camera-model", default="SIMPLE_RADIAL", show_default=True, help="One of COLMAP's.")
@click.option("--camera-params", metavar="F,CX,...", help="Its parameters, as COLMAP has them.  [default: from EXIF]")
@click.option("--single-camera", is_flag=True, help="All images are of one camera.")
@click.option("--overwrite", is_flag=True, help="Replace the database if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
@sift_options
def colmap(
    paths: tuple[str, ...],
    output: str,
    root: str | None,
    match: str | None,
    overlap: int,
    pairs: str | None,
    camera_model: str,
    camera_params: str | None,
    single_camera: bool,
    overwrite: bool,
    quiet: bool,
    **parameters: Any,
) -> None:
    r"""Write the features of IMAGES (a folder, files, globs) to a COLMAP database, for its mapper.

    Cameras are guessed from EXIF, as COLMAP does. Names are relative to the folder of all images, which
    is COLMAP's image_path. Defaults of SIFT's options are COLMAP's here: of too many keypoints the
    largest are kept.

    \b
    --match exhaustive   every image with every other;
    --match sequential   each with the next --overlap ones, in the order of names;
    --match pairs        those that the file --pairs lists.

    COLMAP verifies the matches. A file that cannot be read is reported, and the rest goes on; the exit
    code is then 1. The database grows under the name *.partial.db and is renamed when it is complete.
    """
    from gpusift.images import find_images

    try:
        found = find_images(paths, root)
        wanted = image_pairs.choose(match, list(found.images), overlap, pairs)
        camera = [float(value) for value in camera_params.split(",")] if camera_params else None
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    sift = make_sift({**SIFT_PARAMETERS, **parameters})
    for path, reason in found.failures:
        say(f"failed: {path}: {reason}")
    if not found.images:
        raise click.ClickException(f"no image found in {' '.join(paths)}")
    progress = not quiet and sys.stderr.isatty()
    try:
        _quieten()
        database = Database(
            output,
            folder_of(found.images),
            list(found.images),
            camera_model=camera_model,
            camera_params=camera,
            single_camera=single_camera,
            overwrite=overwrite,
        )
    except OSError as error:
        if isinstance(error, FileExistsError) and not error.strerror:  # not the system's: the database is there
            raise click.ClickException(f"{error} (--overwrite)") from None
        raise click.ClickException(f"cannot write {output}: {reason_of(error)}") from None
    except (ImportError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        say("interrupted while COLMAP read the images: no file")
        sys.exit(INTERRUPTED)
    run = Run(sift, database, len(found.images), failures=len(found.failures))

    try:
        run.extract(found.images, progress)
        if match:
            run.match(wanted, progress)
        database.finish()
    except KeyboardInterrupt:
        say(f"interrupted after {run.summary()}, {run.kept()}")
        sys.exit(INTERRUPTED)
    except (OSError, RuntimeError) as error:  # of writing: those of reading are the image's failures
        raise click.ClickException(
            f"cannot write to {output}: {reason_of(error)}; stopped after {run.summary()}, {run.kept()}"
        ) from None
    if not quiet:
        click.echo(f"{run.summary()} -> {output if run.images else 'no file'}")
    if run.failures:
        sys.exit(1)


def _options_of_colmap() -> None:
    """Give SIFT's options COLMAP's defaults, and leave out those that are settled."""
    colmap.params = [option for option in colmap.params if option.name not in SETTLED]
    for option in colmap.params:
        if option.name in SIFT_PARAMETERS and isinstance(option, click.Option):
            option.default = SIFT_PARAMETERS[option.name]
            option.show_default = True
            option.help = (option.help or "").split("  [default")[0]


_options_of_colmap()


def _quieten() -> None:
    """Have COLMAP print no messages: what is wrong with an image is ours to say."""
    from gpusift.colmap.cameras import import_pycolmap

    pycolmap = import_pycolmap()
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)


@dataclass
class Run:
    """One run: what it works with, and its counts so far."""

    sift: SIFT
    database: Database
    total: int
    images: int = 0
    keypoints: int = 0
    pairs: int | None = None
    verified: int = 0
    failures: int = 0
    start: float = field(default_factory=time.perf_counter)

    def extract(self, images: dict[str, Path], progress: bool) -> None:
        """Read, compute and write each image (name -> file); count, and report, failures."""
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its thread would print while `decoder_messages` listens
        for name, path in tqdm(images.items(), unit="image", disable=not progress):
            try:
                image, features = compute(self.sift, path, exif_orientation=False)
            except Exception as error:  # whatever is wrong with one image, the others go on
                self.fail(path, error)
                continue
            try:
                self.database.add(name, features, image.shape)
            except ValueError as error:  # COLMAP does not read it
                self.fail(path, error)
                continue
            self.images += 1
            self.keypoints += len(features)

    def match(self, pairs: list[Pair], progress: bool) -> None:
        """Match pairs of images, and have COLMAP verify them."""
        from tqdm import tqdm

        with tqdm(total=len(pairs), unit="pair", disable=not progress) as bar:
            self.pairs, self.verified = self.database.match(pairs, device=self.sift.device.name, on_pairs=bar.update)

    def fail(self, path: Path, error: Exception) -> None:
        """Count and report a file that is not in the database."""
        self.failures += 1
        say(f"failed: {path}: {reason_of(error)}")

    def summary(self) -> str:
        """Say what was done so far, in one line."""
        seconds = time.perf_counter() - self.start
        pairs = "" if self.pairs is None else f"{self.pairs} pairs matched, {self.verified} verified, "
        return (
            f"{self.images} of {self.total} images, {self.keypoints} keypoints, {pairs}{seconds:.1f} s on "
            f"{self.sift.device.name}, {self.failures} failed"
        )

    def kept(self) -> str:
        """Say where an interrupted run's results are."""
        partial = self.database.unfinished()
        return f"kept in {partial}" if partial else "no file"
