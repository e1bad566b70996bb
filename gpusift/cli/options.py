"""What the commands share: the options of SIFT, an image's features, and messages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from gpusift.errors import escaped, reason_of
from gpusift.parameters import EXTREMUM_RULES, LAYOUTS, NORMALIZATIONS, RULES, SAMPLE_CENTRES, Parameters
from gpusift.profiles import PROFILES, arguments_of

if TYPE_CHECKING:
    import numpy as np

    from gpusift.features import Features
    from gpusift.sift import SIFT

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended, by the shells' convention

PARAMETER_HELP = {
    "upsampling": "Enlarge the image this many times first: 1, 2 or 4.",
    "n_octaves": "Largest number of octaves; small images have fewer.",
    "n_scales": "Number of scales in each octave.",
    "sigma_min": "Blur of the first scale, in pixels of the enlarged image.",
    "sigma_in": "Blur assumed to be in the image, in input pixels.",
    "c_dog": "Smallest contrast of a keypoint (difference of Gaussians).",
    "c_edge": "Largest ratio of a keypoint's curvatures: excludes edges.",
    "n_bins": "Number of bins of the orientation histogram.",
    "lambda_ori": "Size of the orientation histogram's window, in sigmas.",
    "c_max": "Fraction of the highest peak at which a peak is an orientation.",
    "lambda_descr": "Size of the descriptor's window, in sigmas.",
    "n_hist": "Number of histograms along each side of the descriptor.",
    "n_ori": "Number of bins in each histogram of the descriptor.",
    "max_keypoints": "Largest number of features.  [default: all]",
    "keep": "Which features to keep: largest response, largest scale, or evenly spread.",
    "upright": "Give all features the orientation 0.",
    "normalization": "root makes RootSIFT descriptors.",
    "precise_upscale": "Remove the bias of upsampling, 0.25 pixels, from positions.",
    "upsampling_grid": "Samples of the enlarged image: by areas, or one at each pixel (VLFeat).",
    "extremum_rule": "Which extrema are keypoints: as IPOL and scikit-image, VLFeat and COLMAP, or OpenCV.",
    "max_orientations": "Largest number of features of a keypoint.  [default: all]",
    "descriptor_layout": "Order of the descriptor's values; ubc is OpenCV's and COLMAP's.",
    "affine_shape": "Estimate the affine shape of each keypoint, for views from very different directions.",
    "pooling": "Sizes over which descriptors are pooled, of sigma: 0.5,0.71,1,1.41,2.  [default: one]",
}
CHOICES = {
    "keep": RULES,
    "normalization": NORMALIZATIONS,
    "descriptor_layout": LAYOUTS,
    "upsampling_grid": tuple(SAMPLE_CENTRES),
    "extremum_rule": tuple(EXTREMUM_RULES),
}
SIFT_OPTIONS = (*Parameters.__dataclass_fields__, "device", "dtype", "blur", "num_threads", "memory_limit")


def complete_path(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a path. The value may also be a URL or a pattern, so that its type is no `click.Path`."""
    return [CompletionItem(incomplete, type="file")]


class MemoryLimit(click.ParamType):
    """Bytes, with a unit or without, or a fraction of the device's memory."""

    name = "BYTES|FRACTION"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | float:
        """Return bytes as an integer, a fraction as a float."""
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]i?B|B)?", value.strip())
        if found is None:
            self.fail(
                f"must be bytes such as 2000000000, 2GB or 500MiB, or a fraction such as 0.5; got {value!r}", param, ctx
            )
        number, unit = float(found[1]), found[2]
        if unit is None:
            return number if "." in found[1] else int(found[1])
        step = 1024 if "i" in unit else 1000
        return int(number * step ** "BkMGT".index(unit[0]))


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "NUMBER,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Return the numbers."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"must be numbers with commas between them, such as 0.5,1,2; got {value!r}", param, ctx)


class Shard(click.ParamType):
    """One of several parts: "2/8" is the third of eight."""

    name = "I/N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Return the part's number and the number of parts."""
        match = re.fullmatch(r"(\d+)/(\d+)", str(value).strip())
        if match is None or not int(match[1]) < int(match[2]):
            self.fail(f"must be I/N with I from 0 to N - 1, such as 0/4; got {value!r}", param, ctx)
        return int(match[1]), int(match[2])


TYPES: dict[Any, Any] = {
    "int": int,
    "int | None": int,
    "float": float,
    "bool": bool,
    "tuple[float, ...] | None": Numbers(),
}


def sift_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every parameter of SIFT, with SIFT's default."""
    options = [
        click.option(
            "--device",
            default="auto",
            metavar="auto|cuda|cuda:N|cpu",
            show_default=True,
            help="Where to compute; auto is a GPU if there is one.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "float64"]),
            default="float32",
            show_default=True,
            help="Precision of the computation.",
        ),
        click.option(
            "--blur",
            type=click.Choice(["auto", "kernel", "ndimage"]),
            default="auto",
            show_default=True,
            help="How to blur: gpusift's kernel, or ndimage of SciPy and CuPy.",
        ),
        click.option("--num-threads", type=int, help="Number of CPU threads.  [default: all]"),
        click.option(
            "--memory-limit",
            type=MemoryLimit(),
            help="Memory for an image's scale space: bytes, 2GB, 500MiB, or a fraction: 0.5.  [default: no limit]",
        ),
        click.option("--no-exif", is_flag=True, help="Do not turn the image as EXIF says."),
        click.option(
            "--profile",
            type=click.Choice(list(PROFILES)),
            help="Give the options below the values of this software.  [default: COLMAP's for .h5; .db as COLMAP's]",
        ),
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


def given_parameters(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Take the parameters of SIFT out of a command's options; return those that the user gave, or a profile has."""
    values = {name: options.pop(name) for name in SIFT_OPTIONS if name in options}
    is_given = {name: context.get_parameter_source(name) is not ParameterSource.DEFAULT for name in values}
    profile = options.pop("profile", None)
    chosen = arguments_of(profile) if profile else {}
    return {**chosen, **{name: value for name, value in values.items() if is_given[name]}}


def make_sift(parameters: dict[str, Any]) -> SIFT:
    """Make a SIFT from the parameters that were given; an error ends the command."""
    from gpusift.sift import SIFT

    try:
        return SIFT(**parameters)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise click.ClickException(str(error)) from None


def compute(sift: SIFT, path: Path, exif_orientation: bool) -> tuple[np.ndarray, Features]:
    """Read an image and compute its features; report what the decoder printed.

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
        printed = f" (decoder: {messages[0]})" if messages else ""
        raise ImageReadError(path, error.reason + printed) from None
    for message in dict.fromkeys(messages):
        say(f"warning: {path}: decoder: {message}")
    return image, sift.compute(image).to_host()


def check_new(output: str, overwrite: bool) -> None:
    """End the command if a file exists that must not be replaced."""
    if os.path.lexists(output) and not overwrite:
        raise click.ClickException(f"{escaped(output)} exists; choose another name (--overwrite)")


def check_png(output: str) -> None:
    """End the command unless the picture is to be a PNG file."""
    if not output.lower().endswith(".png"):
        raise click.UsageError(f"the picture must be a .png file, got {escaped(output)}")


@contextmanager
def writing(output: str) -> Iterator[None]:
    """End the command, with the reason, if this file cannot be written."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {escaped(output)}: {reason_of(error)}") from None


def report(message: str) -> None:
    """Print a line on stdout; names in it may be any bytes. All is done by then, so a full disk there is no error."""
    try:
        click.echo(escaped(message))
        sys.stdout.flush()
    except OSError as error:
        say(f"warning: cannot print on stdout: {reason_of(error)}")
        discard_rest(sys.stdout)


def discard_rest(stream: IO[str]) -> None:
    """Have the null device take what Python still writes when it closes a stream that failed."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def say(message: str) -> None:
    """Print a line on stderr, above the progress bar if there is one; names in it may be any bytes.

    A full disk or a closed pipe there ends no run: what failed is in the output's record of failures, too.
    """
    from tqdm import tqdm

    try:
        tqdm.write(escaped(message), file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        discard_rest(sys.stderr)
