"""`gpusift show`: the keypoints of a photograph, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gpusift.cli.options import (
    check_new,
    check_png,
    compute,
    given_parameters,
    make_sift,
    report,
    sift_options,
    writing,
)
from gpusift.errors import escaped, reason_of

# A small photograph is enlarged by `show` until its longer side has about this many pixels.
SHOWN_SIZE = 1500
MAX_ZOOM = 4


@click.command(short_help="Draw the keypoints of a photograph.")
@click.argument("image", type=click.Path())
@click.option("-o", "--output", required=True, metavar="PNG", help="The picture to write.")
@click.option("--zoom", type=click.IntRange(1, 16), help="Enlarge this many times.  [default: small images only]")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
@sift_options
@click.pass_context
def show(
    context: click.Context,
    /,
    image: str,
    output: str,
    zoom: int | None,
    overwrite: bool,
    no_exif: bool,
    **options: Any,
) -> None:
    """Draw the keypoints of IMAGE: a circle of their size, and a line along their orientation.

    With --affine-shape the circle is an ellipse. Each octave has its colour.
    """
    from gpusift.plot import draw_keypoints, write_png

    check_png(output)
    check_new(output, overwrite)
    sift = make_sift(given_parameters(context, options))
    try:
        pixels, features = compute(sift, Path(image), not no_exif)
    except Exception as error:
        raise click.ClickException(f"{escaped(str(image))}: {reason_of(error)}") from None
    if zoom is None:
        zoom = min(max(round(SHOWN_SIZE / max(pixels.shape)), 1), MAX_ZOOM)
    with writing(output):
        write_png(output, draw_keypoints(pixels, features, zoom=zoom))
    report(f"{len(features)} keypoints on {sift.device.name} -> {output}")
