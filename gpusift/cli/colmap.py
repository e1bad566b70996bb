"""`gpusift colmap`: `gpusift extract` to a COLMAP database, with a choice of cameras, and verified matches."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from gpusift.cli.job import STOPPED, Command, carry_out, from_the_first_image
from gpusift.cli.options import complete_path, given_parameters, say, sift_options
from gpusift.colmap import pairs as image_pairs
from gpusift.colmap.pairs import Pair
from gpusift.errors import escaped, reason_of
from gpusift.sinks.colmap import MAX_SIZE
from gpusift.sinks.colmap.cameras import CAMERA_MODEL, PER
from gpusift.sinks.colmap.conventions import SIFT_PARAMETERS
from gpusift.sources import Source, Sources

# Options of SIFT that COLMAP's conventions settle.
SETTLED = ("no_exif", "profile", "n_hist", "n_ori", "precise_upscale", "descriptor_layout")


@click.command(short_help="Write a COLMAP database of photographs, with verified matches.")
@click.argument("sources", nargs=-1, required=True, metavar="IMAGES...", shell_complete=complete_path)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="DATABASE",
    shell_complete=complete_path,
    help="The database to write, or to resume.",
)
@click.option("--root", metavar="FOLDER", help="Name images by their path in this folder.")
@click.option("--match", type=click.Choice(image_pairs.KINDS), help="Match these images.  [default: none]")
@click.option("--overlap", type=click.IntRange(1), default=10, show_default=True, help="For sequential.")
@click.option("--vocab-tree", metavar="FILE", help="For vocabtree: COLMAP's file of the tree.")
@click.option("--guided", is_flag=True, help="Leave matching to COLMAP, with guided matching.")
@click.option("--pairs", metavar="FILE", help="For pairs: two names of images a line.")
@click.option("--camera-model", default=CAMERA_MODEL, show_default=True, help="One of COLMAP's.")
@click.option("--camera-params", metavar="F,CX,...", help="Its parameters, in COLMAP's order.  [default: from EXIF]")
@click.option("--single-camera", is_flag=True, help="All images are of one camera.")
@click.option("--camera-per", type=click.Choice(PER), help="Give each folder, or each image, a camera.")
@click.option("--mask-path", metavar="FOLDER", help="Masks, <name>.png: no keypoints at pixels that are 0.")
@click.option("--image-list", metavar="FILE", help="Only these images of the folder IMAGES: a name a line.")
@click.option(
    "--refine",
    is_flag=True,
    help="Refine keypoints over tracks. Needs --match, and local files.",
)
@click.option(
    "--max-size",
    type=click.IntRange(1),
    default=MAX_SIZE,
    show_default=True,
    metavar="PIXELS",
    help="Shrink images whose longer side is larger.",
)
@click.option("--devices", metavar="all|0,1,...", help="GPUs to compute on, each by a process; or cpu,cpu.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--overwrite", is_flag=True, help="Replace the database, instead of resuming it.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
@sift_options
@click.pass_context
def colmap(
    context: click.Context,
    /,
    sources: tuple[str, ...],
    output: str,
    match: str | None,
    overlap: int,
    pairs: str | None,
    camera_model: str,
    camera_params: str | None,
    single_camera: bool,
    camera_per: str | None,
    mask_path: str | None,
    image_list: str | None,
    refine: bool,
    guided: bool,
    vocab_tree: str | None,
    **options: Any,
) -> None:
    """Write the features of IMAGES (folders, files, globs) to a COLMAP database, for its mapper.

    IMAGES are on this machine, where COLMAP reads them. Cameras are taken from EXIF, or guessed, as
    COLMAP does. Names are relative to the folder of all images, which is COLMAP's image_path. Defaults
    of SIFT's options are COLMAP's here, but for two, with which reconstructions have more points: COLMAP's
    own are --upsampling-grid pixels and --max-keypoints 12288.

    \b
    --match exhaustive   every image with every other;
    --match sequential   each with the next --overlap ones, in the order of names;
    --match pairs        those that the file --pairs lists;
    --match spatial      those whose positions, by GPS, COLMAP finds near each other;
    --match vocabtree    those that COLMAP finds alike with the tree --vocab-tree.

    COLMAP verifies the matches. With --refine, each keypoint is aligned with those that it matches in
    other images, to a tenth of a pixel, and the matches are verified again: reconstructions have a lower
    reprojection error. The rest is as for gpusift extract: results are safe on the disk within
    a second, the same command resumes, an image that cannot be read is reported, and exit codes are the same.
    """  # noqa: D301
    given = given_parameters(context, options)
    settings = {
        "camera_model": camera_model,
        "camera_params": _numbers(camera_params),
        "single_camera": single_camera,
        "camera_per": camera_per,
        "mask_path": None if mask_path is None else os.path.realpath(mask_path),
    }
    _require_here(sources)
    if image_list is not None:
        sources, options["root"] = _listed(sources, image_list, options["root"])
    command = Command(sources, output, given, options, "colmap", settings)
    try:
        found = from_the_first_image(command.expand(), command.described)
        images = list(found)
        names = [image.name for image in images if isinstance(image, Source)]
        wanted = _pairs(match, names, overlap, pairs)
        if refine and not match:
            raise click.UsageError("--refine needs matches: add --match exhaustive, sequential or pairs")
        if guided and (refine or not match):
            raise click.UsageError("--guided needs --match, and goes without --refine")
        if match in image_pairs.FROM_DATABASE and (match == "vocabtree") != (vocab_tree is not None):
            raise click.UsageError("--vocab-tree must be given with --match vocabtree, and only then")
        files = {image.name: image.url for image in images if isinstance(image, Source)} if refine else None
        device, quiet = given.get("device", "auto"), options["quiet"]

        def chosen() -> list[Pair]:
            from_database = match in image_pairs.FROM_DATABASE
            return image_pairs.from_database(output, str(match), vocab_tree) if from_database else wanted

        carry_out(
            command,
            Sources(iter(images), found.base, found.left_out),
            then=(lambda: _match(output, chosen, quiet, device=device, refine=files, guided=guided)) if match else None,
        )
    except KeyboardInterrupt:
        say("interrupted; the same command resumes")
        sys.exit(STOPPED + signal.SIGINT)


def _numbers(camera_params: str | None) -> list[float] | None:
    try:
        return None if camera_params is None else [float(value) for value in camera_params.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--camera-params must be numbers with commas between them: {error}") from None


def _pairs(match: str | None, names: list[str], overlap: int, pairs: str | None) -> list[Pair]:
    if (match == "pairs") != (pairs is not None):
        raise click.UsageError("--pairs must be given with --match pairs, and only then")
    try:
        return image_pairs.choose(match, names, overlap, pairs)
    except OSError as error:
        raise click.UsageError(f"cannot read {escaped(str(pairs))}: {reason_of(error)}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _require_here(sources: tuple[str, ...]) -> None:
    """End the command if an image is not on this machine, where COLMAP's mapper would read it."""
    from gpusift.sources.locations import Location

    for source in sources:
        if not Location.parse(source).is_local:
            raise click.UsageError(
                f"images must be on this machine, where COLMAP reads them, got {escaped(source)}; copy them here, or "
                f"write features only: gpusift extract {escaped(source)} -o database.db"
            )


def _listed(sources: tuple[str, ...], image_list: str, root: str | None) -> tuple[tuple[str, ...], str]:
    """Return the files in a folder that a list of names has, and the folder."""
    from gpusift.sources.limits import DEFAULT_LIMITS
    from gpusift.sources.lists import lines_of, open_local_list

    if len(sources) != 1 or not os.path.isdir(sources[0]) or root is not None:
        raise click.UsageError(
            "--image-list needs one folder as IMAGES, to which its names are relative, and no --root"
        )
    try:
        with open_local_list(image_list, DEFAULT_LIMITS) as file:
            names = [line.text.strip() for line in lines_of(file)]
    except OSError as error:
        raise click.UsageError(f"cannot read {escaped(image_list)}: {reason_of(error)}") from None
    files = tuple(os.path.join(sources[0], name) for name in names if name and not name.startswith("#"))
    if not files:
        raise click.UsageError(f"{escaped(image_list)} must have names of images, and has none")
    return files, sources[0]


def _match(output: str, chosen: Callable[[], list[Pair]], quiet: bool, **options: Any) -> str:
    """Match pairs of images, have COLMAP verify them, and say what was done."""
    from tqdm import tqdm

    from gpusift.colmap import match_database

    try:
        pairs = chosen()
        with tqdm(total=len(pairs), unit="pair", disable=quiet or not sys.stderr.isatty()) as bar:
            matched, verified = match_database(output, pairs, on_pairs=bar.update, **options)
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(
            f"cannot match: {escaped(str(error))}; the features are kept in {escaped(output)}"
        ) from None
    return f"{matched} pairs matched, {verified} verified"


def _options_of_colmap() -> None:
    """Give SIFT's options COLMAP's defaults, and leave out those that are settled."""
    colmap.params = [option for option in colmap.params if option.name not in SETTLED]
    for option in colmap.params:
        if option.name in SIFT_PARAMETERS and isinstance(option, click.Option):
            option.default = SIFT_PARAMETERS[option.name]
            option.show_default = True
            option.help = (option.help or "").split("  [default")[0]


_options_of_colmap()
