"""What the commands share: the options of SIFT, an image's features, and saying what is wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpusift.errors import escaped, reason_of
from gpusift.parameters import LAYOUTS, NORMALIZATIONS, RULES, Parameters

if TYPE_CHECKING:
    import numpy as np

    from gpusift.features import Features
    from gpusift.sift import SIFT

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended, by the shells' convention

PARAMETER_HELP = {
    "upsampling": "Enlarge the image this many times first: 1, 2 or 4.",
    "n_octaves": "Most octaves; small images have fewer.",
    "n_scales": "Scales in each octave.",
    "sigma_min": "Blur of the first scale, in input pixels.",
    "sigma_in": "Blur assumed to be in the image, in input pixels.",
    "c_dog": "Least contrast of a keypoint (difference of Gaussians).",
    "c_edge": "Largest ratio of curvatures of a keypoint, against edges.",
    "n_bins": "Bins of the orientation histogram.",
    "lambda_ori": "Window of the orientation histogram, in sigmas.",
    "c_max": "Share of the highest peak that makes a further orientation.",
    "lambda_descr": "Window of the descriptor, in sigmas.",
    "n_hist": "Histograms along each side of the descriptor.",
    "n_ori": "Bins in each histogram of the descriptor.",
    "max_keypoints": "At most so many features.  [default: all]",
    "keep": "Which these are: largest response, largest scale, or evenly over the image.",
    "upright": "Assign no orientations.",
    "normalization": "root makes RootSIFT descriptors.",
    "precise_upscale": "Take the bias of upsampling, 0.25 pixels, off the positions.",
    "descriptor_layout": "Whose order of values, and angles: ubc is that of OpenCV and COLMAP.",
}
CHOICES = {"keep": RULES, "normalization": NORMALIZATIONS, "descriptor_layout": LAYOUTS}
TYPES: dict[Any, type] = {"int": int, "int | None": int, "float": float, "bool": bool}


class MemoryLimit(click.ParamType):
    """Bytes, with a unit or without, or a share of the device's memory."""

    name = "BYTES|SHARE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | float:
        """Return bytes as an integer, a share as a float."""
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]i?B|B)?", value.strip())
        if found is None:
            self.fail(
                f"must be bytes such as 2000000000, 2GB or 500MiB, or a share such as 0.5; got {value!r}", param, ctx
            )
        number, unit = float(found[1]), found[2]
        if unit is None:
            return number if "." in found[1] else int(found[1])
        step = 1024 if "i" in unit else 1000
        return int(number * step ** "BkMGT".index(unit[0]))


def sift_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every parameter of SIFT, with SIFT's default."""
    options = [
        click.option(
            "--device",
            default="auto",
            metavar="auto|cuda|cuda:N|cpu",
            show_default=True,
            help="Where to compute; auto takes a GPU if there is one.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "float64"]),
            default="float32",
            show_default=True,
            help="Precision to compute in.",
        ),
        click.option(
            "--blur",
            type=click.Choice(["auto", "kernel", "ndimage"]),
            default="auto",
            show_default=True,
            help="What blurs: gpusift's kernel, or SciPy's and CuPy's ndimage.",
        ),
        click.option("--num-threads", type=int, help="CPU threads to compute with.  [default: all]"),
        click.option(
            "--memory-limit",
            type=MemoryLimit(),
            help="Most memory for an image's scale space: bytes, 2GB, 500MiB, or a share such as 0.5.  [default: none]",
        ),
        click.option("--no-exif", is_flag=True, help="Leave the image as stored, whatever EXIF says of up."),
    ]
    for parameter in fields(Parameters):
        name, default = parameter.name, parameter.default
        kind: dict[str, Any] = {"type": click.Choice(CHOICES[name]) if name in CHOICES else TYPES[parameter.type]}
        if parameter.type == "bool":
            kind = {"is_flag": True}
        flag = "--" + name.replace("_", "-")
        shown = default not in (None, False)
        options.append(click.option(flag, default=default, show_default=shown, help=PARAMETER_HELP[name], **kind))
    for option in reversed(options):
        command = option(command)
    return command


def make_sift(parameters: dict[str, Any]) -> SIFT:
    """Make a SIFT from what its options gave; an error ends the command."""
    from gpusift.sift import SIFT

    try:
        return SIFT(**parameters)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise click.ClickException(str(error)) from None


def compute(sift: SIFT, path: Path, exif_orientation: bool) -> tuple[np.ndarray, Features]:
    """Read an image and find its features; pass on what the decoder had to say.

    Returns
    -------
    image : (M, N) array
        Grey values, see `gpusift.images.read_image`.
    features : Features
        On the host.
    """
    from gpusift.images import ImageReadError, read_image
    from gpusift.images.stderr import decoder_messages

    try:
        with decoder_messages() as messages:
            image = read_image(path, exif_orientation=exif_orientation)
    except ImageReadError as error:
        said = f" (decoder: {messages[0]})" if messages else ""
        raise ImageReadError(path, error.reason + said) from None
    for message in dict.fromkeys(messages):
        say(f"warning: {path}: decoder: {message}")
    return image, sift.compute(image).to_host()


def check_new(output: str, overwrite: bool) -> None:
    """End the command if a file is there that must not be replaced."""
    if os.path.lexists(output) and not overwrite:
        raise click.ClickException(f"{escaped(output)} exists; choose another name (--overwrite)")


def check_png(output: str) -> None:
    """End the command if a picture is not to be a PNG file."""
    if not output.lower().endswith(".png"):
        raise click.UsageError(f"the picture must be a .png file, got {escaped(output)}")


@contextmanager
def writing(output: str) -> Iterator[None]:
    """End the command with the reason if what is done cannot write this file."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {escaped(output)}: {reason_of(error)}") from None


def report(message: str) -> None:
    """Print a line on stdout; names in it may be any bytes."""
    click.echo(escaped(message))


def say(message: str) -> None:
    """Print a line on stderr, above the progress bar if there is one; names in it may be any bytes."""
    from tqdm import tqdm

    tqdm.write(escaped(message), file=sys.stderr)
